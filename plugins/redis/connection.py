"""One connection to a server: hiredis packs commands and parses replies, the rest is a socket.

redis-py is not used. It would cost each process that talks to a store 8 MB and a tenth of a second for parts that we do
without (its client, its cluster, asyncio), and most of the time of a small command
(docs/decisions/0010-our-own-store-connection.md).

Errors are Python's own: OSError for a connection that can't be made or is lost, TimeoutError (one of them) for silence,
`ReplyError` for what the server says, `ProtocolError` when what it says is no RESP.
"""

from __future__ import annotations

import contextlib
import select
import socket
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from hiredis import ProtocolError, Reader, ReplyError, pack_command

__all__ = ["Connection", "LoginRefused", "ProtocolError", "ReplyError"]

RECEIVE_BYTES: Final = 64 * 1024
JOIN_BYTES_MAX: Final = 64 * 1024  # commands are joined up to this size
SEND_BYTES: Final = 1024 * 1024  # each piece has a timeout of its own, so that a large batch can't run into one

Argument = str | bytes | int | float

_NOTHING: Final = object()


class LoginRefused(ReplyError):
    """The server does not take the user and password of the URL."""


class Connection:
    """Blocking, one thread at a time. `settings` are those of an `Address`.

    After any error but a `ReplyError` replies may be outstanding: close it.
    """

    def __init__(self, settings: Mapping[str, Any], *, connect_s: float, reply_s: float) -> None:
        """Connect, log in, select the database. Raises what the module says, and LoginRefused."""
        self._reader = Reader()
        self._buffer = bytearray(RECEIVE_BYTES)
        self._reply: Any = _NOTHING
        self._socket = _open(settings, connect_s)
        try:
            self._socket.settimeout(reply_s)
            self._poll = select.poll()
            self._poll.register(self._socket, select.POLLIN)
            self._introduce(settings)
        except BaseException:
            self.close()
            raise

    def fileno(self) -> int:
        """Return the socket's descriptor."""
        return self._socket.fileno()

    def send(self, commands: Sequence[Sequence[Argument]]) -> None:
        """Send commands in one go."""
        for piece in _joined([_packed(command) for command in commands]):
            view = memoryview(piece)
            for start in range(0, len(view), SEND_BYTES):
                self._socket.sendall(view[start : start + SEND_BYTES])

    def receive(self) -> Any:
        """Return the next reply; what the server says is wrong is returned as a ReplyError, not raised."""
        reply = self._take()
        while reply is _NOTHING:
            count = self._socket.recv_into(self._buffer)
            if not count:
                raise ConnectionResetError("the server has closed the connection")
            self._reader.feed(self._buffer, 0, count)  # type: ignore[arg-type]  # it takes any buffer
            reply = self._take()
        self._reply = _NOTHING
        return reply

    def readable(self) -> bool:
        """Tell whether there is something to receive now, without waiting: a reply, part of one, or the end."""
        return self._take() is not _NOTHING or self._decrypted() or bool(self._poll.poll(0))

    def close(self) -> None:
        """Close it. Idempotent."""
        self._socket.close()

    def _decrypted(self) -> bool:
        """Tell whether TLS holds bytes back that the descriptor says nothing of."""
        pending = getattr(self._socket, "pending", None)
        return pending is not None and bool(pending())

    def _take(self) -> Any:
        """Look at the next reply that has come in completely."""
        if self._reply is _NOTHING:
            reply = self._reader.gets()
            if reply is not False:  # hiredis' word for "not yet"; no reply is False
                self._reply = reply
        return self._reply

    def _introduce(self, settings: Mapping[str, Any]) -> None:
        if "password" in settings:
            login = [settings["username"]] if "username" in settings else []
            self.send([("AUTH", *login, settings["password"])])
            reply = self.receive()
            if isinstance(reply, ReplyError):
                raise LoginRefused(str(reply))
        if settings["db"]:
            self.send([("SELECT", settings["db"])])
            reply = self.receive()
            if isinstance(reply, ReplyError):
                raise reply


def _packed(command: Sequence[Argument]) -> bytes:
    packed: bytes = pack_command(tuple(command))  # type: ignore[arg-type]  # its stub allows for one item only
    return packed


def _joined(packed: Sequence[bytes]) -> Iterator[bytes]:
    """Join small commands, and copy no large ones."""
    group: list[bytes] = []
    size_bytes = 0
    for item in packed:
        if group and size_bytes + len(item) > JOIN_BYTES_MAX:
            yield b"".join(group)
            group, size_bytes = [], 0
        group.append(item)
        size_bytes += len(item)
    yield b"".join(group)


def _open(settings: Mapping[str, Any], connect_s: float) -> socket.socket:
    if "path" in settings:
        made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            made.settimeout(connect_s)
            made.connect(settings["path"])
        except BaseException:
            made.close()
            raise
        return made
    made = socket.create_connection((settings["host"], settings["port"]), connect_s)
    try:
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in settings["keepalive"].items():
            with contextlib.suppress(OSError):
                made.setsockopt(socket.IPPROTO_TCP, option, value)
        return _encrypted(made, settings) if settings["tls"] else made
    except BaseException:
        made.close()
        raise


def _encrypted(plain: socket.socket, settings: Mapping[str, Any]) -> socket.socket:
    import ssl  # here, because few stores are behind TLS, and it takes 3 MB

    context = ssl.create_default_context(cafile=settings.get("ssl_ca_certs"))
    if settings.get("ssl_certfile"):
        context.load_cert_chain(settings["ssl_certfile"], settings.get("ssl_keyfile"))
    wanted = settings.get("ssl_cert_reqs", "required")
    if wanted != "required":
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE if wanted == "none" else ssl.CERT_OPTIONAL
    return context.wrap_socket(plain, server_hostname=settings["host"])
