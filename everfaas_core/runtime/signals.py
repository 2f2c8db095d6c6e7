"""Signals set a flag and wake the loop; the loop does the work."""

from __future__ import annotations

import contextlib
import os
import signal
from types import FrameType
from typing import Final

DRAIN: Final = 1
STOP: Final = 2


class StopRequest:
    """How far this process was asked to end: 0 not at all, DRAIN by the first signal, STOP by the second.

    `fileno()` becomes readable with each request, so that a loop that waits on it wakes.
    """

    def __init__(self) -> None:
        self.level = 0
        self.signum: int | None = None
        self._reader, self._writer = os.pipe()
        os.set_blocking(self._reader, False)
        os.set_blocking(self._writer, False)

    def install(self) -> None:
        """Handle SIGTERM and SIGINT from now on. Main thread only."""
        for signum in (signal.SIGTERM, signal.SIGINT):
            signal.signal(signum, self._on_signal)

    def _on_signal(self, signum: int, _frame: FrameType | None) -> None:
        self.signum = signum
        self.request(self.level + 1)

    def request(self, level: int = DRAIN) -> None:
        """Ask for DRAIN or STOP; never takes back what was asked before. Safe in handlers and from any thread."""
        self.level = max(self.level, min(level, STOP))
        with contextlib.suppress(BlockingIOError):
            os.write(self._writer, b"!")

    def fileno(self) -> int:
        """Return the descriptor to wait on."""
        return self._reader

    def clear_wakeup(self) -> None:
        """Make `fileno()` quiet again; the level stays."""
        with contextlib.suppress(BlockingIOError):
            while os.read(self._reader, 4096):
                pass

    def close(self) -> None:
        """Close the descriptors. Handlers must not fire any more."""
        os.close(self._reader)
        os.close(self._writer)
