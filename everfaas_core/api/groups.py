"""`/v1/groups/<group>/results`: the results of a group as a stream, one after the other as they end."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack
from typing import Any, Final

import flask
from msgspec import Struct

from everfaas_core.api.answers import GroupLine
from everfaas_core.api.context import ApiContext, gone_check
from everfaas_core.api.errors import TooManyWaiters
from everfaas_core.api.feeds import Batch, Feed, Feeds
from everfaas_core.api.frames import NDJSON, Form
from everfaas_core.api.negotiation import MSGPACK, wants_msgpack
from everfaas_core.api.openapi import Fields, Resource, invalid
from everfaas_core.api.schemas import NAME_CHARS_MAX, GroupQuery
from everfaas_core.model.errors import StoreUnavailable

RETRY_S: Final = 1.0  # between reads while the store is away
_NO_LIMIT: Final = 2**53

_log = logging.getLogger(__name__)


class Wish(Struct, frozen=True):
    """What one client asked for."""

    form: Form
    cursor: str | None
    limit: int
    until_done: bool
    wait_s: float


class GroupRoutes:
    """`/v1/groups`."""

    def __init__(self, context: ApiContext) -> None:
        self._context = context
        self._feeds = Feeds(context.store, context.hub, context.crew)

    def resource(self) -> Resource:
        """Return the call."""
        routes = Resource("groups", __name__, description="Follow the tasks that were submitted with one group.")
        routes.call(
            "GET",
            "/v1/groups/<path:group>/results",
            self.stream_results,
            query=GroupQuery,
            returns=GroupLine,
            kinds=(NDJSON, MSGPACK),
            errors=(429,),
        )
        return routes

    def stream_results(self, group: str, query: Fields) -> flask.Response:
        """Stream the results of a group in the order in which they end: lines of JSON, or msgpack objects.

        Each has a `cursor`; a stream that begins with it goes on behind that result. The last object has `end`, which
        says why it is the last: `done` (with `until=done`: no task of the group is left that has not ended), `time`
        (`wait_s` is over), `limit`, `drain` (the server is going) or `error`. A stream without it was cut. Blank lines
        (nil in msgpack) say that the server is there. A group that nobody has named yet is an empty one.
        """
        if len(group) > NAME_CHARS_MAX or not group.isprintable():
            text = f"Is no name of a group: at most {NAME_CHARS_MAX} printable characters, percent-encoded."
            raise invalid("the path", {"group": text})
        form = Form(wants_msgpack(), query["results"] == "true")
        body: Any = [] if flask.request.method == "HEAD" else self._stream(group, query, form)
        response = flask.Response(body, content_type=form.content_type)
        response.headers["Vary"] = "Accept"
        response.headers["X-Accel-Buffering"] = "no"  # a proxy that collects lines would keep them from the client
        return response

    def _stream(self, group: str, query: Fields, form: Form) -> GroupStream:
        """Take a place and read the first page, so that whatever is wrong is an answer of its own, not a stream."""
        context = self._context
        wish = Wish(
            form=form,
            cursor=query.get("cursor"),
            limit=query.get("limit", _NO_LIMIT),
            until_done=query["until"] == "done",
            wait_s=context.waiting.bounded_s(query["wait_s"]),
        )
        with ExitStack() as stack:
            if not stack.enter_context(context.waiting.stream_permit()):
                raise TooManyWaiters(
                    "all places for streams are taken",
                    hint="one stream gives all results of a group: share it, or ask again later",
                )
            feed = stack.enter_context(self._feeds.follow(group))
            stream = GroupStream(context, feed, wish, gone_check())
            try:
                stream.begin()
            except ValueError:
                text = "Is not one that a stream of results has given. Leave it out to begin with the first result."
                raise invalid("the query", {"cursor": text}) from None
            stream.held = stack.pop_all()
        return stream


class GroupStream:
    """One client's stream, iterated by the thread of its request; `held` is given back by `close`."""

    def __init__(
        self,
        context: ApiContext,
        feed: Feed,
        wish: Wish,
        gone: Callable[[], bool],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._hub = context.hub
        self._settings = context.settings
        self._feed = feed
        self._wish = wish
        self._gone = gone
        self._clock = clock
        self._deadline = clock() + wish.wait_s
        self._left = wish.limit
        self._cursor = wish.cursor
        self._tasks = self._pending = 0
        self._seen = -1
        self._batch: Batch | None = None
        self._frames = self._run()
        self.held = ExitStack()

    def begin(self) -> None:
        """Read the first page. Raises StoreUnavailable, StoreRefused, or ValueError for a cursor that is none."""
        self._read()

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
        if self._batch is None or not self._batch.count:
            yield self._wish.form.heartbeat  # so that the client has the answer's head, and knows that it is heard
        while True:
            if self._batch is not None and self._batch.count:
                yield self._batch.frames
                sent_at = self._clock()
            end = self._end()
            if end is not None:
                yield self._last(end)
                return
            if self._batch is None or not self._batch.more:
                self._rest()
                if self._gone():
                    return
                if self._clock() - sent_at >= self._settings.heartbeat_s:
                    yield self._wish.form.heartbeat
                    sent_at = self._clock()
            try:
                self._read()
            except StoreUnavailable:  # a stream outlives it: what it can't read now, it reads when the store is back
                self._batch = None
            except Exception:  # noqa: BLE001  # the answer has begun, so no handler of errors can give another
                _log.exception("a stream of results failed")
                yield self._last("error")
                return

    def _end(self) -> str | None:
        """Tell why the stream is over, if it is. As long as there is something to read, its time is not."""
        batch = self._batch
        if self._left <= 0:
            return "limit"
        if self._hub.draining:
            return "drain"
        if batch is not None and batch.more:
            return None
        if self._wish.until_done and batch is not None and not batch.pending:
            return "done"
        return "time" if self._clock() >= self._deadline else None

    def _rest(self) -> None:
        """Wait until there is something to read, or to say."""
        longest_s = min(self._settings.heartbeat_s, self._settings.reread_s)
        if self._batch is None:
            longest_s = min(longest_s, RETRY_S)
        self._feed.wait(self._seen, min(longest_s, max(0.0, self._deadline - self._clock())))

    def _read(self) -> None:
        self._seen = self._feed.version  # before the read: what ends from here on wakes us
        self._batch = batch = self._feed.read(self._cursor, self._left, self._wish.form)
        self._left -= batch.count
        self._cursor = batch.cursor
        self._tasks, self._pending = batch.tasks, batch.pending

    def _last(self, end: str) -> bytes:
        return self._wish.form.one({"end": end, "tasks": self._tasks, "pending": self._pending, "cursor": self._cursor})
