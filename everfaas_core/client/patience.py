"""How long a client bears an API that does not answer, or is busy."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from everfaas_core.client.errors import ApiFailed, ApiRefused, ApiUnreachable

PAUSE_S_FIRST: Final = 0.05
PAUSE_S_MAX: Final = 2.0


class Patience:
    """Pauses between tries, ever longer, until an API that does not answer has been waited for long enough."""

    def __init__(self, patience_s: float, stopped: Callable[[float], bool]) -> None:
        self._patience_s = patience_s
        self._stopped = stopped
        self._deadline: float | None = None
        self._pause_s = PAUSE_S_FIRST

    def answered(self) -> None:
        """Begin anew."""
        self._deadline = None
        self._pause_s = PAUSE_S_FIRST

    def bear(self, error: ApiFailed) -> None:
        """Wait a moment after a failure that may pass; raise it if it will not, or has lasted too long."""
        if isinstance(error, ApiRefused):
            if not error.passing:
                raise error
            if error.status == 429:  # a queue that is full moves on: the API works
                self._deadline = None
        elif not isinstance(error, ApiUnreachable):
            raise error
        now = time.monotonic()
        if self._deadline is None:
            self._deadline = now + self._patience_s
        if now >= self._deadline:
            raise error
        if self._stopped(min(self._pause_s, self._deadline - now)):
            raise error
        self._pause_s = min(self._pause_s * 2, PAUSE_S_MAX)
