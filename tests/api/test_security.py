"""SECURITY.md, statements 2, 3 and 8, as far as the API goes."""

from __future__ import annotations

import ipaddress
import json
import pickle
from pathlib import Path

import dill
import pytest

from everfaas_core.api import ApiServer, ApiSettings, create_app
from everfaas_core.ports import Store
from tests.api.driving import CALL, FUNCTION, UNKNOWN_ID, Served, TinyDispatcher, assert_error, encode

JSON = {"Content-Type": "application/json"}


class Canary:
    """Unpickling it would leave a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("protocol", range(6))
def test_nothing_is_ever_unpickled(api: Served, dispatcher: TinyDispatcher, tmp_path: Path, protocol: int) -> None:
    canary = tmp_path / "canary"
    raw = pickle.dumps(Canary(canary), protocol)
    as_call = pickle.dumps(((Canary(canary),), {}), protocol)
    payload, call = (dill_text(data) for data in (raw, as_call))
    function_id = api.register("canary", payload)
    task_id = api.execute(function_id, call)
    api.post("/v1/functions", {"name": "c", "payload": payload, "priority": 1})
    api.post("/v1/tasks", {"function_id": function_id, "payload": call})
    api.post("/v1/tasks:batch", {"tasks": [{"function_id": function_id, "payload": call}] * 3})
    api.post("/register_function", {"name": "c", "payload": dill_text(raw[:-1])})
    dispatcher.run(result=raw)
    for path in (f"/result/{task_id}", f"/status/{task_id}", f"/v1/tasks/{task_id}", "/v1/functions", "/v1/tasks"):
        assert api.get(path).status_code == 200
    assert api.get("/", headers={"Accept": "text/html"}).status_code == 200
    assert not canary.exists()
    pickle.loads(raw)
    assert canary.exists()  # it would have been


def dill_text(data: bytes) -> str:
    import codecs

    return codecs.encode(data, "base64").decode()


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:8000",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "localhost:80@evil",
        "[::1].evil",
        "localhost, evil",
        "",
        "127.0.0.2",
        "[::2]",
        "user@localhost",
        "localhost:x",
        "::1",
        "10.0.0.1",
        "é",
        "a b",
    ],
)
def test_another_host_is_refused(api: Served, host: str) -> None:
    for method, path in (("GET", "/"), ("GET", f"/result/{UNKNOWN_ID}"), ("GET", "/nothing"), ("GET", "/healthz")):
        answer = api.http.request(method, api.url + path, headers={"Host": host.encode()})
        error = assert_error(answer, 403, "host_not_allowed")
        assert "--allow-host" in error["hint"]
    answer = api.post("/register_function", {"name": "f", "payload": FUNCTION}, headers={"Host": host.encode()})
    assert_error(answer, 403, "host_not_allowed")
    assert api.get("/v1/functions").json()["functions"] == []


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST:1", "127.0.0.1:9999", "[::1]:80", "[::1]", "localhost.", "127.0.0.1:"]
)
def test_hosts_on_the_list_are_allowed_on_any_port(api: Served, host: str) -> None:
    assert api.get("/healthz", headers={"Host": host}).status_code == 200


def test_more_hosts_can_be_allowed(store: Store) -> None:
    with Served(store, ApiSettings(threads=10, allowed_hosts=("faas.example",))) as api:
        assert api.get("/healthz", headers={"Host": "faas.example:80"}).status_code == 200
        assert api.get("/healthz").status_code == 200  # the bound address
        assert api.get("/healthz", headers={"Host": "localhost"}).status_code == 403


def test_no_host_at_all_is_refused(api: Served) -> None:
    assert api.raw(b"GET /healthz HTTP/1.0\r\n\r\n").startswith(b"HTTP/1.0 403 ")


def test_a_wildcard_takes_literal_addresses_but_no_names(store: Store) -> None:
    settings = ApiSettings(threads=10)
    app = create_app(store, settings)
    server = ApiServer(app, "0.0.0.0", 0, settings)
    try:
        client = app.test_client()
        for host in ("10.1.2.3:8000", "[fe80::1]", "localhost"):
            assert client.get("/healthz", headers={"Host": host}).status_code == 200
        for host in ("evil.example", "10.1.2.3.evil.example", "0x7f.1"):
            assert client.get("/healthz", headers={"Host": host}).status_code == 403
    finally:
        server.close()


def test_what_a_web_form_can_send_changes_nothing(api: Served) -> None:
    task_id = api.execute(api.register())
    body = json.dumps({"name": "evil", "payload": FUNCTION})
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "text/json", None):
        headers = {"Content-Type": kind} if kind else {}
        for path in ("/register_function", "/v1/functions", f"/v1/tasks/{task_id}/cancel"):
            assert_error(api.post(path, data=body.encode(), headers=headers), 415, "unsupported_media_type")
    assert len(api.get("/v1/functions").json()["functions"]) == 1
    assert api.get(f"/status/{task_id}").json()["status"] == "QUEUED"


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_a_page_of_another_site_changes_nothing(api: Served, site: str) -> None:
    headers = {**JSON, "Sec-Fetch-Site": site}
    body = json.dumps({"name": "evil", "payload": FUNCTION})
    assert_error(api.post("/register_function", data=body, headers=headers), 403, "cross_site")
    assert api.get("/v1/functions").json()["functions"] == []
    assert api.get("/", headers={"Sec-Fetch-Site": site}).status_code == 200  # a link to it is fine
    for own in ("same-origin", "none"):
        headers["Sec-Fetch-Site"] = own
        assert api.post("/register_function", data=body, headers=headers).status_code == 201


def test_no_cors(api: Served) -> None:
    asked = {
        "Origin": "https://evil.example",
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "content-type",
    }
    for answer in (
        api.http.options(api.url + "/register_function", headers=asked),
        api.get("/", headers=asked),
        api.post("/register_function", {"name": "f", "payload": FUNCTION}, headers=asked),
    ):
        assert not [name for name in answer.headers if name.lower().startswith("access-control")]


def test_nothing_changes_by_get(api: Served, dispatcher: TinyDispatcher) -> None:
    function_id = api.register()
    task_id = api.execute(function_id)
    before = api.get("/v1/tasks").json(), api.get("/v1/functions").json()
    for rule in api.app.url_map.iter_rules():
        if "GET" not in (rule.methods or ()):
            continue
        path = rule.rule.replace("<task_id>", task_id).replace("<function_id>", function_id)
        for method in ("GET", "HEAD", "OPTIONS"):
            query = {"wait_s": "0"} if "/groups/" in path else None
            answer = api.http.request(method, api.url + path.replace("<name>", "docs.js"), params=query, timeout=60)
            assert answer.status_code in (200, 503), (path, answer.text)
    for path in ("/register_function", "/execute_function", f"/v1/tasks/{task_id}/cancel", "/v1/tasks:batch"):
        assert_error(api.get(path), 405, "method_not_allowed")
    assert (api.get("/v1/tasks").json(), api.get("/v1/functions").json()) == before


def test_every_response_has_the_headers(api: Served) -> None:
    answers = [
        api.get("/"),
        api.get("/", headers={"Accept": "text/html"}),
        api.get("/docs"),
        api.get("/assets/docs.js"),
        api.get("/openapi.json"),
        api.get("/nothing"),
        api.get("/", headers={"Host": "evil"}),
        api.get("/status/x"),
        api.post("/register_function", data=b"x"),
        api.post("/register_function", {"name": "f", "payload": FUNCTION}),
        api.http.options(api.url + "/"),
    ]
    for answer in answers:
        policy = answer.headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "frame-ancestors 'none'" in policy
        assert "script-src" not in policy or "script-src 'self';" in policy
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Referrer-Policy"] == "no-referrer"
        assert answer.headers["X-Frame-Options"] == "DENY"
        assert "Server" not in answer.headers
    raw = api.raw(b"\x00\x01\x02\r\n\r\n")
    assert raw.startswith(b"HTTP/1.0 400 ")
    assert b"Content-Security-Policy: default-src 'none'" in raw
    assert b"Server:" not in raw
    assert b"waitress" not in raw


def test_names_are_escaped_in_html(api: Served, dispatcher: TinyDispatcher) -> None:
    evil = "<script>alert(1)</script>\"'&{{7*7}}"
    api.register(evil)
    dispatcher.join(name="<img src=x onerror=alert(2)>")
    page = api.get("/", headers={"Accept": "text/html,application/xhtml+xml"})
    assert page.headers["Content-Type"] == "text/html; charset=utf-8"
    assert "&lt;script&gt;alert(1)&lt;/script&gt;&#34;&#39;&amp;{{7*7}}" in page.text
    assert "<script" not in page.text
    assert "<img" not in page.text
    json_page = api.get("/v1/functions", headers={"Accept": "text/html"})
    assert json_page.headers["Content-Type"] == "application/json"  # never sniffed as HTML


def test_compressed_bodies_are_refused(api: Served) -> None:
    import gzip

    body = gzip.compress(json.dumps({"name": "f", "payload": FUNCTION}).encode())
    for encoding in ("gzip", "deflate", "br", "identity, gzip"):
        answer = api.post("/register_function", data=body, headers={**JSON, "Content-Encoding": encoding})
        assert_error(answer, 415, "unsupported_media_type")
    body = json.dumps({"name": "f", "payload": FUNCTION}).encode()
    answer = api.post("/register_function", data=body, headers={**JSON, "Content-Encoding": "identity"})
    assert answer.status_code == 201


def test_proxy_headers_of_strangers_mean_nothing(api: Served) -> None:
    headers = {"X-Forwarded-Host": "evil.example", "Forwarded": "host=evil.example", "X-Forwarded-For": "1.2.3.4"}
    assert api.get("/healthz", headers=headers).status_code == 200
    headers["Host"] = "evil.example"
    assert api.get("/healthz", headers={**headers, "X-Forwarded-Host": "localhost"}).status_code == 403


def test_the_default_address_is_loopback() -> None:
    assert all(
        name == "localhost" or ipaddress.ip_address(name.strip("[]")).is_loopback
        for name in ApiSettings().allowed_hosts
    )


def test_payload_of_a_reference_is_taken(api: Served) -> None:
    """Functions by reference are 47 bytes; only slots resolve them."""
    payload = dill_text(b"\x80\x04\x8c\x0cno_such_mod\x00\x8c\x06double\x93.")
    assert api.post("/register_function", {"name": "double", "payload": payload}).status_code == 201
    assert api.post("/register_function", {"name": "d", "payload": encode(dill.dumps)}).status_code == 201
    assert CALL
