"""What attempts have printed and not been heard saying yet: gathered, bounded, in order. No I/O.

The newest is kept: where the dispatcher takes less than a function prints, the oldest pieces are dropped, and the
places that the others have tell how much that was.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Final

from everfaas_core.model.output import OUTPUT_BYTES_MAX, PIECE_BYTES_MAX, PIECE_COST_BYTES, Printed, Progressed, Stream
from everfaas_core.wire.messages import Held, Outcome, Said

GATHER_S: Final = 0.1
"""What running tasks print is said at once, and then gathered for so long; all of it before their outcomes."""

SAID_BYTES_MAX: Final = 1024 * 1024
"""Of one message, but for what has ended: that is said whole."""

KEPT_BYTES_MAX: Final = 16 * 1024 * 1024
"""Of all attempts together, while nobody listens."""


class _Speech:
    """One attempt's."""

    __slots__ = ("end", "ended", "pieces", "progress", "size_bytes", "tails")

    def __init__(self) -> None:
        self.end = 0  # bytes so far
        self.pieces: deque[tuple[Stream, int, bytearray]] = deque()
        self.size_bytes = 0  # of the pieces, with what each costs
        self.tails: dict[Stream, bytes] = {}  # the beginning of a character
        self.progress: Progressed | None = None
        self.ended = False

    @property
    def pending(self) -> bool:
        return bool(self.pieces) or self.progress is not None

    def add(self, stream: Stream, data: bytes) -> None:
        if tail := self.tails.pop(stream, b""):
            data = tail + data
        if (whole := whole_characters(data)) < len(data):
            self.tails[stream] = data[whole:]
            data = data[:whole]
        self._append(stream, data)

    def finish(self) -> None:
        self.ended = True
        for stream, tail in self.tails.items():
            self._append(stream, tail)
        self.tails.clear()

    def _append(self, stream: Stream, data: bytes) -> None:
        while data:
            if self.pieces and self.pieces[-1][0] is stream:
                last = self.pieces[-1][2]
                if len(last) + len(data) <= PIECE_BYTES_MAX:
                    last += data
                    self.size_bytes += len(data)
                    self.end += len(data)
                    return
            part = data if len(data) <= PIECE_BYTES_MAX else data[: whole_characters(data[:PIECE_BYTES_MAX])]
            self.pieces.append((stream, self.end, bytearray(part)))
            self.size_bytes += len(part) + PIECE_COST_BYTES
            self.end += len(part)
            data = data[len(part) :]

    def drop_first(self) -> int:
        """Drop the oldest piece; return what that saves."""
        saved = len(self.pieces.popleft()[2]) + PIECE_COST_BYTES
        self.size_bytes -= saved
        return saved

    def take(self, held: Held, room_bytes: int) -> list[Printed]:
        """Take out the oldest pieces, until they come to `room_bytes`."""
        taken = []
        while self.pieces and room_bytes > 0:
            stream, start, data = self.pieces[0]
            room_bytes -= self.drop_first()
            taken.append(Printed(held[0], held[1], stream, start, bytes(data)))
        return taken


class Speeches:
    """Those of all attempts of a worker. Instants are monotonic seconds."""

    def __init__(self) -> None:
        self._speeches: dict[Held, _Speech] = {}
        self._size_bytes = 0
        self._ended = False  # some attempt has ended with something left to say
        self._said_at = float("-inf")

    def add(self, held: Held, stream: Stream, data: bytes) -> None:
        """Take in what an attempt has printed."""
        speech = self._speeches.get(held)
        if speech is None:
            speech = self._speeches[held] = _Speech()
        before = speech.size_bytes
        speech.add(stream, data)
        while speech.size_bytes > OUTPUT_BYTES_MAX:
            speech.drop_first()
        self._size_bytes += speech.size_bytes - before
        if self._size_bytes > KEPT_BYTES_MAX:
            self._make_room()

    def progress(self, progress: Progressed) -> None:
        """Take in how far an attempt is; only the last word counts."""
        self._speeches.setdefault((progress.task_id, progress.attempt), _Speech()).progress = progress

    def __bool__(self) -> bool:
        return bool(self._speeches)

    def end(self, outcomes: Iterable[Outcome]) -> None:
        """Attempts have ended: they say nothing more."""
        for outcome in outcomes:
            held = (outcome.task_id, outcome.attempt)
            if (speech := self._speeches.get(held)) is not None:
                self._end(held, speech)

    def _end(self, held: Held, speech: _Speech) -> None:
        before = speech.size_bytes
        speech.finish()
        self._size_bytes += speech.size_bytes - before
        if speech.pending:
            self._ended = True
        else:
            del self._speeches[held]

    def due(self) -> float | None:
        """Return from when on there is something to say; None: there is nothing."""
        if self._ended:
            return 0.0
        if any(speech.pending for speech in self._speeches.values()):
            return self._said_at + GATHER_S
        return None

    def take(self, now: float) -> Said | None:
        """Return what is to be said now, if anything is. It is not said twice."""
        if not self._speeches or (due := self.due()) is None or now < due:
            return None
        printed: list[Printed] = []
        progress: list[Progressed] = []
        room_bytes = SAID_BYTES_MAX
        for held, speech in sorted(self._speeches.items(), key=_not_ended):
            if speech.progress is not None:
                progress.append(speech.progress)
                speech.progress = None
            before = speech.size_bytes
            printed += speech.take(held, KEPT_BYTES_MAX if speech.ended else room_bytes)
            self._size_bytes -= before - speech.size_bytes
            room_bytes -= before - speech.size_bytes
            if speech.ended:
                del self._speeches[held]
            elif printed and printed[-1].task_id == held[0]:  # whoever has got room comes last the next time
                self._speeches[held] = self._speeches.pop(held)
        self._ended = False
        self._said_at = now
        return Said(tuple(printed), tuple(progress))

    def _make_room(self) -> None:
        """Drop from those who came first."""
        for speech in self._speeches.values():
            while speech.pieces and self._size_bytes > KEPT_BYTES_MAX:
                self._size_bytes -= speech.drop_first()


def _not_ended(entry: tuple[Held, _Speech]) -> bool:
    return not entry[1].ended


def whole_characters(data: bytes) -> int:
    """Return how many bytes of UTF-8 text there are before a character that is not complete; all, if it is none."""
    for back in range(1, min(len(data), 3) + 1):
        byte = data[-back]
        if byte & 0xC0 != 0x80:
            length = 4 if byte >= 0xF0 else 3 if byte >= 0xE0 else 2 if byte >= 0xC0 else 1
            return len(data) - back if length > back else len(data)
    return len(data)
