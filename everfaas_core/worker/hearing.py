"""The worker's side of its slots' output: reads the pipes, and finds out which attempt each byte belongs to.

A read takes all that is in a pipe. What a mark follows is clear (see `marks`). What no mark follows yet is of the task
that runs, if the same one ran before and after the read: whatever an earlier one had printed would have been marked
before this one began. If there was a change in between, the next read will tell.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Sequence
from typing import Final

from everfaas_core.model.output import Stream
from everfaas_core.ports import Selector
from everfaas_core.wire.messages import Held
from everfaas_core.worker.cells import BEGUN, ENDED, MARKS, NONCE_BYTES, OUT, READS, Cells, make_memory
from everfaas_core.worker.marks import Parser, Text
from everfaas_core.worker.slot_state import SlotState
from everfaas_core.worker.speech import Speeches

PIPE_BYTES: Final = 64 * 1024
"""What a pipe holds, and a read takes at once. A function that prints more waits for the worker's next turn."""

PAUSE_S: Final = 0.05
"""How long the worker lets more come together after it has read a little, before it looks again."""

CHATTY_BYTES: Final = PIPE_BYTES // 4
"""Who has printed so much since the last look is read again at once."""

UNSURE_BYTES_MAX: Final = 1024 * 1024
LAST_READS_MAX: Final = 16  # of what a dead slot had printed: its children may still be at it

_STREAMS: Final = (Stream.STDOUT, Stream.STDERR)

STRAYS_BYTES_MAX: Final = 4096  # kept of what is nobody's, to tell why a slot could not start


class _Ear:
    """To one life of a slot."""

    def __init__(self, cell: memoryview, nonce: bytes) -> None:
        self.cell = cell
        self.parsers = (Parser(nonce), Parser(nonce))
        self.marks = 0
        self.watched = True
        self.strays = b""
        self.fds: list[int] = []  # one for each stream; -1: it has ended


class Hearing:
    """All slots' output of one worker. Never blocks.

    `slots` are the machine's, which know what each one runs; `holds` tells whether an attempt is running.
    """

    def __init__(self, slots: Sequence[SlotState], speeches: Speeches, holds: Callable[[Held], bool]) -> None:
        self.cells_fd = make_memory(len(slots))
        self._cells = Cells(self.cells_fd)
        self._states = slots
        self._speeches = speeches
        self._holds = holds
        self._ears: dict[int, _Ear] = {}
        self._slots: dict[int, int] = {}  # descriptor → slot
        self._look_at: dict[int, float] = {}  # slot → when to look again, without being woken
        self._selector: Selector | None = None

    def start(self, selector: Selector) -> None:
        """Use this selector for all slots."""
        self._selector = selector

    def open(self, slot: int) -> list[int]:
        """Make the pipes for a new life of a slot; return its ends, to be closed by the caller. Raises OSError."""
        nonce = os.urandom(NONCE_BYTES)
        self._cells.clear(slot, nonce)
        ear = _Ear(self._cells.cell(slot), nonce)
        theirs: list[int] = []
        try:
            for _ in _STREAMS:
                reader, writer = os.pipe()
                ear.fds.append(reader)
                theirs.append(writer)
                os.set_blocking(reader, False)
        except OSError:
            for fd in (*ear.fds, *theirs):
                os.close(fd)
            raise
        self._ears[slot] = ear
        for fd in ear.fds:
            self._slots[fd] = slot
            self._watch(fd)
        return theirs

    def close(self, slot: int) -> None:
        """Let go of a slot's pipes."""
        self._look_at.pop(slot, None)
        ear = self._ears.pop(slot, None)
        if ear is not None:
            for which, fd in enumerate(ear.fds):
                if fd >= 0:
                    self._hang_up(ear, which)

    def end(self) -> None:
        """Close all. Idempotent."""
        for slot in list(self._ears):
            self.close(slot)
        if self.cells_fd >= 0:
            os.close(self.cells_fd)
            self.cells_fd = -1

    # ── the loop ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def turn(self, now: float, ready_fds: Collection[int]) -> None:
        """Read what has come in, and look again where it was time to."""
        if not self._look_at and self._slots.keys().isdisjoint(ready_fds):
            return
        slots = {self._slots[fd] for fd in ready_fds if fd in self._slots}
        if self._look_at:
            slots.update([slot for slot, due in self._look_at.items() if now >= due])
        for slot in slots:
            self._listen(now, slot)

    def next_timer(self) -> float | None:
        """Return when to take a turn at the latest, or None."""
        return min(self._look_at.values()) if self._look_at else None

    def answered(self, slot: int) -> None:
        """Take in what a slot had printed before its answers; called when these came in, before they are reported."""
        ear = self._ears[slot]
        if ear.cell[MARKS] != ear.marks:
            ear.marks = ear.cell[MARKS]
            self._read(slot, ear)
            if any(parser.open for parser in ear.parsers):  # of the next task, perhaps, and it may print nothing more
                self._look_at[slot] = 0.0

    def last_words(self, slot: int) -> bytes:
        """Take in all that a dead slot had printed; return what is not of a task that it was running."""
        ear = self._ears[slot]
        for _ in range(LAST_READS_MAX):
            if not self._read(slot, ear):
                break
        return ear.strays

    def _listen(self, now: float, slot: int) -> None:
        """Read a slot's pipes, and let more come together if it has not printed much."""
        ear = self._ears[slot]
        count = self._read(slot, ear)
        unsure = any(parser.open for parser in ear.parsers)
        if count >= CHATTY_BYTES or not (count or unsure):
            self._look_at.pop(slot, None)
            self._watch_all(ear, on=True)
        else:
            self._look_at[slot] = now + PAUSE_S
            self._watch_all(ear, on=False)

    # ── reading ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def _read(self, slot: int, ear: _Ear) -> int:
        """Read all that is in the pipes of a slot, and hand on what is clear. Returns how many bytes came."""
        count = 0
        for which, stream in enumerate(_STREAMS):
            cell, parser = ear.cell, ear.parsers[which]
            before = cell[BEGUN], cell[ENDED]
            data = self._take(ear, which)
            after = cell[BEGUN], cell[ENDED]
            count += len(data)
            for item in parser.feed(data):
                if isinstance(item, Text):
                    self._add(ear, item.held, stream, item.data)
                elif self._holds((item.task_id, item.attempt)):
                    self._speeches.progress(item)
            if parser.open and before == after:
                begun, ended = before
                held = self._states[slot].begun(begun) if begun > ended else None
                self._add(ear, held, stream, parser.take(whole=False))
            elif len(parser.open) > UNSURE_BYTES_MAX:
                parser.take(whole=False)
        return count

    def _add(self, ear: _Ear, held: Held | None, stream: Stream, data: bytes) -> None:
        if held is not None and self._holds(held):
            self._speeches.add(held, stream, data)
        else:  # printed when no task ran
            ear.strays = (ear.strays + data)[-STRAYS_BYTES_MAX:]

    def _take(self, ear: _Ear, which: int) -> bytes:
        fd, cell = ear.fds[which], ear.cell
        if fd < 0:
            return b""
        cell[READS] += 1
        data = b""
        try:
            data = os.read(fd, PIPE_BYTES)
            cell[OUT + which] += len(data)
        except BlockingIOError:
            return b""
        finally:
            cell[READS] += 1
        if not data:
            self._hang_up(ear, which)
        return data

    def _hang_up(self, ear: _Ear, which: int) -> None:
        fd, ear.fds[which] = ear.fds[which], -1
        if self._selector is not None:
            self._selector.unregister(fd)
        self._slots.pop(fd, None)
        os.close(fd)

    def _watch_all(self, ear: _Ear, *, on: bool) -> None:
        if on == ear.watched:
            return
        ear.watched = on
        for fd in ear.fds:
            if fd >= 0 and on:
                self._watch(fd)
            elif fd >= 0 and self._selector is not None:
                self._selector.unregister(fd)

    def _watch(self, fd: int) -> None:
        if self._selector is not None:
            self._selector.register(fd)
