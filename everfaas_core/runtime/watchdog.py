"""Notices a dispatcher that is connected but does not consume: the one fault that everything else mistakes for calm."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

STARVED_S: Final = 30.0
"""How long tasks may be ready, and slots free, without one being claimed."""

CHECKS: Final = 3
"""How many times within STARVED_S the store is asked; all have to agree."""


class Watchdog:
    """Fed by every claim that brought tasks; asks the store only while nothing comes."""

    def __init__(self, starved_s: float = STARVED_S) -> None:
        self._starved_s = starved_s
        self._check_at: float | None = None
        self._starved = 0

    def fed(self) -> None:
        """Take note that tasks were claimed, or that there was no room for any."""
        self._check_at = None
        self._starved = 0

    def starved(self, now: float, ready: Callable[[], int]) -> bool:
        """Tell, while there is room, whether tasks have been ready all along. `ready` asks the store how many are."""
        if self._check_at is None:
            self._check_at = now + self._starved_s / CHECKS
        if now < self._check_at:
            return False
        self._check_at = now + self._starved_s / CHECKS
        self._starved = self._starved + 1 if ready() > 0 else 0
        return self._starved >= CHECKS
