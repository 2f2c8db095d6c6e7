"""What clients see of a store."""

from __future__ import annotations

import pickle
import time

import pytest

from everfaas_core.model.errors import QueueFull, UnknownFunction
from everfaas_core.model.ids import FunctionId, TaskId, issued_here
from everfaas_core.model.records import (
    DEFAULT_MAX_ATTEMPTS,
    DEFAULT_PRIORITY,
    DEFAULT_RESULT_TTL_S,
    FunctionOptions,
    FunctionRecord,
    TaskFilter,
)
from everfaas_core.model.states import Cause, Status
from everfaas_core.ports import Store
from everfaas_core.testing.store_scene import PLENTY, Scene, eventually, ids_of

UNKNOWN = TaskId("00000000-0000-8000-8000-000000000000")


class ClientContract:
    # functions

    def test_a_function_is_stored_once_and_read_back(self, scene: Scene) -> None:
        options = FunctionOptions(timeout_s=2.5, max_attempts=7, retry_backoff_s=0.5, priority=9, python="3.12")
        record = FunctionRecord(function_id=FunctionId("f-1"), name="fünf\n", payload=b"\x00\xff", options=options)
        before_ms = int(time.time() * 1000)
        assert scene.store.put_function(record) is True
        assert scene.store.put_function(record) is False
        found, unknown = scene.store.functions([FunctionId("f-1"), FunctionId("f-2")])
        assert unknown is None
        assert found is not None
        assert (found.name, found.payload, found.options) == ("fünf\n", b"\x00\xff", options)
        assert abs(found.created_ms - before_ms) < 60_000
        assert scene.store.functions([]) in ([], ())

    def test_functions_are_listed_newest_first_in_pages(self, scene: Scene) -> None:
        ids = []
        for n in range(7):
            ids.append(scene.function(f"f{n}"))
            time.sleep(0.002)  # they are ordered by the millisecond
        found: list[str] = []
        cursor = None
        while True:
            page, cursor = scene.store.list_functions(cursor, 3)
            assert len(page) <= 3
            found += [record.function_id for record in page]
            if cursor is None:
                break
        assert found == ids[::-1]

    # submit

    def test_a_task_inherits_from_its_function_and_then_from_the_defaults(self, scene: Scene) -> None:
        (plain,) = scene.submit(function=scene.function("plain"))
        options = {"timeout_s": 1.5, "max_attempts": 5, "priority": 7, "result_ttl_s": 60.0}
        (inherits,) = scene.submit(function=scene.function("rich", **options))
        (says,) = scene.submit(function=scene.function("rich", **options), timeout_s=9.0, max_attempts=1, priority=0)
        record = scene.record(plain)
        assert record.status is Status.QUEUED
        assert (record.priority, record.max_attempts) == (DEFAULT_PRIORITY, DEFAULT_MAX_ATTEMPTS)
        assert (record.timeout_s, record.deadline_ms, record.not_before_ms) == (None, None, None)
        assert record.function_name == "plain"
        assert record.payload_size_bytes == len(b"\x00\xffargs\r\n")
        record = scene.record(inherits)
        assert (record.priority, record.max_attempts, record.timeout_s) == (7, 5, 1.5)
        record = scene.record(says)
        assert (record.priority, record.max_attempts, record.timeout_s) == (0, 1, 9.0)

    def test_what_a_task_says_is_kept(self, scene: Scene) -> None:
        tags = ("a b", "ü" * 40, "t" * 300)
        (task,) = scene.submit(delay_s=50.0, deadline_s=100.0, group="grüppe 1", tags=tags, timeout_s=0.25)
        record = scene.record(task)
        assert (record.group, record.tags, record.timeout_s) == ("grüppe 1", tags, 0.25)
        assert record.not_before_ms == record.submitted_ms + 50_000
        assert record.deadline_ms == record.submitted_ms + 100_000
        assert record.attempts == ()
        assert record.cancel_requested is False

    def test_a_batch_is_stored_whole_or_not_at_all(self, scene: Scene) -> None:
        specs = [scene.spec(), scene.spec(FunctionId("f-unknown")), scene.spec()]
        with pytest.raises(UnknownFunction, match="f-unknown"):
            scene.store.submit(specs, PLENTY)
        assert list(scene.store.statuses([spec.task_id for spec in specs])) == [None, None, None]
        assert scene.claim(10) == []
        assert list(scene.store.submit([], PLENTY)) == []

    def test_the_queue_has_a_limit(self, scene: Scene) -> None:
        first = [scene.spec(), scene.spec(), scene.spec(delay_s=60.0)]
        assert scene.store.submit(first, 4)
        with pytest.raises(QueueFull):
            scene.store.submit([scene.spec(), scene.spec()], 4)
        assert scene.store.health().queued == 3
        assert scene.store.submit(first, 1) == [spec.task_id for spec in first]  # nothing new: never too much
        (last,) = scene.store.submit([scene.spec()], 4)
        with pytest.raises(QueueFull):
            scene.store.submit([scene.spec()], 4)
        scene.store.cancel([last])
        assert scene.store.health().queued == 3
        assert scene.store.submit([scene.spec()], 4)

    def test_how_many_have_ended_is_counted(self, scene: Scene) -> None:
        before = scene.store.health().ended
        task = scene.running()
        waiting = scene.submit(2)
        assert scene.store.health().ended == before
        scene.finish(task)
        scene.finish(task)  # stale: it has ended
        assert scene.store.health().ended == before + 1
        scene.store.cancel(waiting)
        scene.store.cancel(waiting)
        assert scene.store.health().ended == before + 3

    def test_submitting_again_changes_nothing(self, scene: Scene) -> None:
        spec = scene.spec(payload=b"first")
        assert scene.store.submit([spec, spec], PLENTY) == [spec.task_id, spec.task_id]
        again = scene.spec(task_id=spec.task_id, payload=b"second", priority=9)
        assert scene.store.submit([again], PLENTY) == [spec.task_id]
        (claimed,) = scene.claim(10)
        assert (claimed.task_id, claimed.payload, claimed.priority) == (spec.task_id, b"first", DEFAULT_PRIORITY)
        scene.start(spec.task_id)
        scene.finish(spec.task_id)
        scene.store.submit([spec], PLENTY)
        assert scene.status(spec.task_id) == Status.COMPLETED
        assert scene.claim(10) == []

    def test_an_idempotency_key_answers_with_its_first_task(self, scene: Scene) -> None:
        one, two, three = (scene.spec(idempotency_key="schlüssel") for _ in range(3))
        assert scene.store.submit([one, two], PLENTY) == [one.task_id, one.task_id]
        other = scene.spec()
        assert scene.store.submit([other, three], PLENTY) == [other.task_id, one.task_id]
        assert list(scene.store.statuses([two.task_id, three.task_id])) == [None, None]
        assert ids_of(scene.claim(10)) == [one.task_id, other.task_id]

    def test_an_idempotency_key_ends_with_the_record(self, scene: Scene) -> None:
        (first,) = scene.submit(idempotency_key="k", result_ttl_s=0.05)
        scene.store.cancel([first])
        eventually(lambda: scene.status(first) is None)
        (second,) = scene.submit(idempotency_key="k")
        assert second != first
        scene.turn(sweep=True)  # deletes the first record, and must leave the key to the second
        assert scene.submit(idempotency_key="k") == [second]

    def test_ten_thousand_tasks_in_one_batch(self, scene: Scene) -> None:
        ids = scene.submit(10_000)
        found: list[TaskId] = []
        while batch := scene.claim(3_000):
            found += ids_of(batch)
        assert found == ids

    # reading

    def test_results_are_empty_until_the_end_and_then_stay(self, scene: Scene) -> None:
        task = scene.running()
        assert scene.result(task) == b""
        assert scene.finish(task, result=b"\x00value", run_s=0.125)
        for _ in range(2):
            found, unknown = scene.store.results([task, UNKNOWN])
            assert unknown is None
            assert found is not None
            assert (found.task_id, found.status, found.result) == (task, Status.COMPLETED, b"\x00value")
        assert list(scene.store.statuses([UNKNOWN, task])) == [None, "COMPLETED"]
        assert list(scene.store.tasks([UNKNOWN])) == [None]
        record = scene.record(task)
        assert record.result_size_bytes == 6
        assert record.ended_ms is not None
        assert record.expires_ms == record.ended_ms + int(DEFAULT_RESULT_TTL_S * 1000)

    def test_a_large_payload_travels_unchanged(self, scene: Scene) -> None:
        payload = bytes(range(256)) * 4096
        (task,) = scene.submit(payload=payload)
        (claimed,) = scene.claim(1)
        assert claimed.payload == payload
        scene.start(task)
        assert scene.finish(task, result=payload[::-1])
        assert scene.result(task) == payload[::-1]

    def test_a_record_is_kept_for_its_time(self, scene: Scene, other: Store) -> None:
        (task,) = scene.submit(result_ttl_s=0.1, group="g")
        scene.claim(1)
        scene.start(task)
        scene.finish(task)
        assert scene.result(task) == b"result"
        eventually(lambda: scene.status(task) is None)
        assert list(scene.store.results([task])) == [None]
        assert list(scene.store.tasks([task])) == [None]
        assert list(scene.store.cancel([task])) == [None]
        assert scene.store.list_tasks(TaskFilter(group="g"), None, 10).tasks == ()
        scene.turn(sweep=True)
        assert scene.store.list_tasks(TaskFilter(), None, 10).tasks == ()
        assert issued_here(task, other.secret())
        assert not issued_here(UNKNOWN, other.secret())

    def test_finishing_keeps_pace_with_expiry(self, scene: Scene) -> None:
        ids = scene.submit(50, result_ttl_s=0.0)
        scene.store.cancel(ids)
        live = scene.running()
        scene.finish(live)
        scene.turn(sweep=True)
        assert list(scene.store.tasks(ids)) == [None] * 50
        assert len(scene.store.list_tasks(TaskFilter(), None, 100).tasks) == 1

    def test_tasks_are_listed_newest_first_in_pages(self, scene: Scene) -> None:
        ids = scene.submit(25)
        assert self._walk(scene, TaskFilter(), 10) == ids[::-1]
        assert self._walk(scene, TaskFilter(), 25) == ids[::-1]

    def test_tasks_are_filtered(self, scene: Scene) -> None:
        f, g = scene.function("f"), scene.function("g")
        plain = scene.submit(12, f)
        grouped = scene.submit(5, f, group="x", tags=("red",))
        tagged = scene.submit(5, g, group="y", tags=("blue", "red"))
        scene.store.cancel(plain[:3])
        assert self._walk(scene, TaskFilter(group="x"), 2) == grouped[::-1]
        assert self._walk(scene, TaskFilter(tag="red"), 3) == [*tagged[::-1], *grouped[::-1]]
        assert self._walk(scene, TaskFilter(function_id=g), 3) == tagged[::-1]
        assert self._walk(scene, TaskFilter(status=Status.CANCELLED), 2) == plain[:3][::-1]
        assert (
            self._walk(scene, TaskFilter(group="y", tag="blue", function_id=g, status=Status.QUEUED), 9)
            == (tagged[::-1])
        )
        assert self._walk(scene, TaskFilter(group="z"), 9) == []

    @staticmethod
    def _walk(scene: Scene, where: TaskFilter, limit: int) -> list[TaskId]:
        found: list[TaskId] = []
        cursor = None
        for _ in range(1000):
            page = scene.store.list_tasks(where, cursor, limit)
            assert len(page.tasks) <= limit
            found += [record.task_id for record in page.tasks]
            cursor = page.cursor
            if cursor is None:
                return found
        raise AssertionError("the pages have no end")

    def test_clients_share_the_data(self, scene: Scene, other: Store) -> None:
        (task,) = scene.submit()
        assert list(other.statuses([task])) == ["QUEUED"]
        assert other.secret() == scene.secret
        assert len(scene.secret) == 16

    # cancel

    def test_what_waits_is_cancelled_at_once(self, scene: Scene) -> None:
        queued, held = scene.submit(1)[0], scene.submit(1, delay_s=60.0, deadline_s=90.0)[0]
        assert list(scene.store.cancel([queued, UNKNOWN, held])) == ["CANCELLED", None, "CANCELLED"]
        assert list(scene.store.cancel([queued, held])) == ["CANCELLED", "CANCELLED"]
        assert scene.claim(10) == []
        assert scene.store.health().queued == 0
        record = scene.record(queued)
        assert (record.cause, record.cancel_requested, record.attempts) == (Cause.CANCELLED, True, ())
        error = pickle.loads(scene.result(queued))  # noqa: S301 - the store made it
        assert str(error).startswith("WorkerFailure")
        assert "cancelled" in str(error)

    def test_what_is_claimed_and_has_not_started_is_cancelled_at_once(self, scene: Scene) -> None:
        (task,) = scene.submit()
        scene.claim(1)
        assert list(scene.store.cancel([task])) == ["CANCELLED"]
        assert scene.start(task) is False
        scene.requeue(task, 0, cause=Cause.GIVEN_BACK, charged=False)
        assert scene.finish(task, 0, Cause.DEADLINE) is False
        assert scene.claim(1) == []
        assert scene.status(task) == Status.CANCELLED

    def test_a_running_task_is_marked(self, scene: Scene) -> None:
        task = scene.running()
        assert list(scene.store.cancel([task])) == ["RUNNING"]
        assert list(scene.store.cancel([task])) == ["RUNNING"]
        assert scene.record(task).cancel_requested
        assert scene.turn(claim=1).cancels == (task,)
        assert scene.turn(sweep=True).cancels == (task,)
        assert scene.start(task) is True  # repeated: it was applied before the cancel
        assert scene.finish(task, cause=Cause.CANCELLED)
        assert scene.status(task) == Status.CANCELLED
        assert scene.turn(claim=1).cancels == ()

    def test_an_outcome_that_came_first_stands(self, scene: Scene) -> None:
        task = scene.running()
        scene.store.cancel([task])
        assert scene.finish(task, cause=Cause.OK, result=b"done")
        assert list(scene.store.cancel([task])) == ["COMPLETED"]
        assert scene.result(task) == b"done"
        assert scene.turn(claim=1).cancels == ()

    def test_what_runs_can_be_left_alone(self, scene: Scene) -> None:
        running, queued = scene.running(), scene.submit()[0]
        assert list(scene.store.cancel([running, queued], running=False)) == ["RUNNING", "CANCELLED"]
        assert not scene.record(running).cancel_requested
        assert scene.turn(claim=1).cancels == ()

    def test_a_cancelled_task_is_not_run_again(self, scene: Scene) -> None:
        task = scene.running()
        scene.store.cancel([task])
        scene.requeue(task)
        assert scene.status(task) == Status.CANCELLED
        assert scene.record(task).attempts[0].cause is Cause.WORKER_LOST
        assert scene.turn(claim=1) == scene.turn(claim=1)
        assert scene.turn(claim=1).claimed == ()

    def test_a_task_between_two_attempts_is_cancelled_at_once(self, scene: Scene) -> None:
        task = scene.running()
        scene.requeue(task)
        assert scene.status(task) == Status.RUNNING
        assert list(scene.store.cancel([task])) == ["CANCELLED"]
        assert scene.claim(1) == []
