"""Who is woken, when, and how often."""

from __future__ import annotations

import select
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager

import pytest

from everfaas_core.model.ids import TaskId
from everfaas_core.model.states import Cause
from everfaas_core.ports import Notice, Store, Watch
from everfaas_core.testing.store_scene import A, B, Scene, hear, hear_ended

SILENCE_S = 0.2  # long enough for a notice that should not come


@contextmanager
def watching(store: Store, topic: str) -> Iterator[Watch]:
    """Watch a topic, with what was there before read away."""
    with closing(store.watch(topic)) as watch:
        watch.read()
        yield watch


class WakeupContract:
    def test_a_dispatcher_that_found_too_little_hears_a_bell(self, scene: Scene, other: Store) -> None:
        with watching(other, "work") as watch:
            assert scene.claim(1) == []
            scene.submit()
            assert hear(watch) == [Notice(bell=True)]

    def test_a_burst_rings_once(self, scene: Scene) -> None:
        with watching(scene.store, "work") as watch:
            scene.claim(1)
            scene.claim(1, B)
            for _ in range(20):
                scene.submit()
            assert hear(watch) == [Notice(bell=True)]
            assert hear(watch, SILENCE_S) == []

    def test_nobody_is_rung_who_has_enough(self, scene: Scene) -> None:
        scene.submit(2)
        with watching(scene.store, "work") as watch:
            assert len(scene.claim(1)) == 1
            scene.submit()
            assert hear(watch, SILENCE_S) == []
            assert len(scene.claim(5)) == 2
            scene.submit()
            assert hear(watch) == [Notice(bell=True)]

    def test_what_comes_back_rings(self, scene: Scene) -> None:
        task = scene.running()
        scene.claim(1, B)
        with watching(scene.store, "work") as watch:
            scene.requeue(task)
            assert hear(watch) == [Notice(bell=True)]

    def test_what_a_dead_dispatcher_leaves_rings(self, scene: Scene) -> None:
        scene.submit()
        scene.claim(1)
        scene.claim(1, B)
        scene.lapse(A)
        with watching(scene.store, "work") as watch:
            scene.turn(B, sweep=True)
            assert hear(watch) == [Notice(bell=True)]

    def test_a_resignation_rings(self, scene: Scene) -> None:
        scene.submit()
        scene.claim(1)
        scene.claim(1, B)
        with watching(scene.store, "work") as watch:
            scene.store.resign(A)
            assert hear(watch) == [Notice(bell=True)]

    def test_a_delayed_task_rings_when_it_changes_the_alarm_and_when_it_is_promoted(self, scene: Scene) -> None:
        assert scene.turn(claim=1).next_due_s is None
        with watching(scene.store, "work") as watch:
            scene.submit(delay_s=1.0)
            assert hear(watch) == [Notice(bell=True)]  # else the waiting would sleep past it
            assert scene.turn(claim=1).next_due_s is not None
            scene.submit(delay_s=50.0)
            assert hear(watch, SILENCE_S) == []
            time.sleep(1.0)
            scene.turn(B, sweep=True)
            assert hear(watch) == [Notice(bell=True)]

    def test_a_cancel_of_a_running_task_rings(self, scene: Scene) -> None:
        task = scene.running()
        with watching(scene.store, "work") as watch:
            scene.store.cancel([task])
            assert hear(watch) == [Notice(bell=True)]
            scene.store.cancel([task])
            assert hear(watch, SILENCE_S) == []

    def test_what_is_told_of_an_end_is_what_is_read(self, scene: Scene) -> None:
        with watching(scene.store, "ended") as watch:
            ids = [scene.running()]
            scene.finish(ids[0], result=b"a \n\x00 b")
            ids += scene.submit(2)
            scene.store.cancel(ids[1:])
            heard: list[TaskId] = []
            while len(heard) < len(ids):
                notices = hear(watch)
                assert notices
                heard += [task for notice in notices for task in notice.ended]
                told = [notice.told for notice in notices if notice.told is not None]
                assert told == list(scene.store.results([record.task_id for record in told]))
                assert all(notice.ended == (notice.told.task_id,) for notice in notices if notice.told is not None)

    def test_what_has_ended_is_told_to_all(self, scene: Scene, other: Store) -> None:
        with watching(scene.store, "ended") as one, watching(other, "ended") as two:
            task = scene.running()
            assert hear(one, SILENCE_S) == []
            scene.finish(task)
            assert hear_ended(one, 1) == [task]
            assert hear_ended(two, 1) == [task]
            scene.finish(task)  # the same again is no news
            assert hear(one, SILENCE_S) == []

    def test_every_way_to_end_is_told(self, scene: Scene) -> None:
        with watching(scene.store, "ended") as watch:
            (queued,) = scene.submit()
            scene.store.cancel([queued])
            assert hear_ended(watch, 1) == [queued]
            (late,) = scene.submit(deadline_s=0.02)
            time.sleep(0.05)
            scene.turn(sweep=True)
            assert hear_ended(watch, 1) == [late]
            (passed,) = scene.submit(deadline_s=0.02)
            time.sleep(0.05)
            scene.claim(1)
            assert hear_ended(watch, 1) == [passed]
            stopped = scene.running()
            scene.store.cancel([stopped])
            scene.requeue(stopped, cause=Cause.WORKER_LOST)
            assert hear_ended(watch, 1) == [stopped]
            lost = scene.running(bound=True, max_attempts=1)
            scene.lapse(A)
            scene.turn(B, sweep=True)
            assert hear_ended(watch, 1) == [lost]

    def test_a_batch_of_ends_is_told_whole(self, scene: Scene) -> None:
        with watching(scene.store, "ended") as watch:
            ids = scene.submit(3_000)
            scene.store.cancel(ids)
            assert hear_ended(watch, 3_000) == ids

    def test_reading_takes_all_there_is(self, scene: Scene) -> None:
        with watching(scene.store, "ended") as watch:
            ids = scene.submit(200)
            for task in ids:
                scene.store.cancel([task])
            heard = hear_ended(watch, 200)
            assert heard == ids
            assert not select.select([watch.fileno()], [], [], 0)[0]
            assert list(watch.read()) == []

    def test_a_closed_watch_is_silent(self, scene: Scene) -> None:
        watch = scene.store.watch("ended")
        watch.close()
        watch.close()
        scene.store.cancel(scene.submit())
        with pytest.raises(ValueError, match="topic"):
            scene.store.watch("nonsense")
