"""The fence around a worker's slots: its nursery kills them when the worker shows no life for too long."""

from __future__ import annotations

from typing import Final

from everfaas_core.worker.nursery import Nursery

PULSES_PER_FENCE: Final = 4
FENCE_LATE_S: Final = 0.05


class Fence:
    """Says when to show life. It stands while there is something to run: idle slots need none, and nobody wakes for it.

    Instants are monotonic seconds. `fence_s` None: there is to be none.
    """

    def __init__(self, fence_s: float | None) -> None:
        self.fence_s = fence_s
        self._until: float | None = None
        self._stands = False  # the nursery expects pulses
        self._pulse_at = 0.0

    @property
    def due(self) -> float | None:
        """When `keep` has to be called at the latest."""
        return self._pulse_at if self._stands else None

    def change(
        self, now: float, nursery: Nursery | None, fence_s: float | None, until: float | None, *, idle: bool
    ) -> None:
        """Have the slots killed after another silence from now on, and past `until` in any case."""
        self.fence_s, self._until = fence_s, until
        if fence_s is None:
            self.open(nursery)
        elif not idle:
            self._pulse(now, nursery)

    def raise_for(self, now: float, nursery: Nursery | None) -> None:
        """Something is about to run."""
        if self.fence_s is not None and not self._stands:
            self._pulse(now, nursery)

    def keep(self, now: float, nursery: Nursery | None, *, idle: bool) -> None:
        """Show life when that is due, or take the fence away when there is nothing left that it would stop."""
        if not self._stands or now < self._pulse_at:
            return
        if idle:
            self.open(nursery)
        else:
            self._pulse(now, nursery)

    def open(self, nursery: Nursery | None) -> None:
        """Take it away."""
        if self._stands and nursery is not None:
            nursery.pulse(None)
        self._stands = False

    def _pulse(self, now: float, nursery: Nursery | None) -> None:
        if self.fence_s is not None and nursery is not None:
            self._stands = True
            self._pulse_at = now + self.fence_s / PULSES_PER_FENCE
            nursery.pulse(self._left_s(now))

    def _left_s(self, now: float) -> float | None:
        """Return how long from now on the slots may live without another sign of life."""
        if self.fence_s is None or self._until is None:
            return self.fence_s
        left_s = self._until + FENCE_LATE_S - now
        return min(self.fence_s, left_s) if left_s > 0 else self.fence_s
