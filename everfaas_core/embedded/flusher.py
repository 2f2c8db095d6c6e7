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
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

FLUSH_S: Final = 1.0
FRESH_NS: Final = 2_000_000_000
"""A folder that has changed within that time is listed again: its next change may get the same time."""
SLOW_S: Final = 2.0
"""A flush that takes longer is told of: a power cut costs that much."""

TELL_S: Final = 60.0  # at most once in that time
PAUSE_S_MAX: Final = 0.2
"""How long `paused` waits for a flush that is under way."""

_log = logging.getLogger("everfaas.store")


def _sync(fd: int) -> None:
    (os.fdatasync if hasattr(os, "fdatasync") else os.fsync)(fd)


class Flusher:
    """A thread that flushes what has changed in a folder of append-only files. `stop` flushes once more."""

    def __init__(self, folder: Path, *, every_s: float = FLUSH_S, sync: Callable[[int], None] = _sync) -> None:
        self._folder = folder
        self._every_s = every_s
        self._sync = sync
        self._flushed: dict[str, tuple[int, int]] = {}  # file → size and time of its last change, as flushed
        self._names: list[str] = []
        self._listed_ns = -1  # when the folder had last changed as we listed it
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None
        self._told_at = float("-inf")

    def start(self) -> None:
        """Begin. Idempotent."""
        if self._thread is None:
            self._ended = threading.Event()  # one of its own: an older thread may still be at its last flush
            self._thread = threading.Thread(target=self._run, args=(self._ended,), name="everfaas-flusher", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """Flush a last time, and end. Idempotent."""
        thread, self._thread = self._thread, None
        if thread is not None:
            self._ended.set()
            thread.join()
            self._flush_or_tell()

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Have no thread for the time of the context, unless the disk is so slow that it is still at a flush."""
        thread, self._thread = self._thread, None
        if thread is not None:
            self._ended.set()
            thread.join(PAUSE_S_MAX)
        try:
            yield
        finally:
            if thread is not None:
                self.start()

    def flush(self) -> int:
        """Flush the files that have changed since the last time; return how many."""
        count = 0
        found: dict[str, tuple[int, int]] = {}
        for path in self._files():
            with contextlib.suppress(FileNotFoundError):  # the server has just replaced it
                stat = os.stat(path)
                state = stat.st_size, stat.st_mtime_ns
                if self._flushed.get(path) != state:
                    self._flush_one(path)
                    count += 1
                found[path] = state
        self._flushed = found
        return count

    def _files(self) -> list[str]:
        """Return the files; the folder is listed only when something has been added or removed."""
        try:
            changed_ns = os.stat(self._folder).st_mtime_ns
        except FileNotFoundError:
            return []
        if changed_ns != self._listed_ns or time.time_ns() - changed_ns < FRESH_NS:
            self._names = [entry.path for entry in os.scandir(self._folder) if entry.name.endswith(".aof")]
            self._listed_ns = changed_ns
        return self._names

    def _flush_one(self, path: str) -> None:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            began = time.monotonic()
            self._sync(fd)
            took_s = time.monotonic() - began
        finally:
            os.close(fd)
        if took_s > SLOW_S:
            self._tell(f"the disk is slow: flushing {path} took {took_s:.1f} s, and a power cut costs that much")

    def _run(self, ended: threading.Event) -> None:
        while not ended.wait(self._every_s):
            self._flush_or_tell()

    def _flush_or_tell(self) -> None:
        try:
            self.flush()
        except OSError as error:
            self._tell(f"what was stored in {self._folder} can't be flushed to disk: {error.strerror}")

    def _tell(self, text: str) -> None:
        now = time.monotonic()
        if now >= self._told_at + TELL_S:
            self._told_at = now
            _log.warning("%s", text)
