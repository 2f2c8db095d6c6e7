"""Every row of the error table, in the one shape."""

from __future__ import annotations

import flask
import pytest

from everfaas_core.api import ApiSettings
from everfaas_core.ports import Store
from tests.api.driving import CALL, FUNCTION, UNKNOWN_ID, Served, assert_error, encode, issued_id


@pytest.mark.parametrize(
    "path", ["/register_function", "/execute_function", "/v1/functions", "/v1/tasks", "/v1/tasks:batch"]
)
@pytest.mark.parametrize(
    "body", [b"", b"{", b"nope", b"[]", b'"x"', b"null", b"1", b"NaN", b"\xff", b'{"a":"\\ud800"}']
)
def test_422_when_the_body_is_no_json_object(api: Served, path: str, body: bytes) -> None:
    answer = api.post(path, data=body, headers={"Content-Type": "application/json"})
    assert_error(answer, 422, "invalid_request")


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        ("/register_function", {"payload": FUNCTION}, "name"),
        ("/register_function", {"name": "f"}, "payload"),
        ("/register_function", {"name": 1, "payload": FUNCTION}, "name"),
        ("/register_function", {"name": None, "payload": FUNCTION}, "name"),
        ("/register_function", {"name": "f", "payload": 1}, "payload"),
        ("/register_function", {"name": "f", "payload": None}, "payload"),
        ("/register_function", {"name": "f", "payload": ["x"]}, "payload"),
        ("/register_function", {"name": "f" * 201, "payload": FUNCTION}, "name"),
        ("/register_function", {"name": "a\nb", "payload": FUNCTION}, "name"),
        ("/register_function", {"name": "a\u202eb", "payload": FUNCTION}, "name"),
        ("/execute_function", {"payload": CALL}, "function_id"),
        ("/execute_function", {"function_id": UNKNOWN_ID}, "payload"),
        ("/execute_function", {"function_id": 5, "payload": CALL}, "function_id"),
        ("/execute_function", {"function_id": "not-an-id", "payload": CALL}, "function_id"),
        ("/execute_function", {"function_id": UNKNOWN_ID + "\n", "payload": CALL}, "function_id"),
        ("/v1/tasks", {"function_id": "{" + UNKNOWN_ID + "}", "payload": CALL}, "function_id"),
        ("/v1/tasks:wait", {"task_ids": ["x"]}, "task_ids"),
        ("/v1/tasks:wait", {"task_ids": []}, "task_ids"),
        ("/v1/tasks:wait", {"task_ids": "x"}, "task_ids"),
        ("/v1/tasks:wait", {"task_ids": [UNKNOWN_ID] * 10_001}, "task_ids"),
        ("/v1/tasks:wait", {"task_ids": [UNKNOWN_ID], "results": 1}, "results"),
        ("/v1/tasks:wait", {"task_ids": [UNKNOWN_ID], "wait_s": "1"}, "wait_s"),
        ("/v1/functions", {"name": "f", "payload": FUNCTION, "timeout": 1}, "timeout"),
    ],
)
def test_422_names_the_field(api: Served, path: str, body: dict[str, object], field: str) -> None:
    error = assert_error(api.post(path, body), 422, "invalid_request")
    assert list(error["details"]["fields"]) == [field]
    assert field in error["message"]


@pytest.mark.parametrize(
    "kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", ""]
)
@pytest.mark.parametrize("path", ["/register_function", "/execute_function", "/v1/tasks"])
def test_415_for_another_content_type(api: Served, path: str, kind: str) -> None:
    answer = api.post(path, data=b"{}", headers={"Content-Type": kind})
    assert_error(answer, 415, "unsupported_media_type")


def test_a_charset_is_no_other_content_type(api: Served) -> None:
    answer = api.post("/register_function", data=b"{}", headers={"Content-Type": "Application/JSON; charset=utf-8"})
    assert_error(answer, 422, "invalid_request")


@pytest.mark.parametrize(
    "payload", ["", "\n", "invalid_payload", "not base64!", "aGVsbG8=", FUNCTION[:-8], FUNCTION[4:]]
)
def test_400_for_a_bad_payload(api: Served, payload: str) -> None:
    function_id = api.register()
    error = assert_error(api.post("/register_function", {"name": "f", "payload": payload}), 400, "bad_payload")
    assert "dill" in error["hint"]
    call = {"function_id": function_id, "payload": payload}
    assert_error(api.post("/execute_function", call), 400, "bad_payload")
    assert_error(api.post("/v1/tasks", call), 400, "bad_payload")
    error = assert_error(api.post("/v1/tasks:batch", {"tasks": [{**call, "payload": CALL}, call]}), 400, "bad_payload")
    assert error["details"] == {"index": 1}


@pytest.mark.parametrize("thing", [5, "text", b"bytes", None, (len,), [len], {"f": len}])
def test_400_for_a_function_that_is_none(api: Served, thing: object) -> None:
    for path in ("/register_function", "/v1/functions"):
        error = assert_error(api.post(path, {"name": "f", "payload": encode(thing)}), 400, "bad_payload")
        assert "not a function" in error["message"]


def test_404_for_unknown_and_malformed_ids(api: Served) -> None:
    for path in ("/status/", "/result/", "/api/v1/result/", "/v1/tasks/"):
        for wrong in (UNKNOWN_ID, "x", UNKNOWN_ID + "0", "%00", "a" * 5000, UNKNOWN_ID.replace("-", "")):
            assert_error(api.get(path + wrong), 404, "unknown_task")
            assert_error(api.get(path + wrong + "/"), 404, "unknown_task")
    for wrong in (UNKNOWN_ID, "x"):
        assert_error(api.get(f"/v1/functions/{wrong}"), 404, "unknown_function")
        assert_error(api.post(f"/v1/tasks/{wrong}/cancel", {}), 404, "unknown_task")
        assert_error(api.get(f"/result/{wrong}?wait=1"), 404, "unknown_task")
    call = {"function_id": UNKNOWN_ID, "payload": CALL}
    for path, body in (("/execute_function", call), ("/v1/tasks", call), ("/v1/tasks:batch", {"tasks": [call]})):
        error = assert_error(api.post(path, body), 404, "unknown_function")
        assert UNKNOWN_ID in error["message"]


def test_404_and_405_of_the_router(api: Served) -> None:
    for path in ("/nothing", "/status", "/status/", "/v1", "/static/x", "/assets/../app.py", "/assets/x"):
        assert_error(api.get(path), 404, "no_such_route")
    assert_error(api.post("/nothing", data=b"x"), 404, "no_such_route")
    for method, path, allowed in (
        ("GET", "/register_function", "OPTIONS, POST"),
        ("DELETE", f"/status/{UNKNOWN_ID}", "GET, HEAD, OPTIONS"),
        ("TRACE", "/", "GET, HEAD, OPTIONS"),
        ("BREW", "/healthz", "GET, HEAD, OPTIONS"),
    ):
        answer = api.http.request(method, api.url + path)
        assert_error(answer, 405, "method_not_allowed")
        assert ", ".join(sorted(answer.headers["Allow"].split(", "))) == allowed


def test_410_for_what_this_store_once_issued(api: Served, store: Store) -> None:
    expired = issued_id(store)
    for path in (f"/status/{expired}", f"/result/{expired}", f"/result/{expired}?wait=5", f"/v1/tasks/{expired}"):
        assert_error(api.get(path), 410, "task_expired")
    assert_error(api.post(f"/v1/tasks/{expired}/cancel", {}), 410, "task_expired")


def test_429_when_the_queue_is_full(store: Store) -> None:
    with Served(store, ApiSettings(threads=10, queue_max=2)) as api:
        function_id = api.register()
        call = {"function_id": function_id, "payload": CALL}
        api.execute(function_id)
        answer = api.post("/v1/tasks:batch", {"tasks": [call, call]})
        assert_error(answer, 429, "queue_full")
        assert int(answer.headers["Retry-After"]) >= 1
        api.execute(function_id)  # the batch has left nothing behind
        for path in ("/execute_function", "/v1/tasks"):
            assert_error(api.post(path, call), 429, "queue_full")


def test_a_mistake_of_ours_is_told_in_the_same_shape(store: Store) -> None:
    broken = flask.Blueprint("broken", __name__)
    broken.add_url_rule("/broken", view_func=lambda: 1 / 0, methods=["GET", "POST"])
    with Served(store, ApiSettings(threads=10), [broken]) as api:
        error = assert_error(api.get("/broken"), 500, "internal")
        assert "division" not in str(error)
        assert_error(api.post("/broken", data=b""), 415, "unsupported_media_type")  # plugins' routes are checked, too


def test_errors_of_validation_are_of_bounded_size(api: Served) -> None:
    body = {"name": "f", "payload": FUNCTION, **{f"{'k' * 1000}{i}\n": 1 for i in range(500)}}
    answer = api.post("/v1/functions", body)
    assert_error(answer, 422, "invalid_request")
    assert len(answer.content) < 20_000
