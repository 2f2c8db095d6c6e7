"""`/v1/tasks/<id>/logs`: what a task has printed, and with `follow` what it prints."""

from __future__ import annotations

from collections.abc import Callable
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
from everfaas_core.api.streams import Stream
from everfaas_core.model.ids import TaskId
from everfaas_core.model.output import LogPage
from everfaas_core.model.states import TERMINAL, Status

PAGE_BYTES: Final = 256 * 1024  # of text; a page holds one piece more at most


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


class LogStream(Stream):
    """One client's log. Without a waiter it ends with what there is."""

    def __init__(self, context: ApiContext, wish: Wish, waiter: Waiter | None, gone: Callable[[], bool]) -> None:
        super().__init__(context, wish.form, wish.wait_s, gone)
        self.live = waiter is not None
        self._store = context.store
        self._wish = wish
        self._waiter = waiter
        self._cursor = wish.cursor or "0-0"
        self._status: Status | None = None
        self._page: LogPage | None = None
        self._vanished = False  # its record was deleted meanwhile

    def begin(self) -> bool:
        """Read the first page; False: there is no such task.

        Raises StoreUnavailable, StoreRefused, or ValueError for a cursor that is none.
        """
        self._read()
        return not self._vanished

    def _read(self) -> None:
        self._page = page = self._store.task_log(
            self._wish.task_id, self._cursor, bytes_max=PAGE_BYTES, attempt=self._wish.attempt
        )
        self._vanished = page is None
        if page is not None:
            self._status = page.status

    def _take(self) -> bytes:
        page = self._page
        if page is None or not page.pieces:
            return b""
        frames = self._form.pieces(page.pieces, self._cursor)
        self._cursor = page.cursor
        return frames

    def _has_more(self) -> bool:
        return self._page is not None and self._page.more

    def _forget(self) -> None:
        self._page = None

    def _end(self) -> str | None:
        if self._vanished:
            return "done"
        if self.live and self._hub.draining:
            return "drain"
        if self._has_more():
            return None
        if self._page is not None and self._status in TERMINAL:
            return "done"
        return "time" if not self.live or self._clock() >= self._deadline else None

    def _wait(self, longest_s: float) -> None:
        if self._waiter is not None:
            self._waiter.wait(longest_s)

    def _last(self, end: str) -> bytes:
        return self._form.one({"end": end, "status": self._status, "cursor": self._cursor})
