"""Results of a group, read in the order in which they ended: each exactly once, whatever happens meanwhile."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator
from contextlib import closing

import pytest

from everfaas_core.model.ids import TaskId
from everfaas_core.model.records import Finish, GroupPage, GroupResult
from everfaas_core.model.states import Cause, Status
from everfaas_core.ports import Store
from everfaas_core.testing.faults import Fault, FaultyStore, persistently
from everfaas_core.testing.store_scene import PATIENCE_S, A, B, Scene, eventually, hear, ids_of

ROOM = 1_000_000_000
GROUP = "grüppe 1|+ {x}"


def page(store: Store, cursor: str | None = None, limit: int = 1000, group: str = GROUP) -> GroupPage:
    """Read one page."""
    return store.group_results(group, cursor, limit, bytes_max=ROOM)


def walk(store: Store, limit: int, cursor: str | None = None, group: str = GROUP) -> Iterator[GroupResult]:
    """Read page after page to the present end."""
    while True:
        found = page(store, cursor, limit, group)
        assert len(found.ended) <= limit
        yield from found.ended
        cursor = found.cursor
        if not found.more:
            assert page(store, cursor, limit, group).ended == ()
            return


def tasks_of(results: Iterator[GroupResult] | tuple[GroupResult, ...]) -> list[TaskId]:
    """Return the ids, in order."""
    return [result.task_id for result in results]


def finish_all(scene: Scene, ids: list[TaskId], result: bytes = b"result") -> None:
    """Claim, start and finish all that is queued, which is `ids`, the last one first, in one turn."""
    claimed: list[TaskId] = []
    while batch := scene.claim(1000):
        claimed += ids_of(batch)
    assert claimed == ids
    for task in ids:
        assert scene.start(task)
    ends = tuple(
        Finish(task_id=task, attempt=1, status=Status.COMPLETED, cause=Cause.OK, result=result) for task in ids[::-1]
    )
    assert all(scene.turn(finishes=ends).finished)


class GroupContract:
    def test_results_come_in_the_order_of_their_ends(self, scene: Scene, other: Store) -> None:
        one, two, three = scene.submit(3, group=GROUP)
        for task in ids_of(scene.claim(3)):
            scene.start(task)
        assert page(scene.store) == GroupPage(ended=(), cursor=page(scene.store).cursor, tasks=3, pending=3, more=False)
        scene.finish(three, result=b"third")
        first = page(scene.store)
        (found,) = first.ended
        assert (found.task_id, found.status, found.result) == (three, Status.COMPLETED, b"third")
        assert (first.tasks, first.pending, first.more, first.cursor) == (3, 2, False, found.cursor)
        scene.finish(one, cause=Cause.RAISED, result=b"first")
        scene.finish(two)
        assert tasks_of(page(other).ended) == [three, one, two]
        rest = page(other, first.cursor)
        assert [(item.task_id, item.status, item.result) for item in rest.ended] == [
            (one, Status.FAILED, b"first"),
            (two, Status.COMPLETED, b"result"),
        ]
        assert (rest.pending, rest.more) == (0, False)
        assert page(scene.store, rest.cursor).ended == ()
        assert page(scene.store, rest.cursor).cursor == rest.cursor

    @pytest.mark.parametrize("limit", [1, 7, 1000])
    def test_what_ends_at_once_is_paged_without_a_gap(self, scene: Scene, limit: int) -> None:
        ids = scene.submit(60, group=GROUP)
        finish_all(scene, ids)
        cancelled = scene.submit(40, group=GROUP)
        scene.store.cancel(cancelled)
        assert tasks_of(walk(scene.store, limit)) == [*ids[::-1], *cancelled]

    def test_the_cursor_of_each_result_leads_to_the_next(self, scene: Scene) -> None:
        ids = scene.submit(20, group=GROUP)
        scene.store.cancel(ids)
        for n, item in enumerate(page(scene.store).ended):
            assert tasks_of(page(scene.store, item.cursor).ended) == ids[n + 1 :]

    @pytest.mark.parametrize("with_results", [True, False])
    def test_tags_come_along(self, scene: Scene, with_results: bool) -> None:
        (plain,) = scene.submit(group=GROUP)
        (tagged,) = scene.submit(group=GROUP, tags=("tag é", "map:7"))
        scene.store.cancel([plain, tagged])
        found = scene.store.group_results(GROUP, None, 10, bytes_max=ROOM, with_results=with_results).ended
        assert [(item.task_id, item.tags) for item in found] == [(plain, ()), (tagged, ("tag é", "map:7"))]

    def test_every_way_to_end_is_in_it(self, scene: Scene) -> None:
        (queued,) = scene.submit(group=GROUP)
        scene.store.cancel([queued])
        (late,) = scene.submit(deadline_s=0.02, group=GROUP)
        time.sleep(0.05)
        scene.turn(sweep=True)
        (passed,) = scene.submit(deadline_s=0.02, group=GROUP)
        time.sleep(0.05)
        scene.claim(1)
        (slow,) = scene.submit(deadline_s=0.05, group=GROUP)
        assert ids_of(scene.claim(1)) == [slow]
        time.sleep(0.1)
        assert not scene.start(slow)
        stopped = scene.running(group=GROUP)
        scene.store.cancel([stopped])
        scene.requeue(stopped, cause=Cause.WORKER_LOST)
        never = scene.submit(group=GROUP)[0]
        scene.claim(1)
        assert scene.finish(never, 0, Cause.DEADLINE)
        lost = scene.running(bound=True, max_attempts=1, group=GROUP)
        scene.lapse(A)
        scene.turn(B, sweep=True)
        assert tasks_of(page(scene.store).ended) == [queued, late, passed, slow, stopped, never, lost]
        assert page(scene.store).pending == 0

    def test_the_same_end_again_adds_nothing(self, scene: Scene) -> None:
        task = scene.running(group=GROUP)
        for _ in range(3):
            assert scene.finish(task)
        assert not scene.finish(task, attempt=2)
        assert not scene.finish(task, cause=Cause.RAISED)
        scene.store.cancel([task])
        assert tasks_of(page(scene.store).ended) == [task]

    def test_a_stale_attempt_adds_nothing(self, scene: Scene) -> None:
        task = scene.running(group=GROUP)
        scene.requeue(task)
        scene.claim(1)
        scene.start(task, 2)
        assert not scene.finish(task, 1)
        assert page(scene.store).ended == ()
        assert page(scene.store).pending == 1
        assert scene.finish(task, 2)
        assert tasks_of(page(scene.store).ended) == [task]

    def test_groups_are_apart_and_tasks_without_one_in_none(self, scene: Scene) -> None:
        mine, theirs, nobodys = scene.submit(3, group="a"), scene.submit(2, group="a b"), scene.submit(2)
        scene.store.cancel([*nobodys, theirs[0], *mine, theirs[1]])
        assert tasks_of(walk(scene.store, 2, group="a")) == mine
        assert tasks_of(walk(scene.store, 2, group="a b")) == theirs
        empty = page(scene.store, group="c")
        assert (empty.ended, empty.tasks, empty.pending, empty.more) == ((), 0, 0, False)

    def test_a_retry_is_a_task_of_the_group(self, scene: Scene) -> None:
        (old,) = scene.submit(group=GROUP)
        scene.store.cancel([old])
        before = page(scene.store)
        new = scene.store.retry(old, scene.new_id())
        assert new is not None
        assert (page(scene.store).tasks, page(scene.store).pending) == (2, 1)
        scene.store.cancel([new])
        assert tasks_of(page(scene.store, before.cursor).ended) == [new]

    def test_a_page_stops_when_its_results_are_large_and_moves_on(self, scene: Scene) -> None:
        ids = scene.submit(5, group=GROUP)
        finish_all(scene, ids, result=b"x" * 1000)
        found: list[int] = []
        cursor = None
        more = True
        while more:
            part = scene.store.group_results(GROUP, cursor, 100, bytes_max=1500)
            found.append(len(part.ended))
            cursor, more = part.cursor, part.more
        assert found == [2, 2, 1]
        assert len(scene.store.group_results(GROUP, None, 100, bytes_max=1).ended) == 1
        bare = scene.store.group_results(GROUP, None, 100, bytes_max=1500, with_results=False)
        assert [item.result for item in bare.ended] == [b""] * 5
        assert tasks_of(bare.ended) == ids[::-1]

    def test_a_record_leaves_the_group_when_it_expires(self, scene: Scene) -> None:
        kept = scene.submit(1, group=GROUP)
        brief = scene.submit(3, group=GROUP, result_ttl_s=0.05)
        scene.store.cancel([*brief, *kept])
        cursor = page(scene.store, limit=1).cursor
        eventually(lambda: scene.status(brief[-1]) is None)
        assert tasks_of(walk(scene.store, 2)) == kept  # whether or not it was swept
        assert tasks_of(walk(scene.store, 2, cursor)) == kept
        scene.turn(sweep=True)
        found = page(scene.store, cursor)
        assert (tasks_of(found.ended), found.tasks, found.pending) == (kept, 1, 0)

    def test_an_old_cursor_misses_nothing_of_a_group_that_begins_anew(self, scene: Scene) -> None:
        first = scene.submit(30, group=GROUP, result_ttl_s=0.02)
        scene.store.cancel(first)
        cursor = scene.store.group_results(GROUP, None, 1000, bytes_max=ROOM).cursor
        eventually(lambda: scene.status(first[-1]) is None)
        scene.turn(sweep=True)
        assert page(scene.store).tasks == 0
        again = scene.submit(2, group=GROUP)
        scene.store.cancel(again)
        assert tasks_of(page(scene.store, cursor).ended) == again
        assert tasks_of(page(scene.store).ended) == again

    @pytest.mark.parametrize("cursor", ["", "x", "-1", "1.5", "+inf", "(5", "٣", "1 2", "9" * 5000])
    def test_a_cursor_that_is_none_is_refused(self, scene: Scene, cursor: str) -> None:
        with pytest.raises(ValueError, match="cursor"):
            page(scene.store, cursor)

    def test_those_who_watch_hear_the_name_of_the_group(self, scene: Scene, other: Store) -> None:
        with closing(other.watch("ended")) as watch:
            watch.read()
            scene.store.cancel(scene.submit())
            assert {group for notice in hear(watch) for group in notice.groups} == set()
            scene.store.cancel([*scene.submit(group=GROUP), *scene.submit(group="b"), *scene.submit(group=GROUP)])
            heard: list[str] = []
            until = time.monotonic() + PATIENCE_S
            while set(heard) != {GROUP, "b"}:
                assert time.monotonic() < until
                heard += [group for notice in hear(watch) for group in notice.groups]

    def test_a_reader_misses_nothing_that_ends_while_it_reads(self, scene: Scene, other: Store) -> None:
        ids = scene.submit(600, group=GROUP)
        parts = [ids[n::3] for n in range(3)]

        def cancel(part: list[TaskId]) -> None:
            for at in range(0, len(part), 4):
                scene.store.cancel(part[at : at + 4])

        threads = [threading.Thread(target=cancel, args=(part,)) for part in parts]
        for thread in threads:
            thread.start()
        found: list[TaskId] = []
        cursor = None
        until = time.monotonic() + PATIENCE_S
        while len(found) < len(ids) and time.monotonic() < until:
            got = page(other, cursor, 50)
            found += tasks_of(got.ended)
            cursor = got.cursor
        for thread in threads:
            thread.join()
        assert len(found) == len(set(found))
        assert set(found) == set(ids)
        assert tasks_of(page(other).ended) == found  # the order that it saw is the order
        assert page(other).pending == 0

    @pytest.mark.parametrize("seed", range(3))
    def test_with_calls_that_fail_each_comes_once(self, store: Store, seed: int) -> None:
        rng = random.Random(seed)  # noqa: S311 - a seed replays it
        faulty = FaultyStore(store, lambda _: rng.choice((None, None, Fault.BEFORE, Fault.AFTER)))
        calm = Scene(store)
        ids = calm.submit(40, group=GROUP)
        found: list[TaskId] = []
        cursor = None
        for at in range(0, len(ids), 5):
            persistently(faulty.cancel, ids[at : at + 5])
            got = persistently(lambda after=cursor: page(faulty, after, 4))
            found += tasks_of(got.ended)
            cursor = got.cursor
        found += tasks_of(walk(store, 4, cursor))
        assert found == ids
        assert faulty.faults > 0
