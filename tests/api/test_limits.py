"""Bodies over the limit, malformed HTTP, and clients that trickle: over plain sockets."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator

import pytest

from everfaas_core.api import ApiSettings
from everfaas_core.ports import Store
from tests.api.driving import FUNCTION, Served, assert_error, read_all

LIMIT = 100_000
HEAD = b"POST /register_function HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"


@pytest.fixture
def small(store: Store) -> Iterator[Served]:
    settings = ApiSettings(threads=10, body_bytes_max=LIMIT, receive_s_max=1.0)
    with Served(store, settings) as served:
        yield served


def body_of(raw: bytes) -> dict[str, dict[str, str]]:
    head, _, body = raw.partition(b"\r\n\r\n")
    assert b"Content-Type: application/json" in head
    parsed: dict[str, dict[str, str]] = json.loads(body)
    assert isinstance(parsed["detail"], str)
    return parsed


def padded(size: int) -> bytes:
    """A valid registration of exactly `size` bytes."""
    body = json.dumps({"name": "f", "payload": FUNCTION}).encode()
    return body + b" " * (size - len(body))


def test_the_limit_is_the_largest_body(small: Served) -> None:
    headers = {"Content-Type": "application/json"}
    assert small.post("/register_function", data=padded(LIMIT), headers=headers).status_code == 201
    answer = small.post("/register_function", data=padded(LIMIT + 1), headers=headers)
    assert_error(answer, 413, "too_large")


def test_413_comes_before_the_body(small: Served) -> None:
    with socket.create_connection(("127.0.0.1", small.port), timeout=20) as connection:
        connection.sendall(HEAD + b"Content-Length: 99999999999999\r\n\r\n")  # and not one byte of it
        raw = read_all(connection)
    assert raw.startswith(b"HTTP/1.1 413 ")
    assert body_of(raw)["error"]["code"] == "too_large"


def test_a_refused_body_is_not_invited(small: Served) -> None:
    with socket.create_connection(("127.0.0.1", small.port), timeout=20) as connection:
        connection.sendall(HEAD + b"Expect: 100-continue\r\nContent-Length: 99999999\r\n\r\n")
        raw = read_all(connection)
    assert raw.startswith(b"HTTP/1.1 413 ")  # no "100 Continue" before it
    good = padded(5000)
    with socket.create_connection(("127.0.0.1", small.port), timeout=20) as connection:
        head = HEAD + f"Expect: 100-continue\r\nConnection: close\r\nContent-Length: {len(good)}\r\n\r\n".encode()
        connection.sendall(head)
        assert connection.recv(1000).startswith(b"HTTP/1.1 100 ")
        connection.sendall(good)
        assert read_all(connection).startswith(b"HTTP/1.1 201 ")


def test_a_chunked_body_is_cut_off_at_the_limit(small: Served) -> None:
    chunk = b"2000\r\n" + b" " * 0x2000 + b"\r\n"
    sent = 0
    with socket.create_connection(("127.0.0.1", small.port), timeout=20) as connection:
        connection.sendall(HEAD + b"Transfer-Encoding: chunked\r\n\r\n")
        for _ in range(LIMIT // 0x2000 + 2):
            connection.sendall(chunk)
            sent += len(chunk)
        raw = read_all(connection)  # it answers although the body goes on
    assert raw.startswith(b"HTTP/1.1 413 ")
    assert body_of(raw)["error"]["code"] == "too_large"


def test_a_chunked_body_within_the_limit_is_taken(small: Served) -> None:
    body = padded(5000)
    answer = small.post(
        "/register_function",
        data=(body[at : at + 700] for at in range(0, len(body), 700)),
        headers={"Content-Type": "application/json"},
    )
    assert answer.status_code == 201


def test_a_client_that_sends_on_still_sees_the_413(small: Served) -> None:
    """Without a lingering close, the reset would wipe the answer out before it is read."""
    for _ in range(5):
        body = b" " * 20_000_000
        answer = small.post("/register_function", data=body, headers={"Content-Type": "application/json"})
        assert_error(answer, 413, "too_large")


def test_what_follows_a_refused_body_is_never_a_request(small: Served) -> None:
    smuggled = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
    with socket.create_connection(("127.0.0.1", small.port), timeout=20) as connection:
        connection.sendall(HEAD + b"Content-Length: 99999999\r\n\r\n" + smuggled * 20)
        connection.shutdown(socket.SHUT_WR)
        raw = read_all(connection)
    assert raw.count(b"HTTP/1.1 ") == 1
    assert raw.startswith(b"HTTP/1.1 413 ")


@pytest.mark.parametrize(
    ("sent", "status", "code"),
    [
        (b"nonsense\r\n\r\n", 400, "malformed_request"),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nbad header\r\n\r\n", 400, "malformed_request"),
        (b"get / HTTP/1.1\r\nHost: localhost\r\n\r\n", 400, "malformed_request"),
        (HEAD + b"Content-Length: -1\r\n\r\n", 400, "malformed_request"),
        (HEAD + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\n", 400, "malformed_request"),
        (HEAD + b"Transfer-Encoding: gzip\r\n\r\n", 501, "not_implemented"),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n", 400, "malformed_request"),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + b"1" * 20_000, 400, "malformed_request"),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n0\r\n" + b"a: b\r\n" * 10_000, 400, "malformed_request"),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 70_000 + b"\r\n\r\n", 431, "headers_too_large"),
    ],
)
def test_malformed_http_gets_the_one_shape(small: Served, sent: bytes, status: int, code: str) -> None:
    raw = small.raw(sent)
    assert f" {status} ".encode() in raw.splitlines()[0]
    assert body_of(raw)["error"]["code"] == code
    assert small.get("/healthz").status_code == 200


def test_a_request_that_trickles_in_is_cut_off(small: Served) -> None:
    began = time.monotonic()
    with socket.create_connection(("127.0.0.1", small.port), timeout=20) as connection:
        connection.sendall(HEAD + b"Content-Length: 1000\r\n\r\n")
        try:
            while time.monotonic() - began < 20:
                connection.sendall(b" ")
                time.sleep(0.1)
        except OSError:
            pass
    assert time.monotonic() - began < 15


def test_many_idle_connections_do_not_keep_others_out(small: Served) -> None:
    idle = [socket.create_connection(("127.0.0.1", small.port)) for _ in range(200)]
    try:
        for connection in idle[::2]:
            connection.sendall(b"GET /healthz HT")
        assert small.get("/healthz").status_code == 200
    finally:
        for connection in idle:
            connection.close()


def test_a_deep_or_odd_body_is_no_500(small: Served) -> None:
    bodies = [b"[" * 50_000, b'{"name":' * 10_000, b'{"a":1' + b"0" * 5000 + b"}", b'{"name":"f","name":5}', b'{"":{}}']
    for body in bodies:
        for path in ("/register_function", "/v1/tasks", "/v1/tasks:batch"):
            answer = small.post(path, data=body, headers={"Content-Type": "application/json"})
            assert_error(answer, 422, "invalid_request")
    packed = [
        b"\x91" * 50_000,
        b"\x81\x91\x01\x02",
        b"\x81\xcb\x7f\xf8" + b"\x00" * 6 + b"\x01",
        b"\xdd\xff\xff\xff\xff",
        b"\xc1",
    ]
    for body in packed:
        answer = small.post("/v1/functions", data=body, headers={"Content-Type": "application/msgpack"})
        assert_error(answer, 422, "invalid_request")
