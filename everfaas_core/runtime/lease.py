"""How long nobody else may run what this dispatcher has claimed."""

from __future__ import annotations

from typing import Final

BOUND_SHARE: Final = 0.9
"""Of the lease: what runs in our own slots is stopped by then, unless the lease was renewed. The slots' keeper sees to
it, so that it happens in time even while this process waits for the store, or is stopped."""

FENCE_SHARE: Final = 0.6
"""Of the lease: our own slots are killed when this process shows no life for so long. The lease is renewed at each
third, so that two thirds of it are left in the worst case."""


class Lease:
    """Instants are monotonic seconds."""

    def __init__(self, lease_s: float, now: float) -> None:
        self.lease_s = lease_s
        self._at = now

    def renewed(self, now: float) -> None:
        """A renewal that was begun at `now` has succeeded; or there is nothing yet that others could take over."""
        self._at = now

    def ends_within(self, now: float, ahead_s: float) -> bool:
        """Tell whether `ahead_s` from now others may run our tasks, because the store has not heard us for so long."""
        return now + ahead_s > self._at + self.lease_s

    @property
    def bound_until(self) -> float:
        """When our own slots have to be stopped."""
        return self._at + BOUND_SHARE * self.lease_s
