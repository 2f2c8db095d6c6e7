"""Dispatchers that are known to be dead, workers that have gone to another one, and workers that are asked to leave."""

from __future__ import annotations

from typing import Any

from everfaas_core.model.ids import TaskId, WorkerId
from everfaas_core.model.records import Adopt, ClaimedTask, TurnReply
from everfaas_core.model.states import Cause, Status
from everfaas_core.ports import Store
from everfaas_core.testing.faults import Fault, FaultyStore, persistently
from everfaas_core.testing.store_scene import SHORT_S, WORKER, A, B, C, Scene, eventually, ids_of, report

UNKNOWN = TaskId("00000000-0000-8000-8000-000000000000")


def adopt(scene: Scene, *items: tuple[TaskId, int], worker: str = WORKER, **parts: Any) -> list[ClaimedTask | None]:
    """Say that a worker has come to dispatcher B, and what it runs."""
    adopts = tuple(Adopt(task_id=task, attempt=attempt, worker=WorkerId(worker)) for task, attempt in items)
    return list(scene.turn(B, adopts=adopts, **parts).adoptions)


class TakeoverContract:
    # known to be dead

    def test_what_a_dead_dispatcher_held_is_taken_over_at_once(self, scene: Scene) -> None:
        runs = scene.running()
        (waits,) = scene.submit()
        scene.turn(A, report=report(A), claim=1)
        assert scene.turn(B, report=report(B), sweep=True).adopted == ()  # its lease holds
        reply = scene.turn(B, report=report(B), sweep=True, dead=(A,))
        assert [(item.task.task_id, item.worker) for item in reply.adopted] == [(runs, WORKER)]
        assert ids_of(scene.claim(9, B)) == [waits]
        assert [found.dispatcher_id for found in scene.store.fleet()] == [B]
        assert scene.finish(runs, dispatcher=B)

    def test_an_heir_learns_under_which_hello_an_attempt_was_sent_or_presented_last(self, scene: Scene) -> None:
        sent, presented = scene.submit(2)
        scene.claim(2)
        assert scene.start(sent, epoch=3)
        assert scene.start(presented, epoch=3)
        again = Adopt(task_id=presented, attempt=1, worker=WORKER, epoch=5)
        assert scene.turn(A, adopts=(again,)).adoptions[0] is not None
        adopted = scene.turn(B, report=report(B), sweep=True, dead=(A,)).adopted
        assert {item.task.task_id: item.epoch for item in adopted} == {sent: 3, presented: 5}
        late = Adopt(task_id=sent, attempt=1, worker=WORKER, epoch=2)  # from before it was sent
        assert scene.turn(C, adopts=(late,)).adoptions == (None,)

    def test_to_name_the_dead_is_to_sweep(self, scene: Scene) -> None:
        task = scene.running(bound=True)
        reply = scene.turn(B, dead=(A,))
        assert reply.adopted == ()
        (claimed,) = scene.claim(9, B)
        assert (claimed.task_id, claimed.attempt, claimed.charged) == (task, 1, 1)

    def test_one_that_was_wrongly_called_dead_is_told(self, scene: Scene) -> None:
        task = scene.running()
        scene.turn(A, report=report(A))
        assert len(scene.turn(B, dead=(A,)).adopted) == 1
        assert scene.turn(A, report=report(A)).evicted is True
        scene.requeue(task, 1, A)  # no longer its to give
        assert scene.status(task) == Status.RUNNING
        assert scene.claim(9) == []

    def test_nobody_is_dead_who_says_so_and_nothing_comes_of_strangers(self, scene: Scene) -> None:
        task = scene.running()
        scene.turn(A, report=report(A))
        reply = scene.turn(A, report=report(A), sweep=True, dead=(A, B, C))
        assert (reply.adopted, reply.evicted) == ((), False)
        assert scene.turn(A, report=report(A)).evicted is False
        assert scene.turn(B, report=report(B)).evicted is False  # it had never been there
        assert scene.finish(task)

    def test_a_lost_answer_about_the_dead_is_given_again(self, scene: Scene) -> None:
        faults: list[Fault | None] = [Fault.AFTER, Fault.AFTER]
        task = scene.running()
        faulty = Scene(scene.store)
        faulty.store = FaultyStore(scene.store, lambda _: faults.pop() if faults else None)
        reply: TurnReply = persistently(lambda: faulty.turn(B, sweep=True, dead=(A,)))
        assert [item.task.task_id for item in reply.adopted] == [task]

    # a worker presents what it runs

    def test_a_worker_brings_its_attempts_along(self, scene: Scene) -> None:
        task = scene.running(payload=b"p", timeout_s=5.0)
        (adopted,) = adopt(scene, (task, 1))
        assert adopted is not None
        assert (adopted.task_id, adopted.attempt, adopted.payload, adopted.timeout_s) == (task, 1, b"p", 5.0)
        assert adopt(scene, (task, 1)) == [adopted]  # asked again after a lost answer
        scene.requeue(task, 1, A)
        assert scene.status(task) == Status.RUNNING
        assert scene.claim(9, C) == []  # A had nothing to give
        scene.requeue(task, 1, B)
        assert ids_of(scene.claim(9, C)) == [task]

    def test_what_was_presented_is_not_swept(self, scene: Scene) -> None:
        task = scene.running()
        adopt(scene, (task, 1), report=report(B))
        scene.lapse(A)
        assert scene.turn(C, sweep=True).adopted == ()
        assert scene.claim(9, C) == []
        assert scene.turn(B, report=report(B), sweep=True).adopted == ()
        assert scene.finish(task, dispatcher=B)

    def test_what_a_dead_dispatcher_left_can_be_presented_before_it_is_swept(self, scene: Scene) -> None:
        task = scene.running()
        scene.store.resign(A)
        assert adopt(scene, (task, 1)) != [None]
        assert scene.turn(C, sweep=True).adopted == ()
        scene.requeue(task, 1, B)
        assert ids_of(scene.claim(9, C)) == [task]

    def test_what_another_has_swept_follows_its_worker(self, scene: Scene) -> None:
        task = scene.running()
        assert len(scene.turn(C, dead=(A,)).adopted) == 1
        assert adopt(scene, (task, 1)) != [None]
        scene.requeue(task, 1, C, cause=Cause.WORKER_LOST)  # C has waited for the worker in vain
        assert scene.claim(9, A) == []
        assert scene.finish(task, dispatcher=B)

    def test_what_is_not_live_there_is_not_given(self, scene: Scene) -> None:
        bound = scene.running(bound=True)
        task = scene.running()
        (queued,) = scene.submit()
        assert adopt(scene, (task, 0), (task, 2), (UNKNOWN, 1), (queued, 0), (queued, 1), (bound, 1)) == [None] * 6
        assert adopt(scene, (task, 1), worker="worker-2") == [None]
        scene.requeue(task, 1)
        assert adopt(scene, (task, 1)) == [None]  # given up
        assert set(ids_of(scene.claim(9, C))) == {task, queued}
        assert scene.start(task, 2, C)
        assert adopt(scene, (task, 1)) == [None]  # stale
        assert scene.finish(task, 2, dispatcher=C)
        assert adopt(scene, (task, 2)) == [None]  # over
        assert scene.finish(bound)

    def test_a_cancel_follows_the_worker(self, scene: Scene) -> None:
        task = scene.running()
        scene.store.cancel([task])
        adopt(scene, (task, 1))
        assert scene.turn(B, report=report(B)).cancels == (task,)
        assert scene.turn(A, report=report(A)).cancels == ()
        later = scene.running()
        adopt(scene, (later, 1))
        scene.store.cancel([later])
        assert set(scene.turn(B, report=report(B)).cancels) == {task, later}

    def test_what_was_presented_to_one_that_dies_is_swept(self, scene: Scene) -> None:
        task = scene.running()
        adopt(scene, (task, 1), lease_s=SHORT_S)  # all that B ever did: it has a lease nevertheless
        found = eventually(lambda: scene.turn(C, sweep=True).adopted)
        assert [item.task.task_id for item in found] == [task]

    def test_one_that_is_about_to_forget_is_given_nothing(self, scene: Scene) -> None:
        scene.running(B)
        task = scene.running()
        assert len(scene.turn(C, dead=(B,)).adopted) == 1
        assert adopt(scene, (task, 1)) == [None]
        scene.requeue(task, 1)  # it stays with A
        assert ids_of(scene.claim(9, C)) == [task]

    # a worker is asked to leave

    def test_a_drain_is_heard_with_every_report_of_the_worker(self, scene: Scene, other: Store) -> None:
        scene.turn(A, report=report(A, workers=2))
        scene.turn(B, report=report(B, workers=0))
        assert other.drain_worker(WorkerId("worker-2")) is True
        assert other.drain_worker(WorkerId("worker-2")) is True
        assert scene.turn(A, claim=1, sweep=True).drains == ()
        for _ in range(2):
            assert scene.turn(A, report=report(A, workers=2)).drains == ("worker-2",)
        assert scene.turn(B, report=report(B, workers=0)).drains == ()
        assert scene.turn(A, report=report(A, workers=1)).drains == ()

    def test_only_a_worker_that_somebody_reports_can_be_asked(self, scene: Scene) -> None:
        assert scene.store.drain_worker(WORKER) is False
        scene.turn(A, report=report(A))
        assert scene.store.drain_worker(WorkerId("worker-2")) is False
        assert scene.store.drain_worker(WORKER) is True
        scene.lapse(A)
        assert scene.store.drain_worker(WORKER) is False

    def test_a_drain_follows_the_worker_to_another_dispatcher(self, scene: Scene) -> None:
        scene.turn(A, report=report(A))
        assert scene.store.drain_worker(WORKER)
        scene.lapse(A)
        scene.turn(C, report=report(C, workers=0), sweep=True)
        assert scene.turn(B, report=report(B)).drains == (WORKER,)
