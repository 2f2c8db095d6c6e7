"""Large payloads and results: a store may keep them elsewhere than small ones, and nobody can tell."""

from __future__ import annotations

import pytest

from everfaas_core.model.errors import IdempotencyConflict, QueueFull
from everfaas_core.model.ids import TaskId
from everfaas_core.model.records import Adopt, Finish
from everfaas_core.model.states import Cause, Status
from everfaas_core.ports import Store
from everfaas_core.testing.store_scene import WORKER, A, B, Scene, eventually, ids_of

GROUP = "large"
SIZES = (0, 1, 2**18 - 1, 2**18, 2**18 + 1, 2**20, 3 * 2**20 + 5)


def blob(size: int, seed: int = 0) -> bytes:
    """Return bytes with everything in them that a protocol could stumble over."""
    unit = bytes([seed]) + bytes(range(256)) + b"\r\n$5\r\n\x00\xff"
    return (unit * (size // len(unit) + 1))[:size]


BIG = blob(2**20)
OTHER = blob(2**20, 1)


class LargeContract:
    """Part of `everfaas_core.testing.store.StoreContract`."""

    def test_payloads_of_all_sizes_arrive_as_they_were(self, scene: Scene) -> None:
        function = scene.function()
        specs = [scene.spec(function, payload=blob(size)) for size in SIZES]
        scene.store.submit(specs, 100)
        assert [task.payload for task in scene.claim(100)] == [blob(size) for size in SIZES]
        assert [scene.record(spec.task_id).payload_size_bytes for spec in specs] == list(SIZES)

    def test_results_of_all_sizes_are_read_as_they_were(self, scene: Scene) -> None:
        tasks = scene.submit(len(SIZES))
        scene.claim(100)
        ends = []
        for task, size in zip(tasks, SIZES, strict=True):
            assert scene.start(task)
            end = Finish(task_id=task, attempt=1, status=Status.COMPLETED, cause=Cause.OK, result=blob(size))
            ends.append(end)
        assert all(scene.turn(finishes=tuple(ends)).finished)
        for _ in range(2):
            assert [scene.result(task) for task in tasks] == [blob(size) for size in SIZES]
        assert [scene.record(task).result_size_bytes for task in tasks] == list(SIZES)

    def test_a_repeated_submit_and_finish_change_nothing(self, scene: Scene) -> None:
        spec = scene.spec(payload=BIG)
        assert list(scene.store.submit([spec], 10)) == list(scene.store.submit([spec], 10)) == [spec.task_id]
        assert [task.payload for task in scene.claim(9)] == [BIG]
        assert scene.start(spec.task_id)
        assert scene.finish(spec.task_id, result=OTHER)
        assert scene.finish(spec.task_id, result=OTHER)
        assert scene.result(spec.task_id) == OTHER

    def test_a_task_that_is_given_back_has_its_payload(self, scene: Scene) -> None:
        task = scene.running(payload=BIG)
        scene.requeue(task)
        (again,) = scene.claim(1, B)
        assert (again.task_id, again.payload) == (task, BIG)

    def test_a_stale_attempts_result_is_not_shown(self, scene: Scene) -> None:
        task = scene.running(payload=BIG)
        scene.requeue(task)
        scene.claim(1, B)
        assert not scene.finish(task, 1, result=OTHER)
        assert scene.result(task) == b""
        assert scene.start(task, 2, B)
        assert not scene.finish(task, 1, result=OTHER)
        assert scene.finish(task, 2, dispatcher=B, result=BIG)
        assert not scene.finish(task, 1, result=OTHER)
        assert scene.result(task) == BIG

    def test_an_end_is_not_replaced_by_a_late_large_result(self, scene: Scene) -> None:
        task = scene.running()
        assert scene.finish(task, cause=Cause.RAISED, result=b"small")
        assert not scene.finish(task, result=BIG)
        assert scene.result(task) == b"small"

    def test_only_who_holds_a_task_may_end_it_before_it_starts(self, scene: Scene) -> None:
        (task,) = scene.submit()
        scene.claim(1)
        assert not scene.finish(task, 0, Cause.DEADLINE, B, result=BIG)
        assert scene.finish(task, 0, Cause.DEADLINE, A, result=OTHER)
        assert scene.result(task) == OTHER

    def test_a_retry_has_the_payload_and_outlives_the_first(self, scene: Scene) -> None:
        task = scene.running(payload=BIG, result_ttl_s=0.3)
        assert scene.finish(task, cause=Cause.RAISED, result=OTHER)
        new = scene.store.retry(task, scene.new_id())
        assert new is not None
        eventually(lambda: scene.status(task) is None)
        scene.turn(sweep=True)
        assert [(found.task_id, found.payload) for found in scene.claim(9)] == [(new, BIG)]
        assert scene.record(new).payload_size_bytes == len(BIG)

    def test_adopted_tasks_have_their_payload(self, scene: Scene) -> None:
        task = scene.running(payload=BIG)
        (adopted,) = scene.turn(B, sweep=True, dead=(A,)).adopted
        assert (adopted.task.task_id, adopted.task.payload) == (task, BIG)
        held = scene.turn(B, adopts=(Adopt(task_id=task, attempt=1, worker=WORKER, epoch=1),)).adoptions
        assert [found.payload for found in held if found] == [BIG]

    def test_an_idempotency_key_stands_for_one_large_payload(self, scene: Scene) -> None:
        function = scene.function()
        (first,) = scene.submit(1, function, payload=BIG, idempotency_key="k")
        assert scene.submit(1, function, payload=BIG, idempotency_key="k") == [first]
        for payload in (OTHER, b"small", BIG[:-1]):
            with pytest.raises(IdempotencyConflict):
                scene.submit(1, function, payload=payload, idempotency_key="k")
        twins = [scene.spec(function, payload=OTHER, idempotency_key="twins") for _ in range(2)]
        assert list(scene.store.submit(twins, 10)) == [twins[0].task_id] * 2
        assert [task.payload for task in scene.claim(9)] == [BIG, OTHER]

    def test_what_was_refused_can_be_submitted_later(self, scene: Scene) -> None:
        scene.submit(2)
        specs = [scene.spec(payload=BIG), scene.spec()]
        with pytest.raises(QueueFull):
            scene.store.submit(specs, 3)
        scene.store.submit(specs, 4)
        assert [task.payload for task in scene.claim(9)][2:] == [BIG, specs[1].payload]

    def test_a_group_gives_large_results_in_portions(self, scene: Scene) -> None:
        tasks = scene.submit(5, group=GROUP)
        scene.claim(9)
        for number, task in enumerate(tasks):
            assert scene.start(task)
            assert scene.finish(task, result=blob(2**20, number))
        found: list[tuple[TaskId, bytes]] = []
        cursor, pages, more = None, 0, True
        while more:
            page = scene.store.group_results(GROUP, cursor, 100, bytes_max=2**21)
            found += [(one.task_id, one.result) for one in page.ended]
            cursor, more, pages = page.cursor, page.more, pages + 1
        assert found == [(task, blob(2**20, number)) for number, task in enumerate(tasks)]
        assert pages == 3
        names = scene.store.group_results(GROUP, None, 100, bytes_max=2**21, with_results=False)
        assert [(one.task_id, one.result) for one in names.ended] == [(task, b"") for task in tasks]

    def test_large_results_end_with_their_retention(self, scene: Scene, other: Store) -> None:
        task = scene.running(payload=BIG, result_ttl_s=0.3, group=GROUP)
        assert scene.finish(task, result=OTHER)
        assert scene.result(task) == OTHER
        eventually(lambda: other.results([task])[0] is None)
        assert other.group_results(GROUP, None, 10, bytes_max=2**30).ended == ()
        scene.turn(sweep=True)
        assert other.results([task])[0] is None

    def test_a_claim_stops_at_its_bytes_and_the_next_goes_on(self, scene: Scene) -> None:
        tasks = scene.submit(5, payload=BIG)
        reply = scene.turn(claim=9, claim_bytes=2 * len(BIG))
        assert ids_of(reply.claimed) == tasks[:2]
        assert reply.next_due_s == 0.0
        assert ids_of(scene.turn(claim=9, claim_bytes=1).claimed) == tasks[2:3]
        reply = scene.turn(claim=9)
        assert ids_of(reply.claimed) == tasks[3:]
        assert reply.next_due_s is None
