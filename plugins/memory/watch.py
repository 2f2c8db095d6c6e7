"""A subscription within the process: a pipe that wakes a loop, and the notices it is to read."""

from __future__ import annotations

import contextlib
import os
import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

from everfaas_core.ports import Notice

NOTICES_MAX: Final = 100_000  # unread; then they are dropped and the reader is told that some were lost


class MemoryWatch:
    """Implements `ports.Watch`. `put` is called from any thread, the rest from the reader's."""

    def __init__(self, topic: str, forget: Callable[[MemoryWatch], None]) -> None:
        self.topic = topic
        self._forget = forget
        self._lock = threading.Lock()
        self._notices: deque[Notice] = deque()
        self._closed = False
        self._reader, self._writer = os.pipe()
        os.set_blocking(self._reader, False)
        os.set_blocking(self._writer, False)

    def put(self, notice: Notice) -> None:
        """Hand a notice to the reader."""
        with self._lock:
            if self._closed:
                return
            if len(self._notices) >= NOTICES_MAX:
                self._notices.clear()
                notice = Notice(lost=True)
            if not self._notices:
                os.write(self._writer, b"!")
            self._notices.append(notice)

    def fileno(self) -> int:
        """Return the descriptor to wait on."""
        return self._reader

    def read(self) -> Sequence[Notice]:
        """Return what has come in since the last call."""
        with self._lock:
            if self._closed:
                return []
            with contextlib.suppress(BlockingIOError):
                os.read(self._reader, 16)
            notices = list(self._notices)
            self._notices.clear()
        return notices

    def close(self) -> None:
        """Unsubscribe. Idempotent."""
        self._forget(self)
        with self._lock:
            if not self._closed:
                self._closed = True
                os.close(self._reader)
                os.close(self._writer)
