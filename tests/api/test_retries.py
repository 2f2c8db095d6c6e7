"""Running a call once more, finding what needs it, asking a worker to leave, and submitting exactly once."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
import requests

from everfaas_core.api import ApiSettings
from everfaas_core.model.states import RETRIED, Cause, Status
from everfaas_core.ports import Store
from everfaas_core.testing.faults import Fault, FaultyStore
from tests.api.driving import (
    CALL,
    UNKNOWN_ID,
    WORKER,
    Served,
    TinyDispatcher,
    assert_error,
    assert_fits,
    encode,
    issued_id,
)

FAILED = {"status": Status.FAILED, "cause": Cause.RAISED, "error": "boom"}


def test_a_failed_task_is_run_once_more_as_a_new_one(api: Served, dispatcher: TinyDispatcher) -> None:
    body = {"function_id": api.register(), "payload": CALL, "group": "g", "priority": 9, "idempotency_key": "k"}
    old = api.post("/v1/tasks", body).json()["task_id"]
    dispatcher.run(**FAILED)
    before = api.get(f"/v1/tasks/{old}").json()
    assert before["retry_of"] is None
    answer = api.post(f"/v1/tasks/{old}/retry", {})
    assert answer.status_code == 201
    assert_fits("TaskRetried", answer.json())
    new = answer.json()["task_id"]
    assert new != old
    assert answer.json()["retry_of"] == old
    record = api.get(f"/v1/tasks/{new}").json()
    assert_fits("TaskAnswer", record)
    assert (record["status"], record["retry_of"], record["group"], record["priority"]) == ("QUEUED", old, "g", 9)
    assert dispatcher.run() == [new]
    assert api.get(f"/result/{new}").json()["status"] == "COMPLETED"
    assert api.get(f"/v1/tasks/{old}").json() == before


def test_what_can_not_be_retried(api: Served, dispatcher: TinyDispatcher, store: Store) -> None:
    function_id = api.register()
    task_id = api.execute(function_id)
    error = assert_error(api.post(f"/v1/tasks/{task_id}/retry", {}), 409, "not_retryable")
    assert "QUEUED" in error["message"]
    dispatcher.run()
    error = assert_error(api.post(f"/v1/tasks/{task_id.upper()}/retry", {}), 409, "not_retryable")
    assert "COMPLETED" in error["message"]
    assert_error(api.post(f"/v1/tasks/{UNKNOWN_ID}/retry", {}), 404, "unknown_task")
    assert_error(api.post("/v1/tasks/x/retry", {}), 404, "unknown_task")
    assert_error(api.post(f"/v1/tasks/{issued_id(store)}/retry", {}), 410, "task_expired")
    assert_error(api.post(f"/v1/tasks/{task_id}/retry", {"x": 1}), 422, "invalid_request")
    assert_error(api.post(f"/v1/tasks/{task_id}/retry"), 415, "unsupported_media_type")
    assert store.health().queued == 0


def test_retry_options_reach_the_dispatcher(api: Served, dispatcher: TinyDispatcher) -> None:
    function = {"name": "f", "payload": encode(print), "retry_on": ["Busy"], "retry_backoff_s": 0.5}
    task = {"function_id": api.post("/v1/functions", function).json()["function_id"], "payload": CALL}
    api.post("/v1/tasks", task)
    api.post("/v1/tasks", {**task, "retry_on": ["OSError", "a.B"], "retry_backoff_s": 3})
    api.post("/v1/tasks:batch", {"tasks": [{**task, "retry_on": []}]})
    found = [(claimed.retry_on, claimed.retry_backoff_s) for claimed in dispatcher.claim(9)]
    assert found == [(("Busy",), 0.5), (("OSError", "a.B"), 3.0), ((), 0.5)]


def test_dead_letters_are_listed(api: Served, dispatcher: TinyDispatcher) -> None:
    function_id = api.register()
    dead: list[str] = []
    for round_number in range(4):
        for cause in sorted(RETRIED):
            task_id = api.execute(function_id)
            dispatcher.run(status=Status.FAILED, cause=cause)
            dead.append(task_id)
        for _ in range(9 * round_number):
            api.execute(function_id)
        if round_number:
            dispatcher.run(9 * round_number, **FAILED)
    api.execute(function_id)
    dispatcher.run()

    def walk(query: str) -> list[str]:
        seen: list[str] = []
        cursor = ""
        while cursor is not None:
            page = api.get(f"/v1/tasks?limit=5{query}{cursor and '&cursor=' + cursor}").json()
            assert_fits("TaskList", page)
            assert len(page["tasks"]) <= 5
            seen += [task["task_id"] for task in page["tasks"]]
            cursor = page["cursor"]
        return seen

    assert sorted(walk("&dead=true")) == sorted(dead)
    assert sorted(walk("&dead=true&cause=worker_lost")) == sorted(dead[sorted(RETRIED).index(Cause.WORKER_LOST) :: 3])
    assert walk("&dead=true&status=COMPLETED") == walk("&dead=true&cause=raised") == []
    assert len(walk("&cause=raised")) == 54
    assert len(walk("&dead=false")) == 12 + 54 + 1
    for wrong in ("dead=1", "dead=", "cause=boom", "cause="):
        assert_error(api.get(f"/v1/tasks?{wrong}"), 422, "invalid_request")


def test_a_page_of_dead_letters_is_bounded_work(api: Served, dispatcher: TinyDispatcher) -> None:
    """One dead letter beneath many failures: pages may be empty, but each leads on, and the last ones find it."""
    function_id = api.register()
    task_id = api.execute(function_id)
    dispatcher.run(status=Status.FAILED, cause=Cause.SLOT_CRASHED)
    api.post("/v1/tasks:batch", {"tasks": [{"function_id": function_id, "payload": CALL}] * 30})
    dispatcher.run(30, **FAILED)
    first = api.get("/v1/tasks?dead=true&limit=1").json()
    assert first["tasks"] == []
    assert first["cursor"]
    pages = 1
    while not first["tasks"]:
        first = api.get(f"/v1/tasks?dead=true&limit=1&cursor={first['cursor']}").json()
        pages += 1
    assert first["tasks"][0]["task_id"] == task_id
    assert pages <= 5


# ── workers ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_worker_is_asked_to_leave(api: Served, dispatcher: TinyDispatcher) -> None:
    assert_error(api.post(f"/v1/workers/{WORKER}/drain", {}), 404, "unknown_worker")
    assert dispatcher.join() == ()
    for _ in range(2):
        answer = api.post(f"/v1/workers/{WORKER}/drain", {})
        assert answer.status_code == 202
        assert_fits("WorkerDraining", answer.json())
        assert answer.json() == {"worker_id": WORKER, "draining": True}
    assert dispatcher.join() == (WORKER,)
    assert dispatcher.join(slots=0) == ()
    assert_error(api.post(f"/v1/workers/{WORKER}/drain", {}), 404, "unknown_worker")


@pytest.mark.parametrize("text", ["x" * 201, "x" * 200, "a%00b", "a%0Ab", "%ff", "%20", "w%C3%BCrker", "%F0%9F%90%9D"])
def test_ids_of_workers_that_nobody_has(api: Served, dispatcher: TinyDispatcher, text: str) -> None:
    dispatcher.join()
    error = assert_error(api.post(f"/v1/workers/{text}/drain", {}), 404, "unknown_worker")
    assert len(error["message"]) < 300
    assert error["message"].isprintable()


# ── exactly one task, whatever the client lost ───────────────────────────────────────────────────────────────────────


@pytest.fixture
def faults() -> list[Fault]:
    """What happens to the next submits; empty: they succeed."""
    return []


@pytest.fixture
def faulty(store: Store, faults: list[Fault]) -> Iterator[Served]:
    def plan(name: str) -> Fault | None:
        return faults.pop(0) if name == "submit" and faults else None

    with Served(FaultyStore(store, plan), ApiSettings(threads=16)) as served:
        yield served


@pytest.mark.parametrize("wait", [{}, {"wait_s": 20}])
def test_a_submit_is_repeated_until_it_is_answered(
    faulty: Served, faults: list[Fault], dispatcher: TinyDispatcher, store: Store, wait: dict[str, int]
) -> None:
    body = {"function_id": faulty.register(), "payload": CALL, "idempotency_key": "k"}
    faults[:] = [Fault.BEFORE, Fault.AFTER, Fault.BEFORE, Fault.AFTER]
    for _ in range(4):
        assert_error(faulty.post("/v1/tasks", body), 503, "store_unavailable")
    (task,) = dispatcher.claim(9)
    dispatcher.start(task)
    dispatcher.finish(task)
    answer = faulty.post("/v1/tasks", body | wait)
    assert answer.status_code == 201
    assert answer.json()["task_id"] == task.task_id
    assert answer.json().get("status") == ("COMPLETED" if wait else None)
    assert store.health().queued == 0


def test_a_batch_is_repeated_until_it_is_answered(faulty: Served, faults: list[Fault], store: Store) -> None:
    function_id = faulty.register()
    tasks = [{"function_id": function_id, "payload": CALL, "idempotency_key": f"k{n}"} for n in range(50)]
    faults[:] = [Fault.AFTER, Fault.AFTER]
    for _ in range(2):
        assert_error(faulty.post("/v1/tasks:batch", {"tasks": tasks}), 503, "store_unavailable")
    first = faulty.post("/v1/tasks:batch", {"tasks": tasks}).json()["task_ids"]
    again = faulty.post("/v1/tasks:batch", {"tasks": tasks[::-1]}).json()["task_ids"]
    assert again == first[::-1]
    assert store.health().queued == 50


def test_clients_that_submit_one_key_at_once_get_one_task(api: Served, store: Store) -> None:
    body = {"function_id": api.register(), "payload": CALL, "idempotency_key": "k"}
    answers: list[tuple[int, str]] = []
    barrier = threading.Barrier(12)

    def submit() -> None:
        barrier.wait()
        answer = requests.post(f"{api.url}/v1/tasks", json=body, timeout=60)
        answers.append((answer.status_code, answer.json()["task_id"]))

    threads = [threading.Thread(target=submit) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(answers) == 12
    assert len(set(answers)) == 1
    assert answers[0][0] == 201
    assert store.health().queued == 1


def test_a_key_that_stands_for_another_call_is_refused(api: Served, store: Store) -> None:
    function_id = api.register()
    body = {"function_id": function_id, "payload": CALL, "idempotency_key": "k"}
    first = api.post("/v1/tasks", body).json()["task_id"]
    assert api.post("/v1/tasks", {**body, "priority": 9, "tags": ["x"]}).json()["task_id"] == first
    one_line = "".join(CALL.split())
    assert api.post("/v1/tasks", {**body, "payload": one_line}).json()["task_id"] == first
    for other in ({"payload": encode(((1,), {}))}, {"function_id": api.register("other")}):
        error = assert_error(api.post("/v1/tasks", body | other), 409, "idempotency_conflict")
        assert first in error["message"]
        assert error["hint"]
        assert_error(api.post("/v1/tasks", body | other | {"wait_s": 5}), 409, "idempotency_conflict")
        fresh = {"function_id": function_id, "payload": CALL}
        assert_error(api.post("/v1/tasks:batch", {"tasks": [fresh, body | other]}), 409, "idempotency_conflict")
    assert store.health().queued == 1
