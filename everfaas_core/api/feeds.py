"""What all streams of one group in this process share: the wake-up, and what was read last.

However many clients follow a group, what ends is read from the store once, and encoded once for each form that is
asked for. A feed lives while somebody follows it.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from typing import Final

from msgspec import Struct

from everfaas_core.api.crew import Crew
from everfaas_core.api.frames import Form
from everfaas_core.api.hub import Hub
from everfaas_core.model.errors import StoreUnavailable
from everfaas_core.ports import Store

PAGE_RESULTS: Final = 500
PAGE_BYTES: Final = 256 * 1024  # of results; a page holds one more at most
SHARED_PAGES: Final = 8
SHARED_BYTES_MAX: Final = 512 * 1024  # of one page; larger ones are not kept for others
SHARED_S: Final = 1.0  # how long; also how long a failure of the store holds for all

_Key = tuple[str | None, int, Form]


class Batch(Struct, frozen=True):
    """A page of results, as it is sent."""

    frames: bytes
    count: int
    cursor: str
    tasks: int
    pending: int
    more: bool


class _Shared(Struct, frozen=True):
    batch: Batch
    version: int
    until: float


class Feed:
    """One group, for all who follow it. Used by their threads; `wake` is called by the hub."""

    def __init__(self, store: Store, group: str, crew: Crew, clock: Callable[[], float] = time.monotonic) -> None:
        self._store = store
        self._group = group
        self._crew = crew
        self._clock = clock
        self._news = threading.Condition()
        self._reading = threading.Lock()
        self._pages: dict[_Key, _Shared] = {}
        self._failure: tuple[StoreUnavailable, float] | None = None
        self.version = 0  # of what is known: goes up whenever there may be more to read
        self.followers = 0

    def wake(self) -> None:
        """Something has ended in this group, or may have."""
        with self._news:
            self.version += 1
            self._news.notify_all()

    def wait(self, seen: int, timeout_s: float) -> None:
        """Wait until there may be more than at version `seen`, at most `timeout_s`."""
        with self._crew.away(), self._news:
            self._news.wait_for(lambda: self.version != seen, timeout_s)

    def read(self, cursor: str | None, limit: int, form: Form) -> Batch:
        """Return what ended after `cursor`, at most `limit` and a page's size. Raises StoreUnavailable or ValueError.

        Whatever ends after this call raises `version`, or did so since it was looked at before the call.
        """
        if not self._reading.acquire(blocking=False):
            with self._crew.away():
                self._reading.acquire()
        try:
            return self._read((cursor, limit, form))
        finally:
            self._reading.release()

    def _read(self, key: _Key) -> Batch:
        now = self._clock()
        if self._failure is not None and now < self._failure[1]:  # else those who queue here would fail one by one
            raise self._failure[0]
        version = self.version
        shared = self._pages.get(key)
        if shared is not None and shared.version == version and now < shared.until:
            return shared.batch
        try:
            batch = self._fetch(*key)
        except StoreUnavailable as error:
            self._failure = error, self._clock() + SHARED_S
            raise
        self._failure = None
        self._pages.pop(key, None)
        if len(batch.frames) <= SHARED_BYTES_MAX:
            self._pages[key] = _Shared(batch, version, now + SHARED_S)
            if len(self._pages) > SHARED_PAGES:
                del self._pages[next(iter(self._pages))]
        return batch

    def _fetch(self, cursor: str | None, limit: int, form: Form) -> Batch:
        most = min(limit, PAGE_RESULTS)
        page = self._store.group_results(
            self._group, cursor, most, bytes_max=PAGE_BYTES, with_results=form.with_results
        )
        return Batch(form.page(page), len(page.ended), page.cursor, page.tasks, page.pending, page.more)


class Feeds:
    """The feeds of this process, one for each group that somebody follows."""

    def __init__(self, store: Store, hub: Hub, crew: Crew) -> None:
        self._store = store
        self._hub = hub
        self._crew = crew
        self._lock = threading.Lock()
        self._feeds: dict[str, Feed] = {}

    @contextlib.contextmanager
    def follow(self, group: str) -> Iterator[Feed]:
        """Follow a group for the time of the context. Its feed is awake before this returns: read after that."""
        with self._lock:
            feed = self._feeds.get(group)
            if feed is None:
                feed = self._feeds[group] = Feed(self._store, group, self._crew)
                self._hub.listen(group, feed.wake)
            feed.followers += 1
        try:
            yield feed
        finally:
            with self._lock:
                feed.followers -= 1
                if not feed.followers:
                    del self._feeds[group]
                    self._hub.unlisten(group)
