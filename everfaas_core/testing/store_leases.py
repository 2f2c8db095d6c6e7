"""What happens when dispatchers come, go, die, and come back; and when an answer is lost on its way."""

from __future__ import annotations

import pickle
import threading
import time

from everfaas_core.model.ids import TaskId, WorkerId
from everfaas_core.model.records import AdoptedTask, Start
from everfaas_core.model.states import Cause, Status
from everfaas_core.ports import Store
from everfaas_core.testing.faults import Fault, FaultyStore, persistently
from everfaas_core.testing.store_scene import LONG_S, SHORT_S, A, B, C, Scene, eventually, ids_of, report, worker_info


class LeaseContract:
    # leases

    def test_a_report_is_seen_while_its_lease_holds(self, scene: Scene) -> None:
        assert list(scene.store.fleet()) == []
        assert (scene.store.health().dispatchers, scene.store.health().slots) == (0, 0)
        scene.turn(A, report=report(A, workers=2))
        scene.turn(B, report=report(B), lease_s=SHORT_S)
        assert scene.store.health().kind
        assert {found.dispatcher_id for found in scene.store.fleet()} >= {A}
        eventually(lambda: [found.dispatcher_id for found in scene.store.fleet()] == [A])
        (found,) = scene.store.fleet()
        assert found == report(A, workers=2)
        assert found.workers[0] == worker_info()
        health = scene.store.health()
        assert (health.queued, health.dispatchers, health.slots) == (0, 1, 8)

    def test_a_living_dispatcher_keeps_its_claims(self, scene: Scene) -> None:
        task = scene.running()
        for _ in range(3):
            scene.turn(A, report=report(A), lease_s=LONG_S)
            reply = scene.turn(B, report=report(B), sweep=True, claim=9)
            assert (reply.adopted, reply.claimed) == ((), ())
        assert scene.turn(A, report=report(A)).evicted is False
        assert scene.finish(task)

    def test_a_sweep_never_takes_from_itself(self, scene: Scene) -> None:
        task = scene.running()
        scene.lapse(A)
        reply = scene.turn(A, sweep=True)
        assert (reply.adopted, reply.evicted) == ((), False)
        assert scene.turn(A, report=report(A), sweep=True).evicted is False
        assert scene.finish(task)

    # takeover

    def test_what_was_only_claimed_goes_back_uncharged(self, scene: Scene) -> None:
        ids = scene.submit(3)
        scene.claim(2)
        scene.lapse(A)
        assert scene.turn(B, report=report(B), sweep=True).adopted == ()
        claimed = scene.claim(9, B)
        assert ids_of(claimed) == ids
        assert [task.charged for task in claimed] == [0, 0, 0]

    def test_what_ran_bound_to_the_dispatcher_is_charged(self, scene: Scene) -> None:
        task = scene.running(bound=True)
        scene.lapse(A)
        scene.turn(B, sweep=True)
        assert scene.status(task) == Status.RUNNING
        (claimed,) = scene.claim(9, B)
        assert (claimed.task_id, claimed.attempt, claimed.charged) == (task, 1, 1)
        assert scene.record(task).attempts[0].cause is Cause.DISPATCHER_LOST
        assert scene.finish(task, 1) is False  # by the one that was lost
        assert scene.start(task, 2, B)

    def test_the_last_attempt_lost_is_a_dead_letter(self, scene: Scene) -> None:
        task = scene.running(bound=True, max_attempts=1)
        scene.lapse(A)
        scene.turn(B, sweep=True)
        record = scene.record(task)
        assert (record.status, record.cause) == (Status.FAILED, Cause.DISPATCHER_LOST)
        assert record.attempts[0].cause is Cause.DISPATCHER_LOST
        error = pickle.loads(scene.result(task))  # noqa: S301 - the store made it
        assert str(error).startswith("WorkerFailure")
        assert scene.claim(9, B) == []

    def test_a_bound_attempt_that_was_cancelled_is_not_run_again(self, scene: Scene) -> None:
        task = scene.running(bound=True)
        scene.store.cancel([task])
        scene.lapse(A)
        scene.turn(B, sweep=True)
        assert scene.status(task) == Status.CANCELLED

    def test_what_runs_on_a_worker_is_adopted(self, scene: Scene) -> None:
        (task,) = scene.submit(payload=b"p", timeout_s=5.0)
        scene.claim(1)
        scene.start(task, 1, A, WorkerId("worker 9"))
        scene.lapse(A)
        (adopted,) = scene.turn(B, sweep=True).adopted
        assert (adopted.worker, adopted.task.task_id, adopted.task.attempt) == ("worker 9", task, 1)
        assert (adopted.task.payload, adopted.task.charged, adopted.task.timeout_s) == (b"p", 0, 5.0)
        assert scene.turn(B, sweep=True).adopted == ()
        assert scene.status(task) == Status.RUNNING
        assert scene.finish(task, 1, dispatcher=B)
        assert scene.status(task) == Status.COMPLETED

    def test_an_adopted_task_can_be_given_back(self, scene: Scene) -> None:
        task = scene.running()
        scene.lapse(A)
        assert len(scene.turn(B, sweep=True).adopted) == 1
        scene.requeue(task, 1, A)  # no longer its to give
        assert scene.claim(9, C) == []
        scene.requeue(task, 1, B)
        (claimed,) = scene.claim(9, C)
        assert (claimed.attempt, claimed.charged) == (1, 1)

    def test_an_outcome_counts_whoever_brings_it(self, scene: Scene) -> None:
        task = scene.running()
        scene.lapse(A)
        scene.turn(B, sweep=True)
        assert scene.finish(task, 1, dispatcher=A)  # A was slow, not dead; the attempt is the same
        assert scene.finish(task, 1, dispatcher=B) is True
        scene.lapse(B)
        assert scene.turn(C, sweep=True).adopted == ()

    def test_a_cancel_reaches_whoever_adopts(self, scene: Scene) -> None:
        task = scene.running()
        scene.store.cancel([task])
        scene.lapse(A)
        reply = scene.turn(B, sweep=True)
        assert len(reply.adopted) == 1
        assert scene.turn(B, report=report(B)).cancels == (task,)
        assert scene.turn(A, report=report(A)).cancels == ()
        assert scene.finish(task, cause=Cause.CANCELLED, dispatcher=B)
        assert scene.turn(B, report=report(B)).cancels == ()

    def test_exactly_one_of_two_sweepers_takes_over(self, scene: Scene, other: Store) -> None:
        ids = scene.submit(60)
        scene.claim(60)
        scene.turn(A, starts=tuple(Start(task_id=task, attempt=1, worker=WorkerId("w")) for task in ids[:20]))
        bound = tuple(Start(task_id=task, attempt=1, worker=WorkerId("w"), bound=True) for task in ids[20:40])
        scene.turn(A, starts=bound)
        scene.lapse(A)
        adopted: list[AdoptedTask] = []
        barrier = threading.Barrier(2)

        def sweep(hand: Scene, dispatcher: str) -> None:
            barrier.wait()
            for _ in range(5):
                adopted.extend(hand.turn(type(A)(dispatcher), sweep=True).adopted)

        threads = [
            threading.Thread(target=sweep, args=(Scene(store), name)) for store, name in ((scene.store, B), (other, C))
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(item.task.task_id for item in adopted) == ids[:20]
        claimed = scene.claim(100, B)
        assert sorted(ids_of(claimed)) == ids[20:]
        assert {task.task_id: task.charged for task in claimed} == {
            task: 1 if task in ids[20:40] else 0 for task in ids[20:]
        }

    def test_a_takeover_of_many_claims_misses_none(self, scene: Scene) -> None:
        ids = scene.submit(2_500)
        claimed = ids_of(scene.claim(2_000) + scene.claim(500))
        assert claimed == ids
        runs = tuple(Start(task_id=task, attempt=1, worker=WorkerId("w")) for task in ids[:1_500])
        assert all(scene.turn(starts=runs).started)
        scene.lapse(A)
        adopted: set[TaskId] = set()
        for _ in range(5):
            adopted |= {item.task.task_id for item in scene.turn(B, sweep=True).adopted}
        assert adopted == set(ids[:1_500])
        assert set(ids_of(scene.claim(2_000, B))) == set(ids[1_500:])

    # eviction

    def test_one_that_was_evicted_is_told_and_starts_anew(self, scene: Scene) -> None:
        assert scene.turn(A, report=report(A)).evicted is False  # the very first
        running = scene.running()
        scene.lapse(A)
        scene.turn(B, sweep=True)
        (fresh,) = scene.submit()
        assert scene.start(fresh) is False
        reply = scene.turn(A, report=report(A), claim=9)
        assert (reply.evicted, reply.claimed) == (True, ())  # it must not be given what it then forgets
        scene.requeue(running, 1, A)
        reply = scene.turn(A, report=report(A), claim=9)
        assert reply.evicted is False
        assert fresh in ids_of(list(reply.claimed))
        assert scene.start(fresh)
        assert [found.dispatcher_id for found in scene.store.fleet()] == [A]

    def test_one_that_was_evicted_is_told_when_it_claims_or_sweeps_too(self, scene: Scene) -> None:
        for parts in ({"claim": 1}, {"sweep": True}):
            scene.running(A)
            scene.lapse(A)
            assert len(scene.turn(B, sweep=True).adopted) == 1
            assert scene.turn(A, **parts).evicted is True
            assert scene.turn(A, report=report(A)).evicted is False

    def test_what_it_claims_after_an_eviction_is_its_own(self, scene: Scene) -> None:
        scene.running(A)
        scene.lapse(A)
        scene.turn(B, sweep=True)
        scene.turn(A, report=report(A))
        mine = scene.running(A)
        for _ in range(3):
            assert scene.turn(B, sweep=True).adopted == ()
        assert scene.finish(mine)

    def test_a_claim_without_a_report_has_a_lease_too(self, scene: Scene) -> None:
        (task,) = scene.submit()
        assert ids_of(scene.claim(1, A, lease_s=SHORT_S)) == [task]
        time.sleep(SHORT_S * 2)
        scene.turn(B, sweep=True)
        assert ids_of(scene.claim(1, B)) == [task]

    # resigning

    def test_one_that_resigns_leaves_nothing_behind(self, scene: Scene) -> None:
        ids = scene.submit(3)
        scene.turn(A, report=report(A))
        scene.claim(3)
        scene.start(ids[0])
        scene.store.resign(A)
        assert list(scene.store.fleet()) == []
        assert ids_of(scene.claim(9, B)) == ids[1:]  # at once, without a sweep
        (adopted,) = scene.turn(B, sweep=True).adopted
        assert (adopted.task.task_id, adopted.worker) == (ids[0], "worker-1")
        scene.store.resign(A)
        scene.store.resign(C)
        assert scene.turn(C, sweep=True).adopted == ()
        assert scene.turn(A, report=report(A)).evicted is False

    # lost answers

    def test_what_a_lost_answer_gave_is_given_again(self, scene: Scene) -> None:
        faults: list[Fault | None] = []
        faulty = Scene(FaultyStore(scene.store, lambda _: faults.pop() if faults else None))
        ids = faulty.submit(6)
        faults[:] = [Fault.BEFORE, Fault.AFTER, Fault.AFTER]
        assert ids_of(persistently(faulty.claim, 3)) == ids[:3]
        assert ids_of(faulty.claim(9)) == ids[3:]
        assert faulty.claim(9) == []
        assert all(faulty.start(task, 1) for task in ids)
        faulty.lapse(A)
        faults[:] = [Fault.AFTER, Fault.AFTER]
        reply = persistently(lambda: faulty.turn(B, sweep=True))
        assert sorted(item.task.task_id for item in reply.adopted) == ids
        assert {item.worker for item in reply.adopted} == {"worker-1"}
        assert faulty.turn(B, sweep=True).adopted == ()
        faults[:] = [Fault.AFTER, Fault.AFTER]
        assert persistently(lambda: faulty.turn(A, report=report(A))).evicted is True
        assert faulty.turn(A, report=report(A)).evicted is False

    def test_what_was_claimed_unheard_survives_a_turn_that_does_not_claim(self, scene: Scene) -> None:
        faults: list[Fault | None] = []
        faulty = Scene(FaultyStore(scene.store, lambda _: faults.pop() if faults else None))
        ids = faulty.submit(2)
        faults[:] = [Fault.AFTER]
        assert ids_of(persistently(lambda: faulty.claim(1) if faults else faulty.claim(0))) == []
        faulty.turn(A, report=report(A))
        assert sorted(ids_of(faulty.claim(2))) == ids
