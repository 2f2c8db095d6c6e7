"""The exchange with an API: kept-alive connections, msgpack both ways, errors that name the remedy."""

from __future__ import annotations

import http.client
import os
import select
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import quote, urlencode, urlsplit

import msgspec

from everfaas_core.client.errors import ApiFailed, ApiRefused, ApiUnreachable
from everfaas_core.client.frames import Frames
from everfaas_core.model.errors import ConfigError

DEFAULT_URL: Final = "http://127.0.0.1:8000"
URL_VARIABLE: Final = "EVERFAAS_URL"
CONNECT_S_MAX: Final = 5.0
TIMEOUT_S: Final = 90.0
"""For one exchange; the longest wait that a server grants is a minute."""

SILENCE_S_MAX: Final = 20.0
"""A stream says every 5 s that it is there; one that has said nothing for so long is dead."""

IDLE_MAX: Final = 8  # connections that are kept while nobody uses them
JOINED_BYTES_MAX: Final = 64 * 1024
READ_BYTES: Final = 256 * 1024

MSGPACK: Final = "application/msgpack"
_HEADERS: Final[Mapping[str, str]] = {"Content-Type": MSGPACK, "Accept": MSGPACK}

_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder().decode


class _Connection(http.client.HTTPConnection):
    """Sends a request's header and its body, if that is small, in one piece: the server is woken once."""

    _pieces: list[bytes] | None = None
    fresh = True  # nothing was asked on it yet

    def connect(self) -> None:
        """Connect within CONNECT_S_MAX, then wait for answers as long as was set. Raises OSError."""
        patience_s, self.timeout = self.timeout, CONNECT_S_MAX
        try:
            super().connect()
        finally:
            self.timeout = patience_s
        self.sock.settimeout(patience_s)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def request(self, method: str, url: str, *args: Any, **kwargs: Any) -> None:
        """Send a request. Raises OSError and HTTPException."""
        self._pieces = []
        try:
            super().request(method, url, *args, **kwargs)
        finally:
            pieces, self._pieces = self._pieces, None
        if sum(map(len, pieces)) <= JOINED_BYTES_MAX:
            pieces = [b"".join(pieces)]
        for piece in pieces:
            self.send(piece)

    def send(self, data: Any) -> None:
        """Send now, or with the rest of the request."""
        if self._pieces is None:
            super().send(data)
        else:
            self._pieces.append(data)

    def patient(self, timeout_s: float) -> None:
        """Wait so long for each piece of an answer."""
        self.timeout = timeout_s
        if self.sock is not None:
            self.sock.settimeout(timeout_s)

    def stale(self) -> bool:
        """Tell whether the other side has closed (or said something unasked) while nobody used it."""
        if self.sock is None:
            return True
        poll = select.poll()
        poll.register(self.sock, select.POLLIN)
        return bool(poll.poll(0))


class _TlsConnection(_Connection, http.client.HTTPSConnection):
    """The same over TLS."""


class Api:
    """The API at one address. Any number of threads may call; each exchange has a connection to itself.

    A context manager. Connects with the first call.
    """

    def __init__(self, url: str | None = None) -> None:
        """Take `url`, or EVERFAAS_URL, or the default. Raises ConfigError for what is no address."""
        self.url = (url or os.environ.get(URL_VARIABLE) or DEFAULT_URL).rstrip("/")
        try:
            parts = urlsplit(self.url)
            host, port = parts.hostname, parts.port
        except ValueError:
            host = port = None
        if not host or parts.scheme not in ("http", "https"):
            raise ConfigError(f"'{self.url}' is not the API's address", hint=f"for example {DEFAULT_URL}")
        kind = _TlsConnection if parts.scheme == "https" else _Connection
        self._connect: Callable[[], _Connection] = lambda: kind(host, port, timeout=TIMEOUT_S)
        self._prefix = parts.path
        self._lock = threading.Lock()
        self._idle: list[_Connection] = []
        self._owner = os.getpid()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def get(self, path: str, query: Mapping[str, Any] | None = None, *, timeout_s: float = TIMEOUT_S) -> Any:
        """Return the body of an answer, decoded. Raises ApiUnreachable or ApiRefused."""
        return self._exchange("GET", path + query_text(query), None, timeout_s, once=False)

    def post(
        self, path: str, body: Mapping[str, Any] | None = None, *, timeout_s: float = TIMEOUT_S, once: bool = False
    ) -> Any:
        """Return the body of the answer to a body, decoded. Raises ApiUnreachable or ApiRefused.

        `once`: repeating it would do it twice, so it is not sent again when a kept connection turns out to be dead.
        """
        return self._exchange("POST", path, _encode(body or {}), timeout_s, once)

    def head(self, path: str) -> Mapping[str, str]:
        """Return the header of an answer, for what only that tells: the server's `Date`. Raises ApiUnreachable."""
        connection = self._connect()
        try:
            connection.request("HEAD", self._prefix + path, None, _HEADERS)
            return dict(connection.getresponse().headers.items())
        except (OSError, http.client.HTTPException) as error:
            raise self._unreachable(error) from error
        finally:
            connection.close()

    def stream(self, path: str, query: Mapping[str, Any] | None = None) -> ApiStream:
        """Open an answer of many objects. Raises ApiUnreachable or ApiRefused."""
        connection = self._connect()
        connection.patient(SILENCE_S_MAX)
        try:
            connection.request("GET", self._prefix + path + query_text(query), None, _HEADERS)
            used = connection.sock  # the connection forgets it when the server will close it behind the answer
            answer = connection.getresponse()
            if answer.status >= http.client.BAD_REQUEST:
                raise self._refusal(answer, answer.read())
            if answer.headers.get_content_type() != MSGPACK:
                raise self._stranger(f"it sent {answer.headers.get_content_type()}")
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            raise self._unreachable(error) from error
        except ApiFailed:
            connection.close()
            raise
        return ApiStream(self, connection, used, answer)

    def close(self) -> None:
        """Close the connections that nobody uses. Idempotent; a later call connects anew."""
        with self._lock:
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    # ── inside ───────────────────────────────────────────────────────────────────────────────────────────────────────

    def _exchange(self, method: str, path: str, body: bytes | None, timeout_s: float, once: bool) -> Any:
        while True:
            connection = self._take()
            first = connection.fresh
            connection.fresh = False
            try:
                connection.patient(timeout_s)
                connection.request(method, self._prefix + path, body, _HEADERS)
                answer = connection.getresponse()
                content = answer.read()
                break
            except (OSError, http.client.HTTPException) as error:
                connection.close()
                # A kept connection may have been closed while the request was under way: that says nothing of the API.
                if first or once or isinstance(error, TimeoutError):
                    raise self._unreachable(error) from error
            except BaseException:  # Ctrl-C in mid-answer: what is left of it must not be read as the next one's
                connection.close()
                raise
        if answer.will_close:
            connection.close()
        else:
            self._give_back(connection)
        if answer.status >= http.client.BAD_REQUEST:
            raise self._refusal(answer, content)
        return self._decoded(answer, content)

    def _take(self) -> _Connection:
        with self._lock:
            if self._owner != os.getpid():  # after a fork: the connections are the parent's
                self._owner = os.getpid()
                self._idle = []
            while self._idle:
                connection = self._idle.pop()
                if not connection.stale():
                    return connection
                connection.close()
        return self._connect()

    def _give_back(self, connection: _Connection) -> None:
        with self._lock:
            if len(self._idle) < IDLE_MAX:
                self._idle.append(connection)
                return
        connection.close()

    def _decoded(self, answer: http.client.HTTPResponse, content: bytes) -> Any:
        try:
            if answer.headers.get_content_type() == MSGPACK:
                return _decode(content)
            return msgspec.json.decode(content)
        except msgspec.DecodeError:
            raise self._stranger("its answer does not decode") from None

    def _unreachable(self, error: Exception) -> ApiUnreachable:
        return ApiUnreachable(
            f"no API answers at {self.url}: {str(error) or type(error).__name__}",
            hint="start one with `everfaas up`, or name it: --url URL, Client(url) or EVERFAAS_URL",
        )

    def _stranger(self, what: str) -> ApiUnreachable:
        return ApiUnreachable(
            f"what answers at {self.url} is not this API: {what}",
            hint="name the API's address: --url URL, Client(url) or EVERFAAS_URL",
        )

    def _refusal(self, answer: http.client.HTTPResponse, content: bytes) -> ApiFailed:
        for decode in (msgspec.msgpack.decode, msgspec.json.decode):
            try:
                said = decode(content, type=_Refusal).error
            except msgspec.MsgspecError:
                continue
            text = f"the API refused ({answer.status}): {said.message}"
            after = answer.headers.get("Retry-After", "")
            return ApiRefused(
                text,
                status=answer.status,
                reason=said.code,
                hint=said.hint,
                details=said.details,
                retry_after_s=float(after) if after.isdigit() else None,
            )
        return self._stranger(f"status {answer.status}")


class ApiStream:
    """Objects as they come; None says that the server is still there. One thread iterates, any may `close`."""

    def __init__(
        self, api: Api, connection: _Connection, used: socket.socket | None, answer: http.client.HTTPResponse
    ) -> None:
        self._api = api
        self._connection = connection
        self._answer = answer
        self._socket = used
        self._frames = Frames()
        self._closed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
        self._answer.close()
        self._connection.close()

    def __iter__(self) -> Iterator[Any]:
        """Iterate over the objects, until the answer is over. Raises ApiUnreachable when it is cut; not when closed."""
        for objects in self.batches():
            yield from objects

    def batches(self) -> Iterator[list[Any]]:
        """The same, in lists of what came together."""
        try:
            while data := self._answer.read1(READ_BYTES):
                found = list(self._frames.feed(data))
                if found:
                    yield found
        except (OSError, http.client.HTTPException, ValueError) as error:
            if not self._closed:
                raise self._api._unreachable(error) from error

    def close(self) -> None:
        """End it, from whatever thread: whoever iterates sees its end."""
        self._closed = True
        if self._socket is not None:
            try:
                self._socket.shutdown(socket.SHUT_RDWR)
            except OSError:  # it has ended
                self._socket = None


class _Error(msgspec.Struct):
    message: str
    code: str = ""
    hint: str | None = None
    details: dict[str, Any] | None = None


class _Refusal(msgspec.Struct):
    error: _Error


def query_text(query: Mapping[str, Any] | None) -> str:
    """Return `?name=value…` of what is not None; "" if nothing is."""
    if not query:
        return ""
    words = {
        name: ("true" if value else "false") if isinstance(value, bool) else value
        for name, value in query.items()
        if value is not None
    }
    return f"?{urlencode(words)}" if words else ""


def segment(text: str) -> str:
    """Return a text as one segment of a path."""
    return quote(text, safe="")
