"""How sure a worker may be that its dispatcher still counts on it. Pure.

The dispatcher gives a worker's tasks to others once it has not heard of it for `liveness_s`. So a worker must stop what
it runs *before* that, whatever the network does, in either direction: what counts is not when it last heard something,
but when it said the last thing that is known to have arrived. A Beat is answered by a Pulse, in order; the moment at
which the answered Beat was said is the proof of contact, and it is never later than the dispatcher's own.

(The reasoning is that of leases: C. Gray and D. Cheriton, "Leases: An Efficient Fault-Tolerant Mechanism for
Distributed File Cache Consistency", SOSP 1989, with the clock's rate, not its value, trusted on both sides.)
"""

from __future__ import annotations

from collections import deque
from typing import Final

PROOF_SHARE: Final = 0.85
"""Of the liveness: how old the proof may become before all attempts are stopped."""

BEATS_MAX: Final = 64
"""Unanswered Beats that are remembered; older ones are forgotten, which only makes the proof look older."""


class Contact:
    """Instants are monotonic seconds."""

    def __init__(self) -> None:
        self._proof_at = 0.0
        self._excused_at = 0.0
        self._hello_at = 0.0
        self._beats: deque[float] = deque(maxlen=BEATS_MAX)

    def hello(self, now: float) -> None:
        """A Hello is said: on this connection, nothing said before will be answered."""
        self._hello_at = now
        self._beats.clear()

    def welcomed(self) -> None:
        """The Hello was answered."""
        self._proof_at = max(self._proof_at, self._hello_at)

    def beat(self, now: float) -> None:
        """A Beat is said."""
        self._beats.append(now)

    def pulse(self) -> None:
        """The oldest unanswered Beat is answered."""
        if self._beats:
            self._proof_at = max(self._proof_at, self._beats.popleft())

    def excused(self, now: float) -> None:
        """There is nobody at the other end who could give our tasks to others."""
        self._excused_at = max(self._excused_at, now)

    @property
    def proof_at(self) -> float:
        """When the last thing was said that is known to have arrived."""
        return self._proof_at

    def ends_at(self, liveness_s: float, excused_s_max: float) -> float:
        """Return the instant at which everything has to be stopped, unless there is newer proof by then.

        Excuses put it off to `excused_s_max` after the last proof at the most.
        """
        excused = min(self._excused_at + PROOF_SHARE * liveness_s, self._proof_at + excused_s_max)
        return max(self._proof_at + PROOF_SHARE * liveness_s, excused)
