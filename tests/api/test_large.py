"""Large bodies and answers: byte for byte, and without temporary files on their way where memory will do."""

from __future__ import annotations

import socket
import tempfile
import time
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from everfaas_core.api.outgoing import OutgoingBytes
from everfaas_core.api.server import BODY_BYTES_IN_MEMORY
from tests.api.driving import FUNCTION, Served, TinyDispatcher

MSGPACK = {"Content-Type": "application/msgpack", "Accept": "application/msgpack"}
MIB = 2**20


def pickled(data: bytes) -> bytes:
    """Return a plausible pickle of bytes (protocol 3)."""
    return b"\x80\x03B" + len(data).to_bytes(4, "little") + data + b"."


def post(api: Served, path: str, body: object) -> dict[str, object]:
    answer = api.http.post(api.url + path, data=msgspec.msgpack.encode(body), headers=MSGPACK, timeout=60)
    assert answer.status_code in (200, 201), answer.content[:300]
    content: dict[str, object] = msgspec.msgpack.decode(answer.content)
    return content


@pytest.mark.parametrize("sizes", [[3 * MIB + 1, 5, 2 * MIB], [BODY_BYTES_IN_MEMORY + 7]])
def test_payloads_and_results_of_all_sizes_pass_unchanged(
    api: Served, dispatcher: TinyDispatcher, sizes: list[int]
) -> None:
    function_id = api.register(payload=FUNCTION)
    payloads = [pickled(bytes([number]) * size) for number, size in enumerate(sizes)]
    tasks = [{"function_id": function_id, "payload": payload} for payload in payloads]
    ids = post(api, "/v1/tasks:batch", {"tasks": tasks})["task_ids"]
    claimed = dispatcher.claim(10)
    assert [task.payload for task in claimed] == payloads
    for task in claimed:
        dispatcher.start(task)
        dispatcher.finish(task, result=task.payload[::-1])
    ended = post(api, "/v1/tasks:wait", {"task_ids": ids, "results": True})["ended"]
    assert isinstance(ended, list)
    assert [one["result"] for one in ended] == [payload[::-1] for payload in payloads]


def test_no_temporary_file_is_made(api: Served, dispatcher: TinyDispatcher, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[object] = []
    original = tempfile.TemporaryFile
    monkeypatch.setattr(tempfile, "TemporaryFile", _counted(original, made))
    test_payloads_and_results_of_all_sizes_pass_unchanged(api, dispatcher, [3 * MIB])
    assert not made
    test_payloads_and_results_of_all_sizes_pass_unchanged(api, dispatcher, [BODY_BYTES_IN_MEMORY + 1])
    assert len(made) == 1, "else nothing was counted above"


def _counted(original: Callable[..., Any], made: list[object]) -> Callable[..., Any]:
    def make(*args: Any, **kwargs: Any) -> Any:
        made.append(args)
        return original(*args, **kwargs)

    return make


def test_a_client_that_reads_slowly_gets_all_of_it(api: Served, dispatcher: TinyDispatcher) -> None:
    function_id = api.register(payload=FUNCTION)
    task_id = post(api, "/v1/tasks", {"function_id": function_id, "payload": pickled(b"x")})["task_id"]
    result = bytes(range(256)) * (6 * MIB // 256)
    assert dispatcher.run(1, result=result) == [task_id]
    fields = "Host: localhost\r\nAccept: application/msgpack\r\nConnection: close\r\n\r\n"
    request = f"GET /result/{task_id} HTTP/1.1\r\n{fields}"
    with socket.create_connection(("127.0.0.1", api.port), timeout=30) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16 * 1024)
        connection.sendall(request.encode())
        time.sleep(0.2)  # the server can't send on meanwhile
        received = bytearray()
        while part := connection.recv(300_000):
            received += part
    body = bytes(received).partition(b"\r\n\r\n")[2]
    assert msgspec.msgpack.decode(body)["result"] == result


def test_outgoing_bytes_give_what_is_left() -> None:
    out = OutgoingBytes(b"0123456789")
    assert (bytes(out.get(4)), len(out)) == (b"0123", 10)
    out.skip(3, True)
    assert (bytes(out.get(4)), len(out)) == (b"3456", 7)
    assert bytes(out.get(2, skip=True)) == b"34"
    assert (bytes(out.get()), len(out)) == (b"56789", 5)
    out.close()
    assert (bytes(out.get()), len(out)) == (b"", 0)
