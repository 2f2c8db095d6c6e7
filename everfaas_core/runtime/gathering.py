"""How long a dispatcher's next exchange with the store waits for more to tell. Pure.

What an exchange costs by itself is more than what a task adds to it, so with much to do few large ones are better; a
dispatcher with little to do never waits.
"""

from __future__ import annotations

from typing import Final

from everfaas_core.model.records import Turn, TurnReply

GATHER_MAX: Final = 256
"""So many tasks are worth an exchange at once."""

GATHER_S: Final = 0.003
BUSY_MIN: Final = 16
"""After an exchange for so many tasks the next one waits GATHER_S."""

GATHER_BEHIND_S: Final = 0.015
"""The wait while more is queued than could be claimed, and workers have quick tasks at hand that they run meanwhile."""


class Gathering:
    """Decides after each exchange when the next one is due. Instants are monotonic seconds."""

    def __init__(self) -> None:
        self.until = 0.0
        self._behind = False  # more was queued than we asked for

    def exchanged(self, now: float, turn: Turn, reply: TurnReply, *, ahead: bool) -> None:
        """Take note of an exchange. `ahead`: tasks are sent to wait in workers, because they are quick."""
        if turn.claim:
            self._behind = len(reply.claimed) >= turn.claim
        if self._behind and ahead:
            self.until = now + GATHER_BEHIND_S
        elif len(turn.finishes) + len(turn.starts) + len(reply.claimed) >= BUSY_MIN:
            self.until = now + GATHER_S
        else:
            self.until = 0.0

    def waits(self, now: float, tasks: int) -> bool:
        """Tell whether an exchange about so many tasks is to wait."""
        return now < self.until and tasks < GATHER_MAX
