"""waitress's connection, made to answer its own errors in our shape, and to keep a few more promises.

A body over the limit is refused without being read to its end; so that the client sees the answer rather than a reset
connection, what it still sends is thrown away for a bounded time (a lingering close). A request that trickles in is
given a bounded time, and so is a client that takes nothing of an answer that is still being made.
"""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Iterator
from typing import Any, Final

from waitress.channel import HTTPChannel
from waitress.parser import HTTPRequestParser
from waitress.receiver import ChunkedReceiver
from waitress.task import ErrorTask, WSGITask
from waitress.utilities import BadRequest

from everfaas_core.api.errors import ApiError
from everfaas_core.api.loop import Loop
from everfaas_core.api.outgoing import OutgoingBytes
from everfaas_core.api.security import HEADERS, error_bytes

CHUNK_LINE_BYTES_MAX: Final = 4096  # a chunk's size line; waitress itself would buffer one without end
TRAILER_BYTES_MAX: Final = 16 * 1024
LINGER_S: Final = 5.0
JOINED_BYTES_MAX: Final = 64 * 1024  # a first piece up to this size is joined with its header; a larger one not copied

_REMEDIES: Final = {
    413: ("too_large", "the body is larger than the limit", "send less in one request, or raise the limit of the API"),
    431: ("headers_too_large", "the header fields are larger than the limit", None),
    501: ("not_implemented", "that transfer encoding is not supported", "send the body plainly or chunked"),
    500: ("internal", "the server made a mistake; its log says more", None),
}


class Shutdown:
    """Shared by a server and its connections: `begun` makes each connection close after its present answer."""

    def __init__(self) -> None:
        self.begun = False


class Parser(HTTPRequestParser):  # type: ignore[misc]  # waitress ships no types
    """Bounds what waitress leaves unbounded, and never invites a body that it has refused."""

    completed: bool

    def received(self, data: bytes) -> int:
        """Take bytes; return how many belong to this request."""
        consumed: int = super().received(data)
        body = self.body_rcv
        if isinstance(body, ChunkedReceiver) and not self.completed and _too_long(body):
            self.error = BadRequest("a chunk's size line or the trailer is too long")
            self.completed = True
        if self.error is not None:
            self.expect_continue = False  # else "100 Continue" is sent, and the body read after all
        return consumed


def _too_long(body: ChunkedReceiver) -> bool:
    return len(body.control_line) > CHUNK_LINE_BYTES_MAX or len(body.trailer) > TRAILER_BYTES_MAX


class RefusalTask(ErrorTask):  # type: ignore[misc]  # waitress ships no types
    """Answers what never reached the application."""

    def execute(self) -> None:
        """Write the answer."""
        error = self.request.error
        code, message, hint = _REMEDIES.get(error.code, ("malformed_request", f"not HTTP: {error.body}", None))
        refusal = ApiError(str(message)[:300], hint=hint)
        refusal.code = code  # type: ignore[misc]  # this one's alone
        body = error_bytes(refusal)
        self.status = f"{error.code} {error.reason}"
        self.response_headers.extend([("Content-Type", "application/json"), *HEADERS])
        self.set_close_on_finish()
        self.content_length = len(body)
        self.write(body)


class RequestTask(WSGITask):  # type: ignore[misc]  # waitress ships no types
    """A request for the application."""

    def build_response_header(self) -> bytes:
        """Announce the end of the connection when the server shuts down."""
        if self.channel.shutdown.begun:
            self.set_close_on_finish()
        header: bytes = super().build_response_header()
        return header

    def write(self, data: bytes) -> None:
        """Send a piece of the answer, the first one together with the header: the client is woken once."""
        if self.wrote_header or len(data) > JOINED_BYTES_MAX:
            super().write(data)
        else:
            with self.channel.joined():
                super().write(data)


class Connection(HTTPChannel):  # type: ignore[misc]  # waitress ships no types
    """One client's connection."""

    will_close: bool
    close_when_flushed: bool
    _pieces: list[bytes] | None = None  # of an answer's beginning, while they are being joined
    parser_class = Parser
    task_class = RequestTask
    error_task_class = RefusalTask

    def __init__(
        self, *args: Any, shutdown: Shutdown, loop: Loop, receive_s_max: float, send_s_max: float, **kwargs: Any
    ) -> None:
        self.shutdown = shutdown
        self._loop = loop
        self._receive_s_max = receive_s_max
        self._send_s_max = send_s_max
        self._receiving_since: float | None = None
        self._refused = False  # what comes in after a refusal is thrown away
        self._linger_until: float | None = None
        super().__init__(*args, **kwargs)

    def add_channel(self, map: dict[int, Any] | None = None) -> None:  # noqa: A002  # waitress's name
        """Begin to be watched; called when it is made."""
        super().add_channel(map)
        self._loop.add(self)

    def del_channel(self, map: dict[int, Any] | None = None) -> None:  # noqa: A002  # waitress's name
        """Be watched no more; called before it is closed."""
        self._loop.forget(self)
        super().del_channel(map)

    def busy(self) -> bool:
        """Tell whether a request is coming in, running, or being answered."""
        receiving = self.request is not None and not self._refused
        return bool(self.requests or self.total_outbufs_len or receiving) and self._linger_until is None

    def received(self, data: bytes) -> bool:
        """Take what has come in; called by the server's thread."""
        if self._refused:
            return True
        accepted: bool = super().received(data)
        if self.request is None:
            self._receiving_since = None
        elif self._receiving_since is None:
            self._receiving_since = time.monotonic()
        return accepted

    @property
    def timed(self) -> bool:
        """Whether it has a deadline, so that the loop has to look at it now and then."""
        return self._receiving_since is not None or self._linger_until is not None or self._blocked

    @property
    def _blocked(self) -> bool:
        """Whether a request is being answered whose client has to take something first."""
        return bool(self.requests and self.total_outbufs_len)

    def give_up(self) -> None:
        """Close at once if a thread may be waiting for the client to take something. Called when the loop has ended."""
        if self._blocked:
            self.handle_close()

    def service(self) -> None:
        """Run the oldest request; called by one of the server's threads."""
        self._refused = self._refused or self.requests[0].error is not None
        with self._loop.serving(self):
            super().service()

    def readable(self) -> bool:
        """Tell whether to read on; the loop asks now and then, so deadlines are looked at here."""
        if self._linger_until is not None:
            self.will_close = self.will_close or time.monotonic() > self._linger_until
            return not self.will_close
        if self._receiving_since is not None and time.monotonic() - self._receiving_since > self._receive_s_max:
            self.will_close = True
        if self._blocked and not self.will_close and time.time() - self.last_activity > self._send_s_max:
            # It can't be written to, so nothing would tell the loop that it is to be closed: a hang-up does.
            self.will_close = True
            with contextlib.suppress(OSError):
                self.socket.shutdown(socket.SHUT_RDWR)
        return bool(super().readable())

    @contextlib.contextmanager
    def joined(self) -> Iterator[None]:
        """Send what is written meanwhile in one piece. Called by the thread that answers."""
        pieces: list[bytes] = []
        self._pieces = pieces
        try:
            yield
        finally:
            self._pieces = None
        self.write_soon(b"".join(pieces))

    def write_soon(self, data: Any) -> int:
        """Send, or keep to be sent together with what comes next. Raises ClientDisconnected."""
        if self._pieces is not None:
            self._pieces.append(data)
            return len(data)
        if isinstance(data, bytes) and len(data) > JOINED_BYTES_MAX:
            data = OutgoingBytes(data)
        written: int = super().write_soon(data)
        return written

    def _flush_outbufs_below_high_watermark(self) -> None:
        """Wait, in a request's thread, until a slow client has taken enough; without keeping others from theirs."""
        if self.total_outbufs_len > self.adj.outbuf_high_watermark:
            with self.server.task_dispatcher.away():
                super()._flush_outbufs_below_high_watermark()

    def handle_write(self) -> None:
        """Send what there is; after a refusal, linger instead of closing."""
        if not (self._refused and self.close_when_flushed) or self.will_close:
            super().handle_write()
            return
        self._flush_exception(self._flush_some)
        if not self.total_outbufs_len and not self.will_close:
            self.close_when_flushed = False
            self._linger_until = time.monotonic() + LINGER_S
            try:
                self.socket.shutdown(socket.SHUT_WR)
            except OSError:  # it has gone already
                self.will_close = True
