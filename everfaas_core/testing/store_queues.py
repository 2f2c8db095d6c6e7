"""What waits: fairly between urgencies, and in any number."""

from __future__ import annotations

import time

from everfaas_core.model.ids import TaskId
from everfaas_core.testing.store_scene import Scene, ids_of

DELAYED = 20_000
DUE_S = 2.0  # ten times what it takes to submit them and look
SHARE = 8  # one pick of so many goes to the least urgent


class QueueContract:
    def test_a_stream_of_urgent_tasks_does_not_starve_the_others(self, scene: Scene) -> None:
        """There is always something urgent, whatever the size of a claim, and the low ones still get their share."""
        function = scene.function()
        for count in (1, 3, 16):
            low = scene.submit(10, function, priority=0)
            scene.submit(5, function, priority=5)
            order: list[TaskId] = []
            while not set(low) <= set(order):
                scene.submit(count, function, priority=9)  # as many as are claimed: the urgent ones never run out
                order += ids_of(scene.claim(count))
                assert len(order) <= 20 * SHARE, "the low ones starve"
            assert [task for task in order if task in low] == low
            urgent = len(order) - len(low)
            assert urgent >= len(low) * (SHARE - 2)  # and the urgent ones still go first
            while scene.claim(1000):
                pass

    def test_many_delayed_tasks_wait_quietly(self, scene: Scene) -> None:
        function = scene.function()
        ids: list[TaskId] = []
        for hundreds in range(DELAYED // 1000):
            specs = [scene.spec(function, delay_s=3600.0 + hundreds) for _ in range(1000)]
            ids += scene.store.submit(specs, DELAYED)
        (first,) = scene.submit(function=function, delay_s=1800.0)
        (now,) = scene.submit(function=function)
        reply = scene.turn(claim=2048)
        assert ids_of(list(reply.claimed)) == [now]
        assert reply.next_due_s is not None
        assert 1700 < reply.next_due_s <= 1800
        scene.store.cancel([first])
        for parts in ({"sweep": True}, {"claim": 10}):
            reply = scene.turn(**parts)
            assert reply.claimed == ()
            assert reply.next_due_s is not None
            assert 3500 < reply.next_due_s <= 3600
        assert scene.store.health().queued == DELAYED
        assert set(scene.store.statuses(ids[::100])) == {"QUEUED"}
        scene.store.cancel(ids)
        assert scene.turn(claim=1).next_due_s is None
        assert scene.store.health().queued == 0

    def test_many_that_are_due_at_once_are_all_given_in_order(self, scene: Scene) -> None:
        function = scene.function()
        specs = [scene.spec(function, delay_s=DUE_S) for _ in range(2500)]
        ids = list(scene.store.submit(specs, DELAYED))
        assert scene.claim(1) == []
        time.sleep(DUE_S + 0.1)
        found: list[TaskId] = []
        reply = scene.turn(claim=700)
        while reply.claimed or reply.next_due_s is not None:
            found += ids_of(list(reply.claimed))
            reply = scene.turn(claim=700)
        assert found == ids
