"""Virtual time: a heap of calls to be made. Nothing else of a simulation moves it."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from typing import Any


class Clock:
    """Seconds since the world began. Calls planned for one instant are made in the order in which they were planned."""

    def __init__(self) -> None:
        self.now = 0.0
        self.calls = 0  # made so far
        self._heap: list[tuple[float, int, Callable[..., object], tuple[Any, ...]]] = []
        self._planned = 0

    def at(self, when: float, call: Callable[..., object], *args: Any) -> None:
        """Plan a call; an instant that has passed means now."""
        self._planned += 1
        heapq.heappush(self._heap, (when if when > self.now else self.now, self._planned, call, args))

    def after(self, seconds: float, call: Callable[..., object], *args: Any) -> None:
        """Plan a call."""
        self.at(self.now + seconds, call, *args)

    def run(self, until: float, done: Callable[[], bool]) -> bool:
        """Make calls until `done` says so; return False if the time came first."""
        heap = self._heap
        while not done():
            if not heap or heap[0][0] > until:
                self.now = max(self.now, until)
                return done()
            self.now, _, call, args = heapq.heappop(heap)
            self.calls += 1
            call(*args)
        return True


class Alarm:
    """One owner's timer. Planning it anew is free as long as it does not have to ring earlier than planned."""

    __slots__ = ("_call", "_clock", "_due", "_planned")

    def __init__(self, clock: Clock, call: Callable[[], None]) -> None:
        self._clock = clock
        self._call = call
        self._due: float | None = None
        self._planned = float("inf")

    def set(self, due: float | None) -> None:
        """Ring at `due`, and not at the instant that was set before; None: not at all."""
        self._due = due
        if due is not None and due < self._planned:
            self._planned = due
            self._clock.at(due, self._ring, due)

    def _ring(self, planned: float) -> None:
        if planned != self._planned:
            return  # an earlier one was planned since, and has rung
        self._planned = float("inf")
        if self._due is None:
            return
        if self._due > self._clock.now:
            self.set(self._due)
        else:
            self._due = None
            self._call()
