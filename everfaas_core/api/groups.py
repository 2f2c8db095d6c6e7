"""`/v1/groups/<group>/results`: the results of a group as a stream, one after the other as they end."""

from __future__ import annotations

from collections.abc import Callable
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
from everfaas_core.api.streams import Stream

_NO_LIMIT: Final = 2**53


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


class GroupStream(Stream):
    """One client's stream of a group's results."""

    def __init__(self, context: ApiContext, feed: Feed, wish: Wish, gone: Callable[[], bool]) -> None:
        super().__init__(context, wish.form, wish.wait_s, gone)
        self._feed = feed
        self._wish = wish
        self._left = wish.limit
        self._cursor = wish.cursor
        self._tasks = self._pending = 0
        self._seen = -1
        self._batch: Batch | None = None

    def begin(self) -> None:
        """Read the first page. Raises StoreUnavailable, StoreRefused, or ValueError for a cursor that is none."""
        self._read()

    def _read(self) -> None:
        self._seen = self._feed.version  # before the read: what ends from here on wakes us
        self._batch = batch = self._feed.read(self._cursor, self._left, self._form)
        self._left -= batch.count
        self._cursor = batch.cursor
        self._tasks, self._pending = batch.tasks, batch.pending

    def _take(self) -> bytes:
        return b"" if self._batch is None or not self._batch.count else self._batch.frames

    def _has_more(self) -> bool:
        return self._batch is not None and self._batch.more

    def _forget(self) -> None:
        self._batch = None

    def _end(self) -> str | None:
        if self._left <= 0:
            return "limit"
        if self._hub.draining:
            return "drain"
        if self._has_more():
            return None
        if self._wish.until_done and self._batch is not None and not self._batch.pending:
            return "done"
        return "time" if self._clock() >= self._deadline else None

    def _wait(self, longest_s: float) -> None:
        self._feed.wait(self._seen, longest_s)

    def _last(self, end: str) -> bytes:
        return self._form.one({"end": end, "tasks": self._tasks, "pending": self._pending, "cursor": self._cursor})
