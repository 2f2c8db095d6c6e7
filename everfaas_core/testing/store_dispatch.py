"""What a dispatcher may rely on: claim, start, finish, requeue."""

from __future__ import annotations

import pickle
import time

from everfaas_core.model.ids import FunctionId, TaskId, WorkerId
from everfaas_core.model.records import Finish, Requeue, Start
from everfaas_core.model.states import Cause, Status
from everfaas_core.testing.store_scene import A, B, Scene, eventually, ids_of, report

UNKNOWN = TaskId("00000000-0000-8000-8000-000000000000")


class DispatchContract:
    # claim

    def test_tasks_are_claimed_once_in_order(self, scene: Scene) -> None:
        ids = scene.submit(5)
        assert ids_of(scene.claim(2)) == ids[:2]
        assert ids_of(scene.claim(2, B)) == ids[2:4]
        assert ids_of(scene.claim(9)) == ids[4:]
        assert scene.claim(9, B) == []
        assert list(scene.store.statuses(ids)) == ["QUEUED"] * 5  # what clients see changes when they start

    def test_a_claim_says_what_a_dispatcher_has_to_know(self, scene: Scene) -> None:
        function = scene.function("rich", timeout_s=1.5, max_attempts=5, retry_backoff_s=0.25, priority=7)
        (task,) = scene.submit(function=function, payload=b"p", deadline_s=100.0)
        (claimed,) = scene.claim(1)
        assert (claimed.task_id, claimed.function_id, claimed.payload) == (task, function, b"p")
        assert (claimed.attempt, claimed.charged, claimed.priority, claimed.max_attempts) == (0, 0, 7, 5)
        assert (claimed.retry_backoff_s, claimed.timeout_s) == (0.25, 1.5)
        assert claimed.remaining_s is not None
        assert 50 < claimed.remaining_s <= 100
        (plain,) = scene.submit()
        (claimed,) = scene.claim(1)
        assert (claimed.task_id, claimed.timeout_s, claimed.remaining_s, claimed.retry_backoff_s) == (
            plain,
            None,
            None,
            0.0,
        )

    def test_urgent_tasks_come_first_and_the_least_urgent_do_not_starve(self, scene: Scene) -> None:
        low = scene.submit(4, priority=0)
        high = scene.submit(40, priority=9)
        middle = scene.submit(2, priority=5)
        order = ids_of(scene.claim(24))
        assert order[0] == high[0]
        assert [task for task in order if task in low] == low[:3]  # one of each eight picks
        assert [task for task in order if task in high] == high[:21]
        singles = [ids_of(scene.claim(1))[0] for _ in range(8)]
        assert low[3] in singles
        rest = ids_of(scene.claim(100))
        assert set(order + singles + rest) == {*low, *high, *middle}
        assert rest[-1] in {*middle, *high}

    def test_equal_urgency_is_first_come_first_served(self, scene: Scene) -> None:
        ids = [scene.submit(priority=n)[0] for n in (3, 3, 8, 3, 8)]
        assert ids_of(scene.claim(5)) == [ids[2], ids[4], ids[0], ids[1], ids[3]]

    def test_a_delayed_task_waits(self, scene: Scene) -> None:
        (task,) = scene.submit(delay_s=1.0)
        reply = scene.turn(claim=1)
        assert reply.claimed == ()
        assert reply.next_due_s is not None
        assert 0 < reply.next_due_s <= 1.0
        assert scene.turn(sweep=True).next_due_s is not None
        assert ids_of(eventually(lambda: scene.claim(1))) == [task]
        assert scene.turn(claim=1).next_due_s is None
        assert scene.turn(sweep=True).next_due_s is None

    def test_a_sweep_promotes_what_is_due(self, scene: Scene) -> None:
        (late,) = scene.submit(delay_s=0.05)
        time.sleep(0.1)
        scene.turn(B, sweep=True)
        (later,) = scene.submit()
        assert ids_of(scene.claim(2)) == [late, later]

    # start

    def test_a_start_makes_a_task_running(self, scene: Scene) -> None:
        (task,) = scene.submit()
        (claimed,) = scene.claim(1)
        assert scene.start(task, claimed.attempt + 1)
        record = scene.record(task)
        assert record.status is Status.RUNNING
        (attempt,) = record.attempts
        assert (attempt.attempt, attempt.worker, attempt.ended_ms, attempt.cause) == (1, "worker-1", None, None)
        assert record.submitted_ms <= attempt.leased_ms <= attempt.started_ms

    def test_a_repeated_start_is_true_and_changes_nothing(self, scene: Scene) -> None:
        task = scene.running()
        before = scene.record(task)
        assert scene.start(task) is True
        assert scene.record(task) == before

    def test_a_start_is_refused_unless_the_task_is_ours_and_next(self, scene: Scene) -> None:
        (task,) = scene.submit()
        assert scene.start(task) is False  # claimed by nobody
        scene.claim(1, B)
        assert scene.start(task) is False  # claimed by another
        assert scene.start(task, 2, B) is False  # not its next attempt
        assert scene.start(UNKNOWN) is False
        assert scene.status(task) == Status.QUEUED
        assert scene.start(task, 1, B) is True
        assert scene.start(task, 1, B, WorkerId("worker-2")) is False  # runs elsewhere
        assert scene.start(task, 2, B) is False
        scene.finish(task, dispatcher=B)
        assert scene.start(task, 1, B) is False
        assert scene.status(task) == Status.COMPLETED

    # finish

    def test_a_finish_writes_the_record(self, scene: Scene) -> None:
        task = scene.running()
        assert scene.finish(task, cause=Cause.RAISED, result=b"boom", error="Traceback …", run_s=0.5)
        record = scene.record(task)
        assert (record.status, record.cause, record.error) == (Status.FAILED, Cause.RAISED, "Traceback …")
        (attempt,) = record.attempts
        assert (attempt.cause, attempt.run_s) == (Cause.RAISED, 0.5)
        assert attempt.ended_ms == record.ended_ms
        assert scene.result(task) == b"boom"

    def test_a_terminal_record_never_changes(self, scene: Scene) -> None:
        task = scene.running()
        assert scene.finish(task, result=b"first")
        before = scene.record(task)
        assert scene.finish(task, result=b"first") is True  # the same again
        assert scene.finish(task, cause=Cause.RAISED, result=b"second") is False
        assert scene.finish(task, 2, result=b"third") is False
        scene.requeue(task)
        scene.store.cancel([task])
        scene.turn(sweep=True)
        assert scene.record(task) == before
        assert scene.result(task) == b"first"

    def test_a_stale_attempt_writes_nothing(self, scene: Scene) -> None:
        task = scene.running()
        scene.requeue(task)
        assert scene.finish(task, 1, result=b"late") is False  # it has been given up
        assert ids_of(scene.claim(1, B)) == [task]
        assert scene.finish(task, 1, result=b"late") is False
        assert scene.start(task, 2, B)
        assert scene.finish(task, 1, result=b"late") is False
        assert scene.finish(task, 3, result=b"early") is False
        assert scene.finish(UNKNOWN, 1) is False
        assert scene.status(task) == Status.RUNNING
        assert scene.finish(task, 2, dispatcher=B, result=b"right")
        assert scene.result(task) == b"right"
        assert [a.cause for a in scene.record(task).attempts] == [Cause.WORKER_LOST, Cause.OK]

    def test_a_task_that_never_started_ends_with_attempt_zero(self, scene: Scene) -> None:
        (task,) = scene.submit()
        assert scene.finish(task, 0, Cause.DEADLINE) is False  # not ours
        scene.claim(1)
        assert scene.finish(task, 0, Cause.DEADLINE, B) is False
        assert scene.finish(task, 0, Cause.DEADLINE) is True
        assert scene.finish(task, 0, Cause.DEADLINE) is True
        assert scene.status(task) == Status.FAILED
        assert scene.record(task).attempts == ()

    def test_a_batch_of_finishes_is_answered_in_order(self, scene: Scene) -> None:
        ids = scene.submit(300)
        scene.claim(300)
        starts = tuple(Start(task_id=task, attempt=1, worker=WorkerId("w")) for task in ids)
        assert scene.turn(starts=starts).started == (True,) * 300
        finishes = tuple(
            Finish(task_id=task, attempt=1 + n % 2, status=Status.COMPLETED, cause=Cause.OK, result=b"%d" % n)
            for n, task in enumerate(ids)
        )
        assert scene.turn(finishes=finishes).finished == (True, False) * 150
        assert [scene.result(task) for task in ids[:4]] == [b"0", b"", b"2", b""]

    # requeue

    def test_what_is_given_back_comes_next_and_costs_nothing(self, scene: Scene) -> None:
        ids = scene.submit(4)
        scene.claim(3)
        back = tuple(
            Requeue(task_id=task, attempt=0, cause=Cause.GIVEN_BACK, charged=False) for task in (ids[1], ids[2])
        )
        scene.turn(requeues=back)
        claimed = scene.claim(9, B)
        assert ids_of(claimed) == [ids[1], ids[2], ids[3]]
        assert [(task.attempt, task.charged) for task in claimed] == [(0, 0)] * 3

    def test_a_lost_attempt_is_charged_once(self, scene: Scene) -> None:
        task = scene.running()
        for _ in range(3):
            scene.requeue(task, error="worker-1 was silent")
        assert scene.status(task) == Status.RUNNING  # a status never goes backwards
        (claimed,) = scene.claim(1)
        assert (claimed.attempt, claimed.charged) == (1, 1)
        scene.requeue(task, 1)  # the same again, though it was claimed in between: no attempt has ended since
        (claimed,) = scene.claim(1)
        assert (claimed.attempt, claimed.charged) == (1, 1)
        assert scene.start(task, 2)
        assert [a.cause for a in scene.record(task).attempts] == [Cause.WORKER_LOST, None]
        scene.requeue(task, 2, cause=Cause.GIVEN_BACK, charged=False)
        (claimed,) = scene.claim(1)
        assert (claimed.attempt, claimed.charged) == (2, 1)

    def test_only_the_holder_gives_back_and_only_the_current_attempt(self, scene: Scene) -> None:
        task = scene.running()
        scene.requeue(task, 1, B)
        scene.requeue(task, 0)
        scene.requeue(task, 2)
        scene.requeue(UNKNOWN)
        assert scene.claim(1, B) == []
        assert scene.finish(task)

    def test_a_retry_can_wait(self, scene: Scene) -> None:
        task = scene.running()
        scene.requeue(task, delay_s=1.0)
        assert scene.claim(1) == []
        assert scene.status(task) == Status.RUNNING
        (claimed,) = eventually(lambda: scene.claim(1))
        assert (claimed.task_id, claimed.attempt, claimed.charged) == (task, 1, 1)

    # deadlines

    def test_a_deadline_ends_what_waits(self, scene: Scene) -> None:
        (queued,) = scene.submit(deadline_s=0.05)
        (delayed,) = scene.submit(deadline_s=0.05, delay_s=30.0)
        (patient,) = scene.submit(deadline_s=60.0)
        time.sleep(0.1)
        scene.turn(B, sweep=True)
        assert list(scene.store.statuses([queued, delayed, patient])) == ["FAILED", "FAILED", "QUEUED"]
        record = scene.record(queued)
        assert record.cause is Cause.DEADLINE
        error = pickle.loads(scene.result(queued))  # noqa: S301 - the store made it
        assert str(error).startswith("WorkerFailure: exceeded deadline")
        assert scene.store.health().queued == 1
        assert ids_of(scene.claim(9)) == [patient]

    def test_a_claim_passes_over_what_is_too_late(self, scene: Scene) -> None:
        (late,) = scene.submit(deadline_s=0.03)
        (task,) = scene.submit()
        time.sleep(0.08)
        assert ids_of(scene.claim(9)) == [task]
        assert scene.status(late) == Status.FAILED

    def test_a_start_is_refused_after_the_deadline(self, scene: Scene) -> None:
        (task,) = scene.submit(deadline_s=1.5)
        (claimed,) = scene.claim(1)
        assert claimed.remaining_s is not None
        scene.turn(sweep=True)
        time.sleep(1.6)
        scene.turn(sweep=True)
        assert scene.status(task) == Status.QUEUED  # its holder knows
        assert scene.start(task) is False
        assert scene.status(task) == Status.FAILED
        assert scene.finish(task, 0, Cause.DEADLINE) is True  # it is what it would have said

    def test_a_deadline_holds_between_attempts(self, scene: Scene) -> None:
        task = scene.running(deadline_s=1.5)
        scene.requeue(task)
        time.sleep(1.6)
        scene.turn(B, sweep=True)
        assert scene.status(task) == Status.FAILED
        assert scene.claim(1) == []

    # turns

    def test_an_empty_turn_asks_nothing(self, scene: Scene) -> None:
        reply = scene.turn()
        assert (reply.finished, reply.started, reply.claimed, reply.cancels, reply.evicted) == ((), (), (), (), False)

    def test_a_turn_brings_functions(self, scene: Scene) -> None:
        f, g = scene.function("f"), scene.function("g")
        found = scene.turn(functions=(g, FunctionId("no"), f)).functions
        assert [record and record.name for record in found] == ["g", None, "f"]

    def test_a_turn_is_applied_in_its_order(self, scene: Scene) -> None:
        ids = scene.submit(3)
        scene.claim(3)
        starts = tuple(Start(task_id=task, attempt=1, worker=WorkerId("w")) for task in ids[:2])
        scene.turn(starts=starts)
        reply = scene.turn(
            finishes=(Finish(task_id=ids[0], attempt=1, status=Status.COMPLETED, cause=Cause.OK, result=b""),),
            requeues=(
                Requeue(task_id=ids[0], attempt=1, cause=Cause.WORKER_LOST, charged=True),
                Requeue(task_id=ids[1], attempt=1, cause=Cause.WORKER_LOST, charged=True),
            ),
            starts=(
                Start(task_id=ids[1], attempt=2, worker=WorkerId("w")),
                Start(task_id=ids[2], attempt=1, worker=WorkerId("w")),
            ),
            report=report(A),
            claim=5,
        )
        assert reply.finished == (True,)
        assert reply.started == (False, True)
        assert [(task.task_id, task.attempt, task.charged) for task in reply.claimed] == [(ids[1], 1, 1)]
        assert list(scene.store.statuses(ids)) == ["COMPLETED", "RUNNING", "RUNNING"]

    def test_ghosts_do_not_hide_what_is_behind_them(self, scene: Scene) -> None:
        ghosts = scene.submit(5_000)
        (task,) = scene.submit()
        scene.store.cancel(ghosts)
        assert scene.store.health().queued == 1
        for _ in range(20):
            reply = scene.turn(claim=2)
            if reply.claimed:
                break
            assert reply.next_due_s == 0  # ask again at once
        assert ids_of(list(reply.claimed)) == [task]
        assert scene.store.health().queued == 0
