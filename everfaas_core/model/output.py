"""What tasks print, and how far they are: from the slot to the store, and what a reader gets of it.

All that an attempt prints, on both streams, is one row of bytes: each piece says where it begins in it. So a piece
that is told twice is known, and what was left out on the way shows as a gap between two pieces.
"""

from __future__ import annotations

import math
import re
from enum import StrEnum
from typing import Final

from msgspec import Struct

from everfaas_core.model.ids import TaskId
from everfaas_core.model.states import Status

OUTPUT_BYTES_MAX: Final = 1024 * 1024
"""What is kept of the output of a task, the newest of it, over all of its attempts."""

PIECE_COST_BYTES: Final = 64
"""What a piece counts besides its text, so that a million short ones are bounded, too."""

PIECE_BYTES_MAX: Final = 64 * 1024  # of text

MESSAGE_CHARS_MAX: Final = 200  # of a progress

_CURSOR: Final = re.compile(r"([0-9]{1,9})-([0-9]{1,16})")


class Stream(StrEnum):
    """Where it was printed."""

    STDOUT = "stdout"
    STDERR = "stderr"


class Printed(Struct, frozen=True, array_like=True):
    """A piece of what an attempt has printed. `start`: how many bytes, on both streams, came before it."""

    task_id: TaskId
    attempt: int
    stream: Stream
    start: int
    text: bytes

    @property
    def end(self) -> int:
        """Return where the next piece begins."""
        return self.start + len(self.text)


class Progressed(Struct, frozen=True, array_like=True):
    """How far an attempt says it is: `done` of `total` (None: it does not know)."""

    task_id: TaskId
    attempt: int
    done: int | float
    total: int | float | None = None
    message: str = ""


class Progress(Struct, frozen=True, kw_only=True):
    """The latest word of a task's latest attempt on how far it is."""

    done: int | float
    total: int | float | None
    message: str
    at_ms: int


class LogPiece(Struct, frozen=True, kw_only=True):
    """A piece of the log of a task. A reader that gives `cursor` back goes on behind it."""

    attempt: int
    stream: Stream
    start: int
    text: bytes
    at_ms: int  # when it was stored
    cursor: str


class LogPage(Struct, frozen=True, kw_only=True):
    """Pieces of the log of a task, in order, and the task's status at the time of reading."""

    status: Status
    pieces: tuple[LogPiece, ...]
    cursor: str
    more: bool  # there are more than fit into this page


def cursor_of(attempt: int, end: int) -> str:
    """Return the cursor behind the first `end` bytes of an attempt."""
    return f"{attempt}-{end}"


def read_cursor(cursor: str | None) -> tuple[int, int]:
    """Return the attempt and the number of bytes that a cursor stands for. Raises ValueError for what is none."""
    if cursor is None:
        return 0, 0
    match = _CURSOR.fullmatch(cursor, endpos=32)
    if match is None or len(cursor) > 32 or not cursor.isascii():
        raise ValueError(f"a cursor of a log looks like 1-2048, not like {cursor[:32]!r}")
    return int(match[1]), int(match[2])


def left_out(cursor: str | None, piece: LogPiece) -> int:
    """Return how many bytes are missing before a piece, for a reader who is at `cursor`."""
    attempt, end = read_cursor(cursor)
    return max(piece.start - (end if attempt == piece.attempt else 0), 0)


def number_of(value: object, what: str) -> int | float:
    """Return a number that every client can read. Raises TypeError or ValueError."""
    if isinstance(value, int) and abs(value) < 2**53:
        return int(value)
    try:
        if isinstance(value, str | bytes):
            raise TypeError
        number = float(value)  # type: ignore[arg-type]  # whatever is a number, those of NumPy too
    except TypeError:
        raise TypeError(f"{what} has to be a number, not {type(value).__name__}") from None
    if not math.isfinite(number):
        raise ValueError(f"{what} has to be a finite number, not {number}")
    return number
