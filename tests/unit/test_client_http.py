"""The client's exchange with whatever answers at the address: an API, a stranger, nobody, somebody who hangs up."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import msgspec
import pytest

from everfaas_core.client.errors import ApiRefused, ApiUnreachable
from everfaas_core.client.http import Api, query_text, segment

Answer = Callable[[BaseHTTPRequestHandler, bytes], None]


class Stub:
    """A server that answers as a test says, and remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, bytes]] = []
        self.connections = 0
        self.answer: Answer = lambda request, _: reply(request, 200, {"ok": True})
        stub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def setup(self) -> None:
                stub.connections += 1
                super().setup()

            def do_GET(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                stub.asked.append((self.command, self.path, body))
                stub.answer(self, body)

            do_POST = do_GET

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.01,))
        self.thread.start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


def reply(
    request: BaseHTTPRequestHandler, status: int, content: Any, kind: str = "application/msgpack", **headers: str
) -> None:
    body = content if isinstance(content, bytes) else msgspec.msgpack.encode(content)
    request.send_response(status)
    request.send_header("Content-Type", kind)
    request.send_header("Content-Length", str(len(body)))
    for name, value in headers.items():
        request.send_header(name.replace("_", "-"), value)
    request.end_headers()
    request.wfile.write(body)


@pytest.fixture
def stub() -> Iterator[Stub]:
    made = Stub()
    yield made
    made.close()


@pytest.fixture
def api(stub: Stub) -> Iterator[Api]:
    with Api(stub.url) as made:
        yield made


def test_a_connection_is_kept(stub: Stub, api: Api) -> None:
    for number in range(5):
        assert api.post("/v1/x", {"n": number}) == {"ok": True}
    assert stub.connections == 1
    assert [msgspec.msgpack.decode(body) for _, _, body in stub.asked] == [{"n": number} for number in range(5)]


def test_queries_and_segments(stub: Stub, api: Api) -> None:
    api.get("/v1/tasks", {"group": "a b&c", "limit": 5, "cursor": None, "dead": True})
    assert stub.asked[-1][1] == "/v1/tasks?group=a+b%26c&limit=5&dead=true"
    assert query_text(None) == query_text({"x": None}) == ""
    assert segment("a/b c") == "a%2Fb%20c"


def test_an_address_may_have_a_path(stub: Stub) -> None:
    with Api(stub.url + "/behind/a/proxy/") as api:
        api.get("/healthz")
    assert stub.asked[-1][1] == "/behind/a/proxy/healthz"


def test_json_is_understood(stub: Stub, api: Api) -> None:
    stub.answer = lambda request, _: reply(request, 200, json.dumps({"a": 1}).encode(), "application/json")
    assert api.get("/openapi.json") == {"a": 1}


def test_a_refusal_has_what_the_api_said(stub: Stub, api: Api) -> None:
    error = {"code": "queue_full", "message": "too many", "hint": "wait", "details": {"index": 3}}
    stub.answer = lambda request, _: reply(request, 429, {"error": error, "detail": "x"}, Retry_After="7")
    with pytest.raises(ApiRefused, match=r"refused \(429\): too many \(wait\)") as caught:
        api.get("/")
    said = caught.value
    assert (said.status, said.reason, said.details, said.retry_after_s) == (429, "queue_full", {"index": 3}, 7.0)
    assert said.passing
    stub.answer = lambda request, _: reply(
        request, 404, json.dumps({"error": {"message": "no"}, "detail": "no"}).encode(), "application/json"
    )
    with pytest.raises(ApiRefused) as caught:
        api.get("/")
    assert not caught.value.passing


@pytest.mark.parametrize("status", [200, 404, 502])
def test_a_stranger_is_told_from_an_api(stub: Stub, api: Api, status: int) -> None:
    stub.answer = lambda request, _: reply(request, status, b"<html>hello</html>", "text/html")
    for ask in (lambda: api.get("/"), lambda: list(api.stream("/"))):
        with pytest.raises(ApiUnreachable, match="is not this API"):
            ask()


def test_a_kept_connection_that_was_closed_meanwhile_is_replaced(stub: Stub, api: Api) -> None:
    """Seen before the request is sent; and if not, the request is sent again, unless it must not be."""
    hang_up = threading.Event()

    def answer(request: BaseHTTPRequestHandler, _: bytes) -> None:
        if hang_up.is_set():
            hang_up.clear()
            request.close_connection = True  # the request was read, and nothing is answered
            return
        reply(request, 200, {})

    stub.answer = answer
    api.get("/1")
    hang_up.set()
    assert api.get("/2") == {}
    assert [path for _, path, _ in stub.asked] == ["/1", "/2", "/2"]
    hang_up.set()
    with pytest.raises(ApiUnreachable):
        api.post("/3", {}, once=True)
    hang_up.set()
    with pytest.raises(ApiUnreachable):  # the first request of a connection: whoever is there does not answer
        api.get("/4")


def test_who_hangs_up_on_every_request_is_given_up(stub: Stub, api: Api) -> None:
    stub.answer = lambda request, _: setattr(request, "close_connection", True)
    with pytest.raises(ApiUnreachable, match="no API answers"):
        api.get("/")


def test_silence_has_an_end(stub: Stub, api: Api) -> None:
    over = threading.Event()
    stub.answer = lambda request, _: over.wait(20) and None
    with pytest.raises(ApiUnreachable, match="timed out"):
        api.get("/", timeout_s=0.2)
    over.set()


def test_nobody_listens() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        for ask in (lambda: Api(url).get("/"), lambda: Api(url).stream("/")):
            with pytest.raises(ApiUnreachable, match="everfaas up"):
                ask()


def test_a_stream_gives_objects_and_can_be_closed_by_another_thread(stub: Stub, api: Api) -> None:
    over = threading.Event()

    def answer(request: BaseHTTPRequestHandler, _: bytes) -> None:
        request.send_response(200)
        request.send_header("Content-Type", "application/msgpack")
        request.send_header("Transfer-Encoding", "chunked")
        request.end_headers()
        whole = b"".join(map(msgspec.msgpack.encode, [None, {"a": b"x" * 300}, {"b": 2}]))
        for part in (whole[:7], whole[7:200], whole[200:]):
            request.wfile.write(b"%x\r\n%s\r\n" % (len(part), part))
            request.wfile.flush()
        over.wait(20)

    stub.answer = answer
    with api.stream("/s") as stream:
        objects = iter(stream)
        assert [next(objects) for _ in range(3)] == [None, {"a": b"x" * 300}, {"b": 2}]
        threading.Timer(0.1, stream.close).start()
        assert list(objects) == []
    over.set()


def test_a_stream_that_is_cut_says_so(stub: Stub, api: Api) -> None:
    def answer(request: BaseHTTPRequestHandler, _: bytes) -> None:
        request.send_response(200)
        request.send_header("Content-Type", "application/msgpack")
        request.send_header("Transfer-Encoding", "chunked")
        request.end_headers()
        request.wfile.write(b"1\r\n\xc0\r\n5\r\nab")
        request.wfile.flush()
        request.connection.shutdown(socket.SHUT_RDWR)
        request.close_connection = True

    stub.answer = answer
    with api.stream("/s") as stream, pytest.raises(ApiUnreachable):
        list(stream)
