"""Clients that wait, hundreds of them in one thread: raw sockets, one request each."""

from __future__ import annotations

import json
import selectors
import socket
import time
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import quote, urlsplit

READ_BYTES: Final = 65536
CONNECT_S: Final = 30.0


@dataclass
class Client:
    """One connection. `answer` is all that has come; `ended_at` is when the server closed, by the monotonic clock."""

    path: str
    expected: int  # results
    is_stream: bool
    answer: bytearray = field(default_factory=bytearray)
    ended_at: float | None = None
    problem: str = ""

    def verdict(self) -> str:
        """Return "" if the client got all that it waited for, else what it got instead."""
        if self.problem:
            return self.problem
        if self.ended_at is None:
            return "no answer"
        head, _, body = bytes(self.answer).partition(b"\r\n\r\n")
        if not head.startswith((b"HTTP/1.0 200", b"HTTP/1.1 200")):
            return head.split(b"\r\n")[0].decode() + " " + body.decode()[:200]
        if not self.is_stream:
            status = json.loads(body)["status"]
            return "" if status == "COMPLETED" else f"status {status}"
        lines = [json.loads(line) for line in body.splitlines() if line.strip()]
        results = {line["task_id"] for line in lines if line.get("status") == "COMPLETED"}
        end = lines[-1].get("end") if lines else None
        if end != "done" or len(results) != self.expected:
            return f"{len(results)} of {self.expected} results, end {end}"
        return ""


def poll(task_id: str, wait_s: float) -> Client:
    """Return a client that waits for one task."""
    return Client(f"/result/{task_id}?wait={wait_s:g}", 1, is_stream=False)


def stream(group: str, tasks: int, wait_s: float) -> Client:
    """Return a client that follows a group until all of its tasks have ended."""
    return Client(f"/v1/groups/{quote(group)}/results?until=done&wait_s={wait_s:g}", tasks, is_stream=True)


class Crowd:
    """All of them. `open` sends the requests, `attend` reads what comes."""

    def __init__(self, url: str, clients: list[Client]) -> None:
        parts = urlsplit(url)
        self._address = (parts.hostname or "", parts.port or 80)
        self._selector = selectors.DefaultSelector()
        self.clients = clients

    def open(self) -> None:
        """Connect them, one after the other, and send their requests."""
        for client in self.clients:
            connection = socket.create_connection(self._address, timeout=CONNECT_S)
            connection.sendall(f"GET {client.path} HTTP/1.0\r\nHost: {self._address[0]}\r\n\r\n".encode())
            connection.setblocking(False)
            self._selector.register(connection, selectors.EVENT_READ, client)

    def waiting(self) -> int:
        """How many have had no answer yet."""
        return sum(client.ended_at is None for client in self.clients)

    def attend(self, seconds: float) -> None:
        """Read for so long, or until all have been answered."""
        until = time.monotonic() + seconds
        while self.waiting() and (left_s := until - time.monotonic()) > 0:
            for key, _ in self._selector.select(left_s):
                self._read(key.fileobj, key.data)  # type: ignore[arg-type] # a socket, as registered

    def _read(self, connection: socket.socket, client: Client) -> None:
        try:
            part = connection.recv(READ_BYTES)
        except BlockingIOError:
            return
        except OSError as error:
            part, client.problem = b"", repr(error)
        client.answer += part
        if not part:
            client.ended_at = time.monotonic()
            self._selector.unregister(connection)
            connection.close()

    def close(self) -> None:
        """Hang up."""
        for key in list(self._selector.get_map().values()):
            key.fileobj.close()  # type: ignore[union-attr] # a socket
        self._selector.close()
