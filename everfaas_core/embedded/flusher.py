"""Flushes the append-only file to disk once a second, in the server's stead.

Valkey can do that itself (`appendfsync everysec`), but then it holds writes back, up to two seconds, while a flush is
under way: it answers what is in its memory only, and a crash of its process loses it. So it writes before it answers
(`appendfsync no`), which the death of a process can't undo, and we flush, which the death of the machine asks for.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

FLUSH_S: Final = 1.0
SLOW_S: Final = 2.0
"""A flush that takes longer is told of: a power cut costs that much."""

TELL_S: Final = 60.0  # at most once in that time

_log = logging.getLogger("everfaas.store")


def _sync(fd: int) -> None:
    (os.fdatasync if hasattr(os, "fdatasync") else os.fsync)(fd)


class Flusher:
    """A thread that flushes what has changed in a folder of append-only files. `stop` flushes once more."""

    def __init__(self, folder: Path, *, every_s: float = FLUSH_S, sync: Callable[[int], None] = _sync) -> None:
        self._folder = folder
        self._every_s = every_s
        self._sync = sync
        self._flushed: dict[Path, tuple[int, int]] = {}  # file → size and time of its last change, as flushed
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None
        self._told_at = float("-inf")

    def start(self) -> None:
        """Begin. Idempotent."""
        if self._thread is None:
            self._ended.clear()
            self._thread = threading.Thread(target=self._run, name="everfaas-flusher", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """Flush a last time, and end. Idempotent."""
        thread, self._thread = self._thread, None
        if thread is not None:
            self._ended.set()
            thread.join()

    def flush(self) -> int:
        """Flush the files that have changed since the last time; return how many."""
        count = 0
        found: dict[Path, tuple[int, int]] = {}
        for path in self._folder.glob("*.aof"):
            with contextlib.suppress(FileNotFoundError):  # the server has just replaced it
                stat = path.stat()
                state = stat.st_size, stat.st_mtime_ns
                if self._flushed.get(path) != state:
                    self._flush_one(path)
                    count += 1
                found[path] = state
        self._flushed = found
        return count

    def _flush_one(self, path: Path) -> None:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            began = time.monotonic()
            self._sync(fd)
            took_s = time.monotonic() - began
        finally:
            os.close(fd)
        if took_s > SLOW_S:
            self._tell(f"the disk is slow: flushing {path} took {took_s:.1f} s, and a power cut costs that much")

    def _run(self) -> None:
        while True:
            ended = self._ended.wait(self._every_s)
            try:
                self.flush()
            except OSError as error:
                self._tell(f"what was stored in {self._folder} can't be flushed to disk: {error.strerror}")
            if ended:
                return

    def _tell(self, text: str) -> None:
        now = time.monotonic()
        if now >= self._told_at + TELL_S:
            self._told_at = now
            _log.warning("%s", text)
