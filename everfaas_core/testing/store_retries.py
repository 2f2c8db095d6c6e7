"""Trying again: by the system, by a client that asks for it, and by one that does not know whether it has asked."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from everfaas_core.model.errors import IdempotencyConflict
from everfaas_core.model.ids import TaskId
from everfaas_core.model.records import TaskFilter
from everfaas_core.model.states import Cause, Status
from everfaas_core.ports import Store
from everfaas_core.testing.faults import Fault, FaultyStore, persistently
from everfaas_core.testing.store_scene import PLENTY, A, B, Scene, eventually, hear, ids_of
from everfaas_core.testing.store_wakeups import watching

UNKNOWN = TaskId("00000000-0000-8000-8000-000000000000")


class RetryContract:
    # policies

    def test_a_task_overrides_its_functions_retry_policy(self, scene: Scene) -> None:
        picky = scene.function("picky", retry_backoff_s=0.5, retry_on=("ConnectionError", "mod.Büsy"))
        scene.submit(function=picky)
        scene.submit(function=picky, retry_backoff_s=0.0, retry_on=("OSError",))
        scene.submit(function=picky, retry_on=())
        scene.submit(retry_backoff_s=1.5)
        assert [(task.retry_backoff_s, task.retry_on) for task in scene.claim(9)] == [
            (0.5, ("ConnectionError", "mod.Büsy")),
            (0.0, ("OSError",)),
            (0.5, ()),
            (1.5, ()),
        ]

    def test_whoever_adopts_knows_the_policy_too(self, scene: Scene) -> None:
        scene.running(retry_on=("Busy",), retry_backoff_s=2.0)
        scene.lapse(A)
        (adopted,) = scene.turn(B, sweep=True).adopted
        assert (adopted.task.retry_on, adopted.task.retry_backoff_s) == (("Busy",), 2.0)

    def test_any_cause_can_be_tried_again(self, scene: Scene) -> None:
        task = scene.running()
        scene.requeue(task, cause=Cause.RAISED, charged=True, error="Busy()")
        record = scene.record(task)
        assert (record.status, record.cause, record.error) == (Status.RUNNING, None, "Busy()")
        assert record.attempts[0].cause is Cause.RAISED
        assert scene.result(task) == b""
        (claimed,) = scene.claim(1)
        assert (claimed.attempt, claimed.charged) == (1, 1)
        assert scene.start(task, 2)
        assert scene.finish(task, 2, Cause.RAISED, result=b"the last one", error="Busy() again")
        record = scene.record(task)
        assert (record.status, record.cause, record.error) == (Status.FAILED, Cause.RAISED, "Busy() again")

    # a client asks for another run

    def test_a_retry_is_a_task_of_its_own(self, scene: Scene) -> None:
        function = scene.function("rich", timeout_s=1.5, max_attempts=5, priority=7, retry_on=("Busy",))
        options: dict[str, Any] = {
            "group": "g",
            "tags": ("t",),
            "idempotency_key": "k",
            "deadline_s": 60.0,
            "retry_backoff_s": 0.25,
        }
        old = scene.running(function=function, payload=b"\x00call", **options)
        assert scene.finish(old, cause=Cause.RAISED, result=b"first", error="boom")
        before = scene.record(old)
        new = scene.new_id()
        assert scene.store.retry(old, new) == new
        assert scene.store.retry(old, new) == new  # made again after a lost answer
        assert scene.store.health().queued == 1
        record = scene.record(new)
        assert (record.status, record.retry_of, record.attempts) == (Status.QUEUED, old, ())
        assert (record.group, record.tags, record.deadline_ms, record.not_before_ms) == ("g", ("t",), None, None)
        assert (record.priority, record.max_attempts, record.timeout_s, record.function_name) == (7, 5, 1.5, "rich")
        assert (record.cause, record.error, record.ended_ms, record.cancel_requested) == (None, None, None, False)
        (claimed,) = scene.claim(9)
        assert (claimed.task_id, claimed.function_id, claimed.payload) == (new, function, b"\x00call")
        assert (claimed.attempt, claimed.charged, claimed.remaining_s) == (0, 0, None)
        assert (claimed.retry_on, claimed.retry_backoff_s) == (("Busy",), 0.25)
        assert scene.start(new)
        assert scene.finish(new, result=b"second")
        assert scene.store.retry(old, new) == new
        assert scene.record(old) == before
        assert (scene.result(old), scene.result(new)) == (b"first", b"second")
        assert scene.submit(function=function, payload=b"\x00call", idempotency_key="k") == [old]
        found = scene.store.list_tasks(TaskFilter(group="g"), None, 9).tasks
        assert [task.task_id for task in found] == [new, old]

    def test_only_what_failed_or_was_cancelled_is_retried(self, scene: Scene) -> None:
        assert scene.store.retry(UNKNOWN, scene.new_id()) is None
        (gone,) = scene.submit(result_ttl_s=0.05)
        scene.store.cancel([gone])
        eventually(lambda: scene.status(gone) is None)
        assert scene.store.retry(gone, scene.new_id()) is None
        (cancelled,) = scene.submit(delay_s=60.0)
        assert scene.store.retry(cancelled, scene.new_id()) == cancelled  # it waits
        scene.store.cancel([cancelled])
        again = scene.new_id()
        assert scene.store.retry(cancelled, again) == again
        assert ids_of(scene.claim(9)) == [again]  # at once
        assert scene.start(again)
        assert scene.store.retry(again, scene.new_id()) == again  # it runs
        assert scene.finish(again)
        assert scene.store.retry(again, scene.new_id()) == again  # it is done
        assert scene.store.health().queued == 0

    def test_a_retry_rings_and_can_be_retried(self, scene: Scene) -> None:
        (first,) = scene.submit()
        scene.store.cancel([first])
        scene.claim(1)
        second, third = scene.new_id(), scene.new_id()
        with watching(scene.store, "work") as watch:
            assert scene.store.retry(first, second) == second
            assert [notice.bell for notice in hear(watch)] == [True]
        scene.store.cancel([second])
        assert scene.store.retry(second, third) == third
        assert scene.record(third).retry_of == second

    def test_dead_letters_are_found_by_their_cause(self, scene: Scene) -> None:
        ends = [Cause.WORKER_LOST, Cause.RAISED, Cause.SLOT_CRASHED, Cause.WORKER_LOST, Cause.OK]
        ids = scene.submit(len(ends), group="g")
        scene.claim(9)
        for task, cause in zip(ids, ends, strict=True):
            scene.start(task)
            scene.finish(task, cause=cause)
        scene.submit()

        def found(**where: object) -> list[TaskId]:
            page = scene.store.list_tasks(TaskFilter(**where), None, 9)  # type: ignore[arg-type]  # of its fields
            return [task.task_id for task in page.tasks]

        assert found(cause=Cause.WORKER_LOST) == [ids[3], ids[0]]
        assert found(cause=Cause.WORKER_LOST, status=Status.COMPLETED) == []
        assert found(cause=Cause.RAISED, group="g", status=Status.FAILED) == [ids[1]]
        assert found(cause=Cause.DEADLINE) == []

    # a client that does not know whether it has asked

    def test_a_key_stands_for_one_call_only(self, scene: Scene) -> None:
        f, g = scene.function("f"), scene.function("g")
        (first,) = scene.submit(function=f, payload=b"p", idempotency_key="k")
        assert scene.submit(function=f, payload=b"p", idempotency_key="k", priority=9) == [first]
        for function, payload in ((f, b"q"), (g, b"p")):
            other = scene.spec(function)
            wrong = scene.spec(function, payload=payload, idempotency_key="k")
            with pytest.raises(IdempotencyConflict, match="'k'"):
                scene.store.submit([other, wrong], PLENTY)
            assert scene.status(other.task_id) is None  # all or nothing
        twice = [scene.spec(f, payload=payload, idempotency_key="new") for payload in (b"1", b"2")]
        with pytest.raises(IdempotencyConflict):
            scene.store.submit(twice, PLENTY)
        assert scene.store.submit(twice[1:], PLENTY) == [twice[1].task_id]
        assert scene.store.health().queued == 2

    def test_a_key_is_free_for_another_call_once_its_record_is_gone(self, scene: Scene) -> None:
        (first,) = scene.submit(payload=b"p", idempotency_key="k", result_ttl_s=0.05)
        scene.store.cancel([first])
        eventually(lambda: scene.status(first) is None)
        (second,) = scene.submit(payload=b"q", idempotency_key="k")
        assert scene.status(second) == Status.QUEUED

    def test_of_many_that_submit_one_key_at_once_all_get_one_task(self, scene: Scene, other: Store) -> None:
        function = scene.function()
        specs = [scene.spec(function, payload=b"p", idempotency_key="k") for _ in range(16)]
        answers: list[TaskId] = []
        barrier = threading.Barrier(len(specs))

        def submit(number: int) -> None:
            barrier.wait()
            answers.extend((scene.store, other)[number % 2].submit([specs[number]], PLENTY))

        threads = [threading.Thread(target=submit, args=(number,)) for number in range(len(specs))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(answers) == len(specs)
        assert len(set(answers)) == 1
        assert ids_of(scene.claim(99)) == answers[:1]

    def test_a_client_that_lost_the_answer_gets_its_task(self, scene: Scene) -> None:
        faults: list[Fault | None] = [Fault.AFTER, Fault.BEFORE, Fault.AFTER]
        faulty = FaultyStore(scene.store, lambda _: faults.pop() if faults else None)
        function = scene.function()
        tried: list[TaskId] = []

        def submit() -> TaskId:  # as the API does: each try has an id of its own
            spec = scene.spec(function, payload=b"p", idempotency_key="k")
            tried.append(spec.task_id)
            return faulty.submit([spec], PLENTY)[0]

        assert persistently(submit) == tried[0]
        assert ids_of(scene.claim(9)) == tried[:1]
