from __future__ import annotations

import json

import pytest

from everfaas_core.model.states import Cause, Status
from everfaas_core.ports import Store
from tests.api.driving import (
    CALL,
    FUNCTION,
    UNKNOWN_ID,
    Served,
    TinyDispatcher,
    assert_error,
    assert_fits,
    encode,
    issued_id,
)

OPTIONS = {
    "priority": 7,
    "timeout_s": 5.0,
    "deadline_s": 100.0,
    "max_attempts": 2,
    "result_ttl_s": 60.0,
    "group": "g",
    "tags": ["a", "b"],
}


def test_a_task_with_options_and_its_whole_record(api: Served, dispatcher: TinyDispatcher) -> None:
    function_id = api.register()
    submitted = api.post("/v1/tasks", {"function_id": function_id, "payload": CALL, **OPTIONS})
    assert submitted.status_code == 201
    assert_fits("SubmitAnswer", submitted.json())
    assert list(submitted.json()) == ["task_id"]
    task_id = submitted.json()["task_id"]

    queued = api.get(f"/v1/tasks/{task_id}").json()
    assert_fits("TaskAnswer", queued)
    assert queued["status"] == "QUEUED"
    assert {name: queued[name] for name in ("priority", "timeout_s", "max_attempts", "group", "tags")} == {
        name: OPTIONS[name] for name in ("priority", "timeout_s", "max_attempts", "group", "tags")
    }
    assert queued["deadline_ms"] == queued["submitted_ms"] + 100_000
    assert (queued["function_id"], queued["function_name"], queued["attempts"]) == (function_id, "double", [])

    dispatcher.run(status=Status.FAILED, cause=Cause.RAISED, error="Traceback …")
    ended = api.get(f"/v1/tasks/{task_id}").json()
    assert_fits("TaskAnswer", ended)
    assert (ended["status"], ended["cause"], ended["error"]) == ("FAILED", "raised", "Traceback …")
    (attempt,) = ended["attempts"]
    assert (attempt["attempt"], attempt["worker"], attempt["cause"]) == (1, "worker-1", "raised")
    assert attempt["leased_ms"] <= attempt["started_ms"] <= attempt["ended_ms"]
    assert ended["result_size_bytes"] == len(b"result")


@pytest.mark.parametrize(
    ("option", "values"),
    [
        ("priority", [-1, 10, True, "4", 1.0]),
        ("delay_s", [-1, "1", 1e18, None]),
        ("timeout_s", [0, "1"]),
        ("deadline_s", [0, -5]),
        ("max_attempts", [0, 101, 1.5]),
        ("retry_backoff_s", [-1, 86_401, "1", None]),
        ("retry_on", ["Busy", [""], ["x" * 201], [1], ["x"] * 33, None]),
        ("idempotency_key", ["", "x" * 201, "a\tb", 5]),
        ("group", ["", "x" * 201, "a\x00b", None]),
        ("tags", ["a", ["x"] * 33, ["x" * 101], [1], [None], [["a"]], {"a": 1}, [""]]),
        ("unknown", [1]),
        ("payload", [5, None]),
        ("function_id", [5, None, "x"]),
    ],
)
def test_options_are_validated_alone_and_in_a_batch(api: Served, option: str, values: list[object]) -> None:
    good = {"function_id": api.register(), "payload": CALL}
    for value in values:
        error = assert_error(api.post("/v1/tasks", {**good, option: value}), 422, "invalid_request")
        assert list(error["details"]["fields"]) == [option]
        error = assert_error(
            api.post("/v1/tasks:batch", {"tasks": [good, {**good, option: value}]}), 422, "invalid_request"
        )
        assert list(error["details"]["fields"]) == [option]
        assert error["details"]["index"] == 1
    assert api.get("/v1/tasks").json()["tasks"] == []  # all or nothing


def test_a_batch_keeps_its_order(api: Served, dispatcher: TinyDispatcher) -> None:
    function_id = api.register()
    tasks = [{"function_id": function_id, "payload": encode(((i,), {}))} for i in range(300)]
    tasks[7] |= OPTIONS
    answer = api.post("/v1/tasks:batch", {"tasks": tasks})
    assert answer.status_code == 201
    assert_fits("BatchAnswer", answer.json())
    ids = answer.json()["task_ids"]
    assert len(set(ids)) == 300
    assert api.get(f"/v1/tasks/{ids[7]}").json()["tags"] == ["a", "b"]
    payloads = {task.task_id: task.payload for task in dispatcher.claim(300)}
    for task_id, task in zip(ids, tasks, strict=True):
        assert encode_bytes(payloads[task_id]) == task["payload"]


def encode_bytes(payload: bytes) -> str:
    import codecs

    return codecs.encode(payload, "base64").decode()


def test_a_batch_of_ten_thousand_and_not_one_more(api: Served) -> None:
    task = {"function_id": api.register(), "payload": CALL}
    answer = api.post("/v1/tasks:batch", {"tasks": [task] * 10_000})
    assert answer.status_code == 201
    assert len(set(answer.json()["task_ids"])) == 10_000
    for wrong in ([task] * 10_001, [], "x", {"0": task}, None):
        error = assert_error(api.post("/v1/tasks:batch", {"tasks": wrong}), 422, "invalid_request")
        assert list(error["details"]["fields"]) == ["tasks"]
    for item in (None, [], "x", 1):
        error = assert_error(api.post("/v1/tasks:batch", {"tasks": [item]}), 422, "invalid_request")
        assert error["details"]["index"] == 0


def test_an_idempotency_key_stands_for_one_task(api: Served, dispatcher: TinyDispatcher) -> None:
    body = {"function_id": api.register(), "payload": CALL, "idempotency_key": "once"}
    first = api.post("/v1/tasks", body).json()["task_id"]
    assert api.post("/v1/tasks", body).json()["task_id"] == first
    assert api.post("/v1/tasks:batch", {"tasks": [body, body]}).json()["task_ids"] == [first, first]
    assert dispatcher.run() == [first]
    answer = api.post("/v1/tasks", {**body, "wait_s": 10}).json()  # ended before: answers at once
    assert (answer["task_id"], answer["status"]) == (first, "COMPLETED")


def test_lists_tasks_by_each_filter(api: Served, dispatcher: TinyDispatcher) -> None:
    one, two = api.register("one"), api.register("two")
    done = api.execute(one)
    dispatcher.run()
    grouped = api.post("/v1/tasks", {"function_id": two, "payload": CALL, "group": "g", "tags": ["t"]}).json()[
        "task_id"
    ]
    plain = api.execute(two)

    def found(query: str) -> list[str]:
        page = api.get(f"/v1/tasks{query}").json()
        assert_fits("TaskList", page)
        return [task["task_id"] for task in page["tasks"]]

    assert set(found("")) == {done, grouped, plain}
    assert found("?status=COMPLETED") == found(f"?function={one}") == found(f"?function={one.upper()}") == [done]
    assert found("?group=g") == found("?tag=t") == found("?group=g&tag=t&status=QUEUED") == [grouped]
    assert found("?group=other") == found(f"?function={done}") == []
    for wrong in ("status=queued", "function=x", "grp=g", "limit=0", "group=", "tag=%0A", "cursor="):
        assert_error(api.get(f"/v1/tasks?{wrong}"), 422, "invalid_request")


def test_pages_are_complete(api: Served) -> None:
    task = {"function_id": api.register(), "payload": CALL}
    made = set(api.post("/v1/tasks:batch", {"tasks": [task] * 23}).json()["task_ids"])
    seen: list[str] = []
    query = "?limit=5"
    while True:
        page = api.get(f"/v1/tasks{query}").json()
        seen += [item["task_id"] for item in page["tasks"]]
        if page["cursor"] is None:
            break
        query = f"?limit=5&cursor={page['cursor']}"
    assert len(seen) == 23
    assert set(seen) == made
    assert api.get("/v1/tasks?cursor=nonsense").status_code in (200, 422)


def test_cancel(api: Served, dispatcher: TinyDispatcher) -> None:
    function_id = api.register()
    running, queued = api.execute(function_id), None
    claimed = dispatcher.claim(1)
    dispatcher.start(*claimed)
    queued = api.execute(function_id)
    for _ in range(2):  # idempotent
        for path in (f"/v1/tasks/{queued}/cancel", f"/v1/tasks/{queued}/cancel/"):
            answer = api.post(path, headers={"Content-Type": "application/json"})
            assert answer.status_code == 200
            assert_fits("StatusAnswer", answer.json())
            assert answer.json() == {"task_id": queued, "status": "CANCELLED"}
    assert api.post(f"/v1/tasks/{running}/cancel", {}).json()["status"] == "RUNNING"
    assert api.get(f"/v1/tasks/{running}").json()["cancel_requested"] is True
    dispatcher.finish(*claimed)
    assert api.post(f"/v1/tasks/{running}/cancel", {}).json()["status"] == "COMPLETED"
    assert_error(
        api.post(
            f"/v1/tasks/{running}/cancel", data=json.dumps({"x": 1}), headers={"Content-Type": "application/json"}
        ),
        422,
        "invalid_request",
    )
    assert_error(api.post(f"/v1/tasks/{running}/cancel"), 415, "unsupported_media_type")


def test_cancel_many(api: Served, dispatcher: TinyDispatcher, store: Store) -> None:
    function_id = api.register()
    ids = [api.execute(function_id) for _ in range(4)]
    claimed = dispatcher.claim(1)
    dispatcher.start(*claimed)
    gone, never = issued_id(store), UNKNOWN_ID
    answer = api.post("/v1/tasks:cancel", {"task_ids": [*ids, ids[1].upper(), gone, never], "running": False})
    assert answer.status_code == 200
    assert_fits("CancelAnswer", answer.json())
    statuses = {item["task_id"]: item["status"] for item in answer.json()["tasks"]}
    assert statuses == {ids[0]: "RUNNING", **dict.fromkeys(ids[1:], "CANCELLED")}
    assert (answer.json()["unknown"], answer.json()["expired"]) == ([never], [gone])
    assert api.get(f"/v1/tasks/{ids[0]}").json()["cancel_requested"] is False
    assert api.post("/v1/tasks:cancel", {"task_ids": ids}).json()["tasks"][0]["status"] == "RUNNING"
    assert api.get(f"/v1/tasks/{ids[0]}").json()["cancel_requested"] is True
    for wrong in (
        {},
        {"task_ids": []},
        {"task_ids": ["x"]},
        {"task_ids": ids, "running": 1},
        {"task_ids": ids, "x": 1},
    ):
        assert_error(api.post("/v1/tasks:cancel", wrong), 422, "invalid_request")


def test_workers_and_readiness(api: Served, dispatcher: TinyDispatcher, store: Store) -> None:
    assert api.get("/healthz").json() == {"status": "ok"}
    assert api.get("/v1/workers").json() == {"dispatchers": [], "workers": []}
    error = assert_error(api.get("/readyz"), 503, "not_ready")
    assert "dispatcher" in error["message"]
    assert error["details"]["dispatchers"] == 0
    dispatcher.join(slots=0)
    answer = api.get("/readyz")
    assert "worker" in assert_error(answer, 503, "not_ready")["message"]
    assert answer.headers["Retry-After"]
    dispatcher.join(slots=4)
    ready = api.get("/readyz")
    assert ready.status_code == 200
    assert_fits("ReadyAnswer", ready.json())
    assert (ready.json()["dispatchers"], ready.json()["slots"]) == (1, 4)
    fleet = api.get("/v1/workers").json()
    assert_fits("FleetAnswer", fleet)
    assert fleet["workers"][0]["worker_id"] == "worker-1"
    assert fleet["workers"][0]["dispatcher_id"] == fleet["dispatchers"][0]["dispatcher_id"] == dispatcher.id


def test_a_large_payload_travels(api: Served, dispatcher: TinyDispatcher) -> None:
    task_id = api.execute(api.register(payload=FUNCTION), encode((list(range(100_000)),)))
    dispatcher.run(result=b"x" * 3_000_000)
    assert len(api.get(f"/result/{task_id}").json()["result"]) > 4_000_000
