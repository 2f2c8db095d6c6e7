"""Connections to one server: a bounded pool, pipelines of script calls, and errors in our own words.

redis-py gives us the connection (login, TLS, parsing). Its client and pools are not used: they repeat commands by
themselves, and cost more per call than a script that handles a hundred tasks.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Sequence
from typing import Any, Final

from msgspec import Struct
from redis import exceptions
from redis.backoff import NoBackoff
from redis.connection import Connection, PythonRespSerializer, SSLConnection, UnixDomainSocketConnection
from redis.retry import Retry

from everfaas_core.model.errors import EverfaasError, StoreRefused, StoreUnavailable

from .address import Address
from .scripts import load_scripts

CONNECTIONS_MAX: Final = 32
CONNECT_TIMEOUT_S: Final = 1.0
SOCKET_TIMEOUT_S: Final = 1.5
POOL_WAIT_S: Final = 0.4  # for a connection that others use; together with a timeout it stays under 2 s
HEALTH_CHECK_S: Final = 15
LARGE_BYTES: Final = 64 * 1024  # arguments from this size on are sent from where they are: hiredis would copy them
READ_BYTES: Final = 256 * 1024  # of one receive
SEND_BYTES: Final = 1024 * 1024  # each piece has a timeout of its own, so that a large batch can't run into one

_CLASSES: Final = {"redis": Connection, "rediss": SSLConnection, "unix": UnixDomainSocketConnection}
_PASSING: Final = {  # errors that may go away, by the word they begin with, and the remedy
    "MISCONF": "it can't write to its disk: make room there, and see its log",
    "NOREPLICAS": "too few of its replicas are connected: start them, or lower its min-replicas-to-write",
    "BUSY": "a script keeps it busy: see its log",
    "UNKILLABLE": "a script keeps it busy: see its log",
    "MASTERDOWN": "it is a replica that lost its primary: --store must name the primary",
    "READONLY": "it is a read-only replica, perhaps since a failover: --store must name the primary",
    "OOM": "raise its maxmemory, or keep results for less long",
}
_CLASSES_PASSING: Final = {  # redis-py takes these words away
    exceptions.MasterDownError: "MASTERDOWN",
    exceptions.ReadOnlyError: "READONLY",
    exceptions.OutOfMemoryError: "OOM",
}
_START_HINT: Final = "`everfaas store` starts one; --store URL names another"


class Call(Struct, frozen=True):
    """One run of a script with its arguments, the key prefix not among them."""

    script: str
    arguments: Sequence[str | bytes | int | float]


class Server:
    """Runs commands on the server at `address`. Safe to use from any thread."""

    def __init__(self, address: Address) -> None:
        self.prefix = address.prefix
        self.shown = address.shown
        self._class: type[Any] = _CLASSES[address.scheme]
        self._settings = address.settings
        self._scripts = load_scripts()
        self._free = threading.BoundedSemaphore(CONNECTIONS_MAX)
        self._lock = threading.Lock()
        self._idle: list[Any] = []
        self._closed = threading.Event()

    def connect(self) -> Any:
        """Return a new connection that belongs to the caller. Raises StoreUnavailable or StoreRefused."""
        connection = self._make()
        try:
            connection.connect()
        except (exceptions.RedisError, OSError) as error:
            raise self.explain(error) from error
        return connection

    def load(self) -> None:
        """Make the server know all scripts, so that calls need only name them."""
        for reply in self.commands([("SCRIPT", "LOAD", script.text) for script in self._scripts.values()]):
            self._check(reply)

    def command(self, *arguments: str | bytes | int) -> Any:
        """Run one command and return its reply. Raises StoreUnavailable or StoreRefused."""
        return self._check(self.commands([arguments])[0])

    def run(self, *calls: Call) -> list[Any]:
        """Run scripts, one after the other, in one round trip, and return their replies.

        Scripts that the server has lost (restart, SCRIPT FLUSH) are sent again. Raises StoreUnavailable or
        StoreRefused when any of them failed; others may have been run.
        """
        named = [("EVALSHA", self._scripts[call.script].sha, 0, self.prefix, *call.arguments) for call in calls]
        replies = self.commands(named)
        lost = [i for i, reply in enumerate(replies) if isinstance(reply, exceptions.NoScriptError)]
        if lost:
            whole = [("EVAL", self._scripts[calls[i].script].text, *named[i][2:]) for i in lost]
            for i, reply in zip(lost, self.commands(whole), strict=True):
                replies[i] = reply
        return [self._check(reply) for reply in replies]

    def commands(self, commands: Sequence[Sequence[str | bytes | int | float]]) -> list[Any]:
        """Send commands in one pipeline and return their replies; errors of single ones stand among them."""
        with self._borrowed() as connection:
            packed = _sliced(_packed(connection, commands))
            try:
                connection.send_packed_command(packed)
                return [_read(connection) for _ in commands]
            except (exceptions.RedisError, OSError) as error:
                self._drop_idle()  # they lead to the same server: the next call tries a fresh one
                raise self.explain(error) from error

    def explain(self, error: Exception) -> EverfaasError:
        """Turn redis-py's error into ours, with a remedy."""
        text = str(error).rstrip(".")
        if isinstance(error, exceptions.InvalidResponse):
            return StoreRefused(
                f"what listens at {self.shown} is not a Redis or Valkey server", hint=f"check the port; {_START_HINT}"
            )
        if isinstance(error, exceptions.AuthenticationError | exceptions.NoPermissionError):
            return StoreRefused(
                f"the store at {self.shown} refused our login: {text}",
                hint="put the user and password into the URL, redis://USER:PASSWORD@HOST:PORT/0",
            )
        if isinstance(error, exceptions.TimeoutError | TimeoutError):
            return StoreUnavailable(f"the store at {self.shown} did not answer in time", hint=_START_HINT)
        if isinstance(error, exceptions.BusyLoadingError):
            return StoreUnavailable(f"the store at {self.shown} is loading its data", hint="it will be there soon")
        if isinstance(error, exceptions.ConnectionError | OSError):
            return StoreUnavailable(f"no connection to the store at {self.shown}: {text}", hint=_START_HINT)
        word = _CLASSES_PASSING.get(type(error)) or text.partition(" ")[0]
        if word == "OOM":
            return StoreUnavailable(f"the store at {self.shown} is out of memory", hint=_PASSING[word])
        if word in _PASSING:
            return StoreUnavailable(f"the store at {self.shown} can't accept changes now: {text}", hint=_PASSING[word])
        return StoreRefused(f"the store at {self.shown} answered with an error: {text}", hint="see its log")

    def close(self) -> None:
        """Close all connections; those in use as soon as they come back. Idempotent."""
        self._closed.set()
        self._drop_idle()

    def _check(self, reply: Any) -> Any:
        if isinstance(reply, Exception):
            raise self.explain(reply) from reply
        return reply

    def _make(self) -> Any:
        return self._class(
            **self._settings,
            socket_timeout=SOCKET_TIMEOUT_S,
            socket_connect_timeout=CONNECT_TIMEOUT_S,
            health_check_interval=HEALTH_CHECK_S,
            retry=Retry(NoBackoff(), 0),
            protocol=2,
            socket_read_size=READ_BYTES,
        )

    @contextlib.contextmanager
    def _borrowed(self) -> Iterator[Any]:
        if self._closed.is_set():
            raise StoreUnavailable("the store was closed", hint="this process is ending")
        if not self._free.acquire(timeout=POOL_WAIT_S):
            raise StoreUnavailable(
                f"all {CONNECTIONS_MAX} connections to the store at {self.shown} are in use", hint="try again"
            )
        try:
            connection = self._pop_idle() or self._make()
            try:
                yield connection
            except BaseException:
                connection.disconnect()  # replies may be outstanding
                raise
            with self._lock:
                self._idle.append(connection)
        finally:
            self._free.release()
        if self._closed.is_set():
            self._drop_idle()

    def _pop_idle(self) -> Any | None:
        """Return a connection that is still good, if there is one; those closed by the server are dropped."""
        while True:
            with self._lock:
                connection = self._idle.pop() if self._idle else None
            if connection is None:
                return None
            with contextlib.suppress(exceptions.RedisError, OSError):
                if not connection.can_read(timeout=0):
                    return connection
            connection.disconnect()

    def _drop_idle(self) -> None:
        with self._lock:
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.disconnect()


def _packed(connection: Any, commands: Sequence[Sequence[str | bytes | int | float]]) -> list[Any]:
    """Return commands as they are sent, in pieces."""
    pieces: list[Any] = []
    small: list[Sequence[str | bytes | int | float]] = []
    for command in commands:
        if any(isinstance(part, bytes) and len(part) >= LARGE_BYTES for part in command):
            if small:
                pieces += connection.pack_commands(small)
                small = []
            packer: Any = PythonRespSerializer(LARGE_BYTES, connection.encoder.encode)
            pieces += packer.pack(*command)
        else:
            small.append(command)
    return pieces + connection.pack_commands(small) if small else pieces


def _read(connection: Any) -> Any:
    try:
        return connection.read_response()
    except exceptions.ResponseError as error:
        return error


def _sliced(packed: Sequence[bytes]) -> list[bytes | memoryview]:
    pieces: list[bytes | memoryview] = []
    for item in packed:
        if len(item) <= SEND_BYTES:
            pieces.append(item)
        else:
            view = memoryview(item)
            pieces += [view[start : start + SEND_BYTES] for start in range(0, len(item), SEND_BYTES)]
    return pieces
