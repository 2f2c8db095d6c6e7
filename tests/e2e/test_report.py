"""Every test of the report on the system that this project re-creates (mission/testing-report.txt), in all modes."""

from __future__ import annotations

import random
import time
import uuid

import pytest
import requests

from . import functions
from .classic import Classic, deserialize, serialize


class TestStarterSuite:
    def test_an_undecodable_payload_is_refused(self, client: Classic) -> None:
        body = {"name": "hello", "payload": "invalid_payload"}
        assert requests.post(client.url + "register_function", json=body, timeout=10).status_code == 400

    def test_a_function_is_registered(self, client: Classic) -> None:
        assert uuid.UUID(client.register(functions.double))

    def test_a_call_is_accepted_and_has_a_status(self, client: Classic) -> None:
        task_id = client.execute_payload(client.register(functions.double), serialize(((2,), {})))
        assert uuid.UUID(task_id)
        assert client.status(task_id) in ("QUEUED", "RUNNING", "COMPLETED")

    @pytest.mark.parametrize("attempt", range(3))
    def test_a_round_trip_brings_the_right_value(self, client: Classic, attempt: int) -> None:
        number = random.randint(0, 10_000)
        assert client.call(functions.double, number) == ("COMPLETED", number * 2)


class TestLifecycle:
    def test_all_statuses_are_seen_in_order(self, client: Classic) -> None:
        """A poll every 100 ms of a one-second task sees QUEUED or RUNNING, then RUNNING, then COMPLETED."""
        task_id = client.execute(client.register(functions.sleep_task), 1)
        seen = []
        until = time.monotonic() + 10
        while time.monotonic() < until and "COMPLETED" not in seen:
            seen.append(client.status(task_id))
            time.sleep(0.1)
        assert seen[0] in ("QUEUED", "RUNNING")
        assert "RUNNING" in seen
        assert seen[-1] == "COMPLETED"
        order = ["QUEUED", "RUNNING", "COMPLETED"]
        assert seen == sorted(seen, key=order.index)

    def test_a_task_behind_others_is_queued(self, client: Classic) -> None:
        function = client.register(functions.sleep_task)
        ids = [client.execute(function, 0.5) for _ in range(12)]
        assert client.status(ids[-1]) == "QUEUED"
        assert [client.wait(one)["status"] for one in ids] == ["COMPLETED"] * 12

    def test_results_persist(self, client: Classic) -> None:
        task_id = client.execute(client.register(functions.double), 42)
        first = client.wait(task_id)
        assert client.wait(task_id) == first
        assert deserialize(first["result"]) == 84


class TestRobustness:
    @pytest.mark.parametrize(
        "unknown", ["00000000-0000-0000-0000-000000000000", "11111111-2222-4333-8444-555555555555"]
    )
    def test_an_unknown_function_is_not_found(self, client: Classic, unknown: str) -> None:
        body = {"function_id": unknown, "payload": serialize(((1,), {}))}
        assert requests.post(client.url + "execute_function", json=body, timeout=10).status_code == 404

    @pytest.mark.parametrize("call", ["status", "result"])
    def test_an_unknown_task_is_not_found(self, client: Classic, call: str) -> None:
        assert requests.get(client.url + f"{call}/{uuid.uuid4()}", timeout=10).status_code == 404

    def test_ten_concurrent_tasks_do_not_mix(self, client: Classic) -> None:
        function = client.register(functions.double)
        numbers = [random.randint(0, 1000) for _ in range(10)]
        ids = [client.execute(function, number) for number in numbers]
        assert [deserialize(client.wait(one)["result"]) for one in ids] == [number * 2 for number in numbers]

    @pytest.mark.parametrize("size", [10_000, 100_000])
    def test_long_lists_come_back_unchanged(self, client: Classic, size: int) -> None:
        data = list(range(size))
        assert client.call(functions.identity, data) == ("COMPLETED", data)


class TestFailures:
    def test_an_exception_is_delivered_as_itself(self, client: Classic) -> None:
        status, error = client.call(functions.failing_task)
        assert status == "FAILED"
        assert type(error) is ValueError
        assert error.args == ("This task is designed to fail",)
        assert "failing_task" in "".join(error.__notes__), "the remote traceback is a note of the exception"

    def test_five_exceptions_fail_independently(self, client: Classic) -> None:
        function = client.register(functions.failing_task)
        ids = [client.execute(function) for _ in range(5)]
        for one in ids:
            body = client.wait(one)
            assert body["status"] == "FAILED"
            assert isinstance(deserialize(body["result"]), ValueError)

    def test_failing_tasks_do_not_disturb_others(self, client: Classic) -> None:
        ids = [
            client.execute(client.register(functions.double), 5),
            client.execute(client.register(functions.failing_task)),
            client.execute(client.register(functions.add), 3, 7),
        ]
        bodies = [client.wait(one) for one in ids]
        assert [body["status"] for body in bodies] == ["COMPLETED", "FAILED", "COMPLETED"]
        assert deserialize(bodies[0]["result"]) == deserialize(bodies[2]["result"]) == 10

    def test_a_deadline_fails_the_task_for_good(self, deadline_client: Classic) -> None:
        client = deadline_client
        task_id = client.execute(client.register(functions.sleep_task), 5)
        body = client.wait(task_id, timeout_s=20)
        assert body["status"] == "FAILED"
        failure = deserialize(body["result"])
        assert str(failure).startswith("WorkerFailure")
        assert "exceeded deadline" in str(failure)
        time.sleep(4)  # past the time at which the function would have returned
        assert client.wait(task_id) == body, "no late result replaces the failure"
        assert client.call(functions.double, 4) == ("COMPLETED", 8)

    def test_what_ends_within_the_deadline_is_not_touched(self, deadline_client: Classic) -> None:
        assert deadline_client.call(functions.sleep_task, 0.5) == ("COMPLETED", 0.5)


class TestPerformance:
    """The report's scenarios. The bounds are loose on purpose: `bench/` measures, tests only catch collapse."""

    def test_no_ops_in_sequence(self, client: Classic) -> None:
        function = client.register(functions.no_op)
        started = time.monotonic()
        for _ in range(10):
            assert client.wait(client.execute(function))["status"] == "COMPLETED"
        assert time.monotonic() - started < 10 * 5.0

    def test_twenty_sleeps_run_side_by_side(self, client: Classic) -> None:
        function = client.register(functions.sleep_task)
        started = time.monotonic()
        ids = [client.execute(function, 0.5) for _ in range(20)]
        assert [client.wait(one)["status"] for one in ids] == ["COMPLETED"] * 20
        assert time.monotonic() - started < 9.5, "4 slots were slower than one would have been"

    @pytest.mark.parametrize("count", [1, 5, 10])
    def test_batches_of_cpu_work(self, client: Classic, count: int) -> None:
        function = client.register(functions.cpu_task)
        ids = [client.execute(function, 100_000) for _ in range(count)]
        expected = functions.cpu_task(100_000)
        assert [deserialize(client.wait(one)["result"]) for one in ids] == [expected] * count
