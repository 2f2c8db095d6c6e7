"""v0, as a `requests` + `dill` script speaks it."""

from __future__ import annotations

import codecs
import uuid

import dill
import msgspec
import pytest

from everfaas_core.model.states import Cause, Status
from everfaas_core.ports import Store
from tests.api.driving import CALL, FUNCTION, Served, TinyDispatcher, assert_fits


@pytest.mark.parametrize("slash", ["", "/"])
def test_the_four_calls(api: Served, dispatcher: TinyDispatcher, slash: str) -> None:
    registered = api.post(f"/register_function{slash}", {"name": "double", "payload": FUNCTION})
    assert registered.status_code == 201
    assert_fits("FunctionRegistered", registered.json())
    function_id = registered.json()["function_id"]
    assert str(uuid.UUID(function_id)) == function_id

    executed = api.post(f"/execute_function{slash}", {"function_id": function_id, "payload": CALL})
    assert executed.status_code == 201
    assert_fits("TaskAccepted", executed.json())
    task_id = executed.json()["task_id"]

    seen = api.get(f"/status/{task_id}{slash}")
    assert (seen.status_code, seen.json()) == (200, {"task_id": task_id, "status": "QUEUED"})
    early = api.get(f"/result/{task_id}{slash}")
    assert (early.status_code, early.json()) == (200, {"task_id": task_id, "status": "QUEUED", "result": ""})

    (task,) = dispatcher.claim(1)
    assert task.payload == codecs.decode(CALL.encode(), "base64")
    dispatcher.start(task)
    assert api.get(f"/status/{task_id}{slash}").json()["status"] == "RUNNING"
    assert api.get(f"/result/{task_id}{slash}").json()["result"] == ""

    dispatcher.finish(task, result=dill.dumps(42))
    for path in (f"/result/{task_id}", f"/result/{task_id}/", f"/api/v1/result/{task_id}", f"/result/{task_id}"):
        ended = api.get(path)
        assert ended.status_code == 200
        assert_fits("ResultAnswer", ended.json())
        assert ended.json() == {
            "task_id": task_id,
            "status": "COMPLETED",
            "result": codecs.encode(dill.dumps(42), "base64").decode(),
        }
    assert dill.loads(codecs.decode(ended.json()["result"].encode(), "base64")) == 42


def test_a_failure_and_a_cancelled_task(api: Served, dispatcher: TinyDispatcher) -> None:
    function_id = api.register()
    failed, cancelled = api.execute(function_id), api.execute(function_id)
    assert api.post(f"/v1/tasks/{cancelled}/cancel", {}).json() == {"task_id": cancelled, "status": "CANCELLED"}
    error = dill.dumps(ValueError("no"))
    assert dispatcher.run(status=Status.FAILED, cause=Cause.RAISED, result=error) == [failed]
    assert api.get(f"/status/{failed}").json()["status"] == "FAILED"
    result = api.get(f"/result/{failed}").json()["result"]
    assert repr(dill.loads(codecs.decode(result.encode(), "base64"))) == "ValueError('no')"
    for path in ("/status/", "/result/"):
        assert api.get(path + cancelled).json()["status"] == "CANCELLED"


def test_a_long_result_comes_as_codecs_would_encode_it(api: Served, dispatcher: TinyDispatcher) -> None:
    task_id = api.execute(api.register())
    result = dill.dumps(list(range(10_000)))
    dispatcher.run(result=result)
    text = api.get(f"/result/{task_id}").json()["result"]
    assert text == codecs.encode(result, "base64").decode()
    assert text.count("\n") > 500


def test_payloads_without_newlines_and_unknown_fields_are_taken(api: Served, dispatcher: TinyDispatcher) -> None:
    body = {"name": "double", "payload": FUNCTION.replace("\n", ""), "language": "python", "wait_s": "what"}
    registered = api.post("/register_function", body)
    assert registered.status_code == 201
    function_id = registered.json()["function_id"]
    assert function_id == api.register()  # the same content
    body = {"function_id": function_id.upper(), "payload": CALL.replace("\n", ""), "priority": "x", "x": [1]}
    assert api.post("/execute_function", body).status_code == 201
    assert dispatcher.claim(1)[0].payload == codecs.decode(CALL.encode(), "base64")


def test_the_same_name_and_code_is_one_function(api: Served) -> None:
    assert api.register("f") == api.register("f")
    assert api.register("f") != api.register("g")


def test_ids_in_capitals_are_the_same_ids(api: Served) -> None:
    task_id = api.execute(api.register())
    assert api.get(f"/status/{task_id.upper()}").json()["task_id"] == task_id


def test_head_and_options(api: Served) -> None:
    task_id = api.execute(api.register())
    for path in (f"/status/{task_id}", f"/result/{task_id}", "/healthz", "/"):
        answer = api.http.head(api.url + path)
        assert (answer.status_code, answer.content) == (200, b"")
    answer = api.http.options(api.url + "/register_function")
    assert (answer.status_code, set(answer.headers["Allow"].split(", "))) == (200, {"OPTIONS", "POST"})
    assert not [name for name in answer.headers if name.lower().startswith("access-control")]


def test_msgpack_in_and_out(api: Served, dispatcher: TinyDispatcher, store: Store) -> None:
    kinds = {"Content-Type": "application/msgpack", "Accept": "application/msgpack"}

    def call(path: str, body: object) -> dict[str, object]:
        answer = api.post(path, data=msgspec.msgpack.encode(body), headers=kinds)
        assert answer.headers["Content-Type"] == "application/msgpack", answer.text
        decoded: dict[str, object] = msgspec.msgpack.decode(answer.content)
        return decoded

    raw = codecs.decode(FUNCTION.encode(), "base64")
    function_id = call("/register_function", {"name": "double", "payload": raw})["function_id"]
    assert function_id == api.register()  # raw bytes and base64 are the same function
    task_id = call("/execute_function", {"function_id": function_id, "payload": dill.dumps(((1,), {}))})["task_id"]
    assert call("/execute_function", {"function_id": function_id, "payload": CALL})["task_id"] != task_id
    dispatcher.run(result=b"\x00raw")
    answer = api.get(f"/result/{task_id}", headers={"Accept": "application/msgpack"})
    assert msgspec.msgpack.decode(answer.content)["result"] == b"\x00raw"
    assert api.get(f"/result/{task_id}").json()["result"] == codecs.encode(b"\x00raw", "base64").decode()
    error = call("/execute_function", {"function_id": 7})
    assert error["error"]["code"] == "invalid_request"  # type: ignore[index]


def test_status_and_result_cost_one_round_trip(api: Served, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    task_id = api.execute(api.register())
    calls: list[str] = []
    for name in ("statuses", "results", "tasks", "functions", "health", "fleet", "secret"):
        method = getattr(store, name)
        monkeypatch.setattr(
            store, name, lambda *given, name=name, method=method: (calls.append(name), method(*given))[1], raising=False
        )
    for path, used in (("status", "statuses"), ("result", "results")):
        calls.clear()
        assert api.get(f"/{path}/{task_id}").status_code == 200
        assert calls == [used]
