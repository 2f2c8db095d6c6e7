"""The slot's side of its output: stdout and stderr as pipes to the worker, and marks that say what is whose."""

from __future__ import annotations

import contextlib
import fcntl
import io
import os
import sys
import termios
import time
from array import array
from typing import Final

from everfaas_core.model.output import Progressed
from everfaas_core.wire.messages import TaskItem
from everfaas_core.worker.cells import ERR, MARKS, OUT, READS, nonce_of
from everfaas_core.worker.marks import MARK_BYTES_MAX, mark_ended, mark_late, mark_progress

PROGRESS_S: Final = 0.1
"""Reports of progress are so far apart at the least; the last one before the end is always sent."""

TRIES_MAX: Final = 3  # to find the worker not reading, while it is counted what has been written

_FDS: Final = (1, 2)
_UNKNOWN: Final = -MARK_BYTES_MAX  # equal to nothing that is counted: the next look makes a mark again


class Streams:
    """Descriptors 1 and 2 are pipes already. `cell` is the slot's (see `cells`)."""

    def __init__(self, cell: memoryview) -> None:
        self._cell = cell
        self._nonce = nonce_of(cell)
        self._pipes = [os.dup(fd) for fd in _FDS]  # ours, whatever a function does with 1 and 2
        self._identities = [os.fstat(fd).st_ino for fd in _FDS]
        self._out, self._err = _text(1, "<stdout>"), _text(2, "<stderr>")
        self._counts = (array("i", [0]), array("i", [0]))
        self._known = [0, 0]  # bytes that have ever been written, as of the last mark
        self._left = [0, 0]  # of these, what was not read by then
        self._reads = 0  # when the worker had read so often
        self._item: TaskItem | None = None
        self._progress: Progressed | None = None  # not sent yet
        self._told_at = 0.0
        self._install()

    # ── the slot's loop ──────────────────────────────────────────────────────────────────────────────────────────────

    def begin(self, item: TaskItem) -> None:
        """Note what runs from now on."""
        self._item = item
        self._told_at = 0.0  # its first word of progress is told at once

    def end(self, item: TaskItem) -> None:
        """Let all that a task has printed leave, and mark it as its own if there is any. Comes before its outcome."""
        if sys.stdout is not self._out or sys.stderr is not self._err:
            self._reinstall()
        try:
            self._out.flush()
            self._err.flush()
        except Exception:  # noqa: BLE001 - closed or broken by a function
            self._reinstall()
        if self._progress is not None:
            self._send_progress()
        self._item = None
        if not self._is_silent():
            self._mark(mark_ended(self._nonce, (item.task_id, item.attempt)))

    def wake(self) -> None:
        """See to what was printed while no task ran, by a thread or child that one has left behind: it is nobody's."""
        if not self._is_silent():
            self._mark(mark_late(self._nonce))

    def flush(self) -> None:
        """Let what a copy of the slot has printed leave, before it ends."""
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(BaseException):  # it may be a function's own
                stream.flush()

    # ── progress ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def report(self, done: int | float, total: int | float | None, message: str) -> None:
        """Take a report in; from any thread, and from processes that a task has forked."""
        item = self._item
        if item is None:
            return
        self._progress = Progressed(item.task_id, item.attempt, done, total, message)
        if time.monotonic() >= self._told_at + PROGRESS_S:
            self._send_progress()

    def _send_progress(self) -> None:
        progress, self._progress = self._progress, None
        if progress is not None:
            self._told_at = time.monotonic()
            self._write(0, mark_progress(self._nonce, progress))

    # ── pipes ────────────────────────────────────────────────────────────────────────────────────────────────────────

    def _is_silent(self) -> bool:
        """Tell whether nothing was written since the last look; False also when the worker has read meanwhile.

        Asked for each task: two calls to the system, and little else.
        """
        cell, (out, err) = self._cell, self._counts
        try:
            fcntl.ioctl(1, termios.FIONREAD, out)
            fcntl.ioctl(2, termios.FIONREAD, err)
        except OSError:  # closed, or something else by now
            return False
        return out[0] == self._left[0] and err[0] == self._left[1] and cell[READS] == self._reads

    def _mark(self, mark: bytes) -> None:
        """Mark what was written since the last mark, if anything was, and note what is in the pipes now."""
        self._reopen()
        cell, known = self._cell, self._known
        for _ in range(TRIES_MAX):
            reads = cell[READS]
            left = [_bytes_in(fd) for fd in self._pipes]
            written = [cell[OUT] + left[0], cell[ERR] + left[1]]
            if not reads & 1 and cell[READS] == reads:
                break
        else:  # the worker reads and reads: a mark too many does no harm
            written = [_UNKNOWN, _UNKNOWN]
            reads = _UNKNOWN
        for which in (0, 1):
            if written[which] != known[which] or written[which] == _UNKNOWN:
                self._write(which, mark)
                known[which] = written[which] + len(mark)
                left[which] += len(mark)
                cell[MARKS] += 1
        self._left, self._reads = left, reads

    def _write(self, which: int, mark: bytes) -> None:
        """Write a mark, in one piece; waits for room, which the worker makes."""
        fd = self._pipes[which]
        try:
            os.write(fd, mark)
        except BlockingIOError:  # a function has made it so
            os.set_blocking(fd, True)
            os.write(fd, mark)
        except OSError:  # the worker is gone, or a function has closed what is ours: output is lost, not the task
            pass

    def _reopen(self) -> None:
        """Put the pipes back to 1 and 2 if a function has closed or replaced them, and have writes wait for room."""
        for fd, pipe, identity in zip(_FDS, self._pipes, self._identities, strict=True):
            try:
                mine = os.fstat(fd).st_ino == identity
            except OSError:
                mine = False
            with contextlib.suppress(OSError):
                if not mine:
                    os.dup2(pipe, fd)
                if not os.get_blocking(fd):
                    os.set_blocking(fd, True)

    # ── sys.stdout and sys.stderr ────────────────────────────────────────────────────────────────────────────────────

    def _install(self) -> None:
        sys.stdout, sys.stderr = self._out, self._err
        # Final for mypy; but it is what the interpreter does when it starts.
        sys.__stdout__, sys.__stderr__ = self._out, self._err  # type: ignore[misc]

    def _reinstall(self) -> None:
        """Undo what a function has done to the streams; what it had put there may hold something that it printed."""
        self.flush()
        self._reopen()
        if self._out.closed or self._err.closed:
            self._out, self._err = _text(1, "<stdout>"), _text(2, "<stderr>")
        with contextlib.suppress(Exception):
            self._out.flush()
            self._err.flush()
        self._install()


def _bytes_in(fd: int) -> int:
    """Return how many bytes are in a pipe; 0 if a function has closed it."""
    count = array("i", [0])
    with contextlib.suppress(OSError):
        fcntl.ioctl(fd, termios.FIONREAD, count)
    return count[0]


def _text(fd: int, name: str) -> io.TextIOWrapper:
    """Return a stream as the interpreter makes them for a terminal: by lines. No letter keeps it from printing."""
    raw = io.FileIO(fd, "w", closefd=False)
    raw.name = name
    return io.TextIOWrapper(io.BufferedWriter(raw), encoding="utf-8", errors="backslashreplace", line_buffering=True)
