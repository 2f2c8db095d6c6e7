"""What tasks of the memory store have printed, and how far they are."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import dropwhile

from everfaas_core.model.ids import TaskId
from everfaas_core.model.output import (
    OUTPUT_BYTES_MAX,
    PIECE_COST_BYTES,
    LogPage,
    LogPiece,
    Printed,
    Progress,
    cursor_of,
    read_cursor,
)
from everfaas_core.model.records import Turn
from everfaas_core.ports import Notice

from .tables import Tables, Task


def take(tables: Tables, turn: Turn) -> None:
    """Keep what attempts that run have printed and told; the caller holds the lock."""
    now = tables.now_ms()
    printed: dict[TaskId, None] = {}
    for piece in turn.printed:
        task = tables.tasks.get(piece.task_id)
        if task is not None and _runs(task, piece.attempt) and _append(task, piece, now):
            printed[piece.task_id] = None
    for word in turn.progress:
        task = tables.tasks.get(word.task_id)
        if task is not None and _runs(task, word.attempt):
            progress = Progress(done=word.done, total=word.total, message=word.message, at_ms=now)
            task.progress = word.attempt, progress
    if printed:
        tables.notify("ended", Notice(printed=tuple(printed)))


def _runs(task: Task, attempt: int) -> bool:
    return task.worker is not None and task.attempt == attempt


def _append(task: Task, piece: Printed, now: int) -> bool:
    """Keep a piece, unless it is kept already, and drop the oldest ones for it."""
    if task.log and (piece.attempt, piece.end) <= _end(task.log[-1]):
        return False
    cursor = cursor_of(piece.attempt, piece.end)
    task.log.append(
        LogPiece(
            attempt=piece.attempt, stream=piece.stream, start=piece.start, text=piece.text, at_ms=now, cursor=cursor
        )
    )
    task.log_bytes += len(piece.text) + PIECE_COST_BYTES
    while task.log_bytes > OUTPUT_BYTES_MAX:
        task.log_bytes -= len(task.log.popleft().text) + PIECE_COST_BYTES
    return True


def _end(piece: LogPiece) -> tuple[int, int]:
    return piece.attempt, piece.start + len(piece.text)


def page(task: Task | None, cursor: str | None, bytes_max: int, attempt: int | None) -> LogPage | None:
    """Return what is kept behind a cursor. Raises ValueError for one that is none."""
    known = read_cursor(cursor)
    if task is None:
        return None
    found: list[LogPiece] = []
    behind = _behind(task, known, attempt)
    for piece in behind:
        found.append(piece)
        bytes_max -= len(piece.text)
        if bytes_max <= 0:
            break
    end = found[-1].cursor if found else cursor or cursor_of(0, 0)
    return LogPage(status=task.status, pieces=tuple(found), cursor=end, more=next(behind, None) is not None)


def _behind(task: Task, known: tuple[int, int], attempt: int | None) -> Iterator[LogPiece]:
    rest = dropwhile(lambda piece: _end(piece) <= known, task.log)
    return (piece for piece in rest if attempt is None or piece.attempt == attempt)


def progress(task: Task) -> Progress | None:
    """Return the latest word of the latest attempt."""
    return task.progress[1] if task.progress is not None and task.progress[0] == task.attempt else None
