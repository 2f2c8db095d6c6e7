"""Whatever is sent: an answer in shape, never a 500, and never something that the schemas would not allow."""

from __future__ import annotations

import json
from collections.abc import Iterator
from urllib.parse import quote

import msgspec
import pytest
import requests
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from everfaas_core.api import ApiSettings
from everfaas_core.model.records import TaskDefaults
from everfaas_plugins.memory import everfaas_stores
from tests.api.driving import CALL, FUNCTION, UNKNOWN_ID, Served, assert_fits, encode

POSTS = (
    "/register_function",
    "/execute_function",
    "/v1/functions",
    "/v1/tasks",
    "/v1/tasks:batch",
    "/v1/tasks:wait",
    f"/v1/tasks/{UNKNOWN_ID}/cancel",
    f"/v1/tasks/{UNKNOWN_ID}/retry",
    "/v1/workers/worker-1/drain",
)
GETS = (
    "/status/{}",
    "/result/{}",
    "/v1/tasks/{}",
    "/v1/functions/{}",
    "/v1/tasks?{}",
    "/v1/functions?{}",
    "/{}",
    "/assets/{}",
)
NAMES = [
    "name",
    "payload",
    "function_id",
    "task_ids",
    "tasks",
    "wait_s",
    "results",
    "priority",
    "delay_s",
    "timeout_s",
    "deadline_s",
    "max_attempts",
    "group",
    "result_ttl_s",
    "idempotency_key",
    "tags",
    "python",
    "retry_backoff_s",
    "retry_on",
    "status",
    "function",
    "cause",
    "dead",
    "tag",
    "cursor",
    "limit",
    "wait",
]
FUZZ = settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])

ids = st.sampled_from([UNKNOWN_ID, "x"]) | st.uuids().map(str)
likely = st.sampled_from([CALL, FUNCTION, encode(1), "", "invalid_payload", "QUEUED", "3.12"]) | ids
scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(-(10**40), 10**40)
    | st.floats()
    | st.text(st.characters(codec=None), max_size=30)
    | likely
)
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8) | st.sampled_from(NAMES), inner, max_size=5)
    ),
    max_leaves=12,
)
bodies = st.dictionaries(st.sampled_from(NAMES), values, max_size=6) | values
# Bodies that get past the first checks: everything required is there, something else is wild.
tasks = st.fixed_dictionaries({"function_id": ids, "payload": likely}, optional=dict.fromkeys(NAMES[7:19], scalars))
near = (
    tasks
    | st.lists(tasks | values, max_size=3).map(lambda items: {"tasks": items})
    | st.fixed_dictionaries(
        {"name": st.just("f") | scalars, "payload": likely}, optional=dict.fromkeys(NAMES[7:19], scalars)
    )
    | st.fixed_dictionaries({"task_ids": st.lists(ids | scalars, max_size=3)}, optional={"results": scalars})
)


@pytest.fixture(scope="module")
def api() -> Iterator[Served]:
    (provider,) = everfaas_stores()
    with Served(provider.factory("memory", {}, TaskDefaults()), ApiSettings(threads=10, wait_s_max=0.01)) as served:
        yield served


def check(answer: requests.Response) -> None:
    assert answer.status_code < 500 or (answer.status_code == 503 and "not_ready" in answer.text), answer.text
    if answer.status_code >= 400:
        body = answer.json() if "json" in answer.headers["Content-Type"] else msgspec.msgpack.decode(answer.content)
        assert_fits("ErrorAnswer", body)


@given(st.sampled_from(POSTS), bodies | near)
@FUZZ
def test_json_bodies(api: Served, path: str, body: object) -> None:
    data = json.dumps(body)  # with NaN, Infinity, huge numbers and lone surrogates
    check(api.post(path, data=data, headers={"Content-Type": "application/json"}))


@given(st.sampled_from(POSTS), st.binary(max_size=200), st.sampled_from(["json", "msgpack"]))
@FUZZ
def test_raw_bodies(api: Served, path: str, body: bytes, kind: str) -> None:
    check(api.post(path, data=body, headers={"Content-Type": f"application/{kind}", "Accept": f"application/{kind}"}))


def packable(body: object) -> bytes | None:
    try:
        return msgspec.msgpack.encode(body)
    except (OverflowError, UnicodeEncodeError):
        return None


@given(
    st.sampled_from(POSTS), (bodies | near | st.dictionaries(scalars, scalars | st.binary(max_size=30))).map(packable)
)
@FUZZ
def test_msgpack_bodies(api: Served, path: str, body: bytes | None) -> None:
    if body is not None:
        check(api.post(path, data=body, headers={"Content-Type": "application/msgpack"}))


@given(st.sampled_from(GETS), st.text(max_size=40) | st.binary(max_size=30) | ids)
@FUZZ
def test_paths(api: Served, path: str, text: str | bytes) -> None:
    check(api.get(path.format(quote(text, safe="/?&=%"))))


@given(
    st.sampled_from(["/v1/tasks", "/v1/functions", f"/result/{UNKNOWN_ID}"]),
    st.dictionaries(st.sampled_from(NAMES), st.text(max_size=20) | ids, max_size=4),
)
@FUZZ
def test_queries(api: Served, path: str, query: dict[str, str]) -> None:
    check(api.get(path + "?" + "&".join(f"{name}={quote(value)}" for name, value in query.items())))


header_text = st.text(st.characters(min_codepoint=32, max_codepoint=255, exclude_characters="\x7f"), max_size=40)


@given(
    st.dictionaries(
        st.sampled_from(
            [
                "Host",
                "Accept",
                "Content-Type",
                "Content-Encoding",
                "Sec-Fetch-Site",
                "Range",
                "If-None-Match",
                "Cookie",
                "Authorization",
                "X-Forwarded-For",
                "Accept-Encoding",
                "Origin",
                "Transfer-Encoding",
                "Expect",
            ]
        ),
        header_text,
        max_size=4,
    ),
    st.sampled_from(["GET", "POST", "PUT", "HEAD", "OPTIONS"]),
    st.sampled_from(["/", "/register_function", f"/status/{UNKNOWN_ID}", "/v1/tasks:batch"]),
)
@FUZZ
def test_headers(api: Served, headers: dict[str, str], method: str, path: str) -> None:
    lines = "".join(f"{name}: {value}\r\n" for name, value in ({"Host": "localhost"} | headers).items())
    raw = api.raw(f"{method} {path} HTTP/1.1\r\n{lines}Connection: close\r\n\r\n".encode("latin-1"))
    status = int(raw.split(b" ")[1])
    assert status < 500 or status == 501, raw  # 501: a transfer encoding that waitress does not know
