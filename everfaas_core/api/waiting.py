"""How a request waits for tasks to end: register, read, then wait for what the hub hears."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from everfaas_core.api.errors import TooManyWaiters
from everfaas_core.api.hub import Hub, Waiter
from everfaas_core.api.settings import ApiSettings
from everfaas_core.model.ids import TaskId

Read = Callable[[Sequence[TaskId]], bool]
"""Reads some tasks from the store and tells whether there is enough to answer."""


class Waiting:
    """Long-polls of this process: bounded in number and in time."""

    def __init__(self, hub: Hub, settings: ApiSettings, clock: Callable[[], float] = time.monotonic) -> None:
        self.hub = hub
        self._settings = settings
        self._clock = clock
        self._permits = threading.BoundedSemaphore(settings.waiters_max)

    def bounded_s(self, wait_s: float) -> float:
        """Return how long a request that asks for `wait_s` may wait."""
        return max(0.0, min(wait_s, self._settings.wait_s_max))

    @contextmanager
    def permit(self) -> Iterator[bool]:
        """Take one of the places of waiting requests, if there is one, for the time of the context."""
        taken = self._permits.acquire(blocking=False)
        try:
            yield taken
        finally:
            if taken:
                self._permits.release()

    def until(self, ids: Sequence[TaskId], wait_s: float, read: Read, gone: Callable[[], bool]) -> None:
        """Read, and go on reading whenever one of `ids` has ended, until `read` is content or the time is over.

        `gone` tells whether the client has left. Raises TooManyWaiters when it would have to wait and may not.
        """
        bounded_s = self.bounded_s(wait_s)
        if bounded_s == 0 or self.hub.draining:
            read(ids)
            return
        with self.hub.waiter(ids) as waiter:
            if read(ids):
                return
            with self.permit() as allowed:
                if not allowed:
                    raise TooManyWaiters(
                        "all places for waiting requests are taken",
                        hint="wait for many tasks with one POST /v1/tasks:wait, or ask again later",
                    )
                self.follow(waiter, bounded_s, read, gone)

    def follow(self, waiter: Waiter, bounded_s: float, read: Read, gone: Callable[[], bool]) -> None:
        """Wait and read for at most `bounded_s`, as somebody who is registered and has a permit."""
        deadline = self._clock() + bounded_s
        while not self.hub.draining:
            left_s = deadline - self._clock()
            if left_s <= 0:
                return
            ids = waiter.wait(min(left_s, self._settings.reread_s))
            if read(tuple(ids)) or gone():
                return
