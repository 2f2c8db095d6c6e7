"""How a request waits for tasks to end: register, read, then wait for what the hub hears."""

from __future__ import annotations

import functools
import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final

from everfaas_core.api.errors import TooManyWaiters
from everfaas_core.api.hub import Hub, Waiter
from everfaas_core.api.settings import ApiSettings
from everfaas_core.model.errors import StoreUnavailable
from everfaas_core.model.ids import TaskId

REREAD_SPREAD: Final = (0.7, 1.3)
"""So that a crowd that has come at once does not read the store at once, again and again."""

RETRY_S: Final = 1.0
"""How soon a long-poll reads again what the store did not answer."""

Read = Callable[[Sequence[TaskId]], bool]
"""Reads some tasks from the store and tells whether there is enough to answer."""


class Waiting:
    """Long-polls and streams of this process: bounded in number and in time."""

    def __init__(self, hub: Hub, settings: ApiSettings, clock: Callable[[], float] = time.monotonic) -> None:
        self.hub = hub
        self._settings = settings
        self._clock = clock
        self._spread = functools.partial(random.uniform, *REREAD_SPREAD)
        self._polls = threading.BoundedSemaphore(settings.waiters_max)
        self._streams = threading.BoundedSemaphore(settings.streams_max)

    def bounded_s(self, wait_s: float) -> float:
        """Return how long a request that asks for `wait_s` may wait."""
        return max(0.0, min(wait_s, self._settings.wait_s_max))

    @contextmanager
    def permit(self) -> Iterator[bool]:
        """Take one of the places of waiting requests, if there is one, for the time of the context."""
        with _taken(self._polls) as allowed:
            yield allowed

    @contextmanager
    def stream_permit(self) -> Iterator[bool]:
        """Take one of the places of streams, if there is one, for the time of the context.

        They are apart from the others, so that neither kind can keep the other out.
        """
        with _taken(self._streams) as allowed:
            yield allowed

    def until(
        self, ids: Sequence[TaskId], wait_s: float, read: Read, gone: Callable[[], bool], *, owed: bool = True
    ) -> None:
        """Read, and go on reading whenever one of `ids` has ended, until `read` is content or the time is over.

        `gone` tells whether the client has left. Raises TooManyWaiters when it would have to wait and may not; a client
        that is not `owed` the wait, because it has not asked for one, gets what there is.
        """
        bounded_s = self.bounded_s(wait_s)
        if bounded_s == 0 or self.hub.draining:
            read(ids)
            return
        with self.hub.waiter(ids) as waiter:
            if read(ids):
                return
            with self.permit() as allowed:
                if not owed:
                    if allowed and waiter.wait(bounded_s) and waiter.woken:
                        read(ids)
                    return
                if not allowed:
                    raise TooManyWaiters(
                        "all places for waiting requests are taken",
                        hint="wait for many tasks with one POST /v1/tasks:wait, or ask again later",
                    )
                self.follow(waiter, bounded_s, read, gone)

    def follow(self, waiter: Waiter, bounded_s: float, read: Read, gone: Callable[[], bool]) -> None:
        """Wait and read for at most `bounded_s`, as somebody who is registered and has a permit.

        A store that goes away meanwhile ends nobody's wait: it may be back in time. Raises StoreUnavailable when it is
        not.
        """
        deadline = self._clock() + bounded_s
        failure: StoreUnavailable | None = None
        owed: frozenset[TaskId] = frozenset()  # what could not be read
        while not self.hub.draining:
            left_s = deadline - self._clock()
            if left_s <= 0:
                break
            pause_s = RETRY_S if failure else self._settings.reread_s * self._spread()
            ids = waiter.wait(min(left_s, pause_s)) | owed
            try:
                if read(tuple(ids)):
                    return
                failure, owed = None, frozenset()
            except StoreUnavailable as error:
                failure, owed = error, ids
            if gone():
                return
        if failure is not None:
            raise failure


@contextmanager
def _taken(places: threading.BoundedSemaphore) -> Iterator[bool]:
    taken = places.acquire(blocking=False)
    try:
        yield taken
    finally:
        if taken:
            places.release()
