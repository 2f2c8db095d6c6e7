"""`/v1/tasks/<id>/logs`: what a task has printed, and with `follow` what it prints."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack
from typing import Any, Final

import flask
from msgspec import Struct

from everfaas_core.api.answers import LogLine
from everfaas_core.api.context import ApiContext, gone_check, path_task_id
from everfaas_core.api.errors import TooManyWaiters
from everfaas_core.api.frames import NDJSON, Form
from everfaas_core.api.hub import Waiter
from everfaas_core.api.negotiation import MSGPACK, wants_msgpack
from everfaas_core.api.openapi import Fields, Resource, invalid
from everfaas_core.api.schemas import LogQuery
from everfaas_core.model.errors import StoreUnavailable
from everfaas_core.model.ids import TaskId
from everfaas_core.model.output import LogPage
from everfaas_core.model.states import TERMINAL, Status

PAGE_BYTES: Final = 256 * 1024  # of text; a page holds one piece more at most
RETRY_S: Final = 1.0  # between reads while the store is away

_log = logging.getLogger(__name__)


class Wish(Struct, frozen=True):
    """What one client asked for."""

    task_id: TaskId
    form: Form
    cursor: str | None
    attempt: int | None
    wait_s: float


class LogRoutes:
    """The logs of tasks."""

    def __init__(self, context: ApiContext) -> None:
        self._context = context

    def resource(self) -> Resource:
        """Return the call."""
        routes = Resource("logs", __name__, description="What tasks print.")
        routes.call(
            "GET",
            "/v1/tasks/<task_id>/logs",
            self.read_log,
            query=LogQuery,
            returns=LogLine,
            kinds=(NDJSON, MSGPACK),
            errors=(404, 410, 429),
        )
        return routes

    def read_log(self, task_id: str, query: Fields) -> flask.Response:
        """Return what a task has printed, in order: lines of JSON, or msgpack objects.

        With `follow`, what it prints from now on comes as it is printed, until the task has ended. Each object has a
        `cursor`; a log that begins with it goes on behind that object. The last object has `end`, which says why it is
        the last: `done` (the task has ended, and this was all), `time` (there may be more later), `drain` (the server
        is going) or `error`. A log without it was cut. Blank lines (nil in msgpack) say that the server is there.
        """
        known_id = path_task_id(task_id)
        follows = query["follow"] in ("1", "true")
        wish = Wish(
            task_id=known_id,
            form=Form(wants_msgpack()),
            cursor=query.get("cursor"),
            attempt=query.get("attempt"),
            wait_s=self._context.waiting.bounded_s(query["wait_s"]) if follows else 0.0,
        )
        stream = self._stream(wish) if wish.wait_s else self._begun(wish, None)
        body: Any = stream if wish.wait_s else b"".join(stream)
        if flask.request.method == "HEAD" and wish.wait_s:
            stream.close()
            body = []
        response = flask.Response(body, content_type=wish.form.content_type)
        response.headers["Vary"] = "Accept"
        if wish.wait_s:
            response.headers["X-Accel-Buffering"] = "no"  # a proxy that collects lines would keep them from the client
        return response

    def _stream(self, wish: Wish) -> LogStream:
        """Take a place and read the first page, so that whatever is wrong is an answer of its own, not a stream."""
        context = self._context
        with ExitStack() as stack:
            if not stack.enter_context(context.waiting.stream_permit()):
                raise TooManyWaiters(
                    "all places for streams are taken", hint="read logs without `follow`, or ask again later"
                )
            waiter = stack.enter_context(context.hub.waiter([wish.task_id], reads_along=True))
            stream = self._begun(wish, waiter)
            stream.held = stack.pop_all()
        return stream

    def _begun(self, wish: Wish, waiter: Waiter | None) -> LogStream:
        stream = LogStream(self._context, wish, waiter, gone_check())
        try:
            found = stream.begin()
        except ValueError:
            text = "Is not one that a log has given. Leave it out to begin with what is kept."
            raise invalid("the query", {"cursor": text}) from None
        if not found:
            raise self._context.absent(wish.task_id)
        return stream


class LogStream:
    """One client's log, iterated by the thread of its request; `held` is given back by `close`.

    Without a waiter it ends with what there is.
    """

    def __init__(
        self,
        context: ApiContext,
        wish: Wish,
        waiter: Waiter | None,
        gone: Callable[[], bool],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = context.store
        self._hub = context.hub
        self._settings = context.settings
        self._wish = wish
        self._waiter = waiter
        self._gone = gone
        self._clock = clock
        self._deadline = clock() + wish.wait_s
        self._cursor = wish.cursor or "0-0"
        self._status: Status | None = None
        self._page: LogPage | None = None
        self._frames = self._run()
        self.held = ExitStack()

    def begin(self) -> bool:
        """Read the first page; False: there is no such task.

        Raises StoreUnavailable, StoreRefused, or ValueError for a cursor that is none.
        """
        self._read()
        return self._page is not None

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        return next(self._frames)

    def close(self) -> None:
        """Give back what the stream holds, also if nobody has iterated over it. Idempotent."""
        self._frames.close()
        self.held.close()

    def _run(self) -> Generator[bytes, None, None]:
        sent_at = self._clock()
        if self._waiter is not None and self._page is not None and not self._page.pieces:
            yield self._wish.form.heartbeat  # so that the client has the answer's head, and knows that it is heard
        while True:
            page = self._page
            if page is not None and page.pieces:
                yield self._wish.form.pieces(page.pieces, self._cursor)
                self._cursor = page.cursor
                sent_at = self._clock()
            end = self._end()
            if end is not None:
                yield self._last(end)
                return
            if page is None or not page.more:
                self._rest()
                if self._gone():
                    return
                if self._clock() - sent_at >= self._settings.heartbeat_s:
                    yield self._wish.form.heartbeat
                    sent_at = self._clock()
            try:
                if not self._read():
                    yield self._last("done")  # its record was deleted meanwhile
                    return
            except StoreUnavailable:  # a stream outlives it: what it can't read now, it reads when the store is back
                if self._waiter is None:
                    raise
                self._page = None
            except Exception:  # noqa: BLE001  # the answer has begun, so no handler of errors can give another
                _log.exception("a log failed")
                yield self._last("error")
                return

    def _end(self) -> str | None:
        """Tell why the log is over, if it is. As long as there is something to read, its time is not."""
        page = self._page
        if self._waiter is not None and self._hub.draining:
            return "drain"
        if page is not None and page.more:
            return None
        if page is not None and self._status in TERMINAL:
            return "done"
        return "time" if self._waiter is None or self._clock() >= self._deadline else None

    def _rest(self) -> None:
        """Wait until there is something to read, or to say."""
        longest_s = min(self._settings.heartbeat_s, self._settings.reread_s)
        if self._page is None:
            longest_s = min(longest_s, RETRY_S)
        if self._waiter is not None:
            self._waiter.wait(min(longest_s, max(0.0, self._deadline - self._clock())))

    def _read(self) -> bool:
        self._page = self._store.task_log(
            self._wish.task_id, self._cursor, bytes_max=PAGE_BYTES, attempt=self._wish.attempt
        )
        if self._page is not None:
            self._status = self._page.status
        return self._page is not None

    def _last(self, end: str) -> bytes:
        return self._wish.form.one({"end": end, "status": self._status, "cursor": self._cursor})
