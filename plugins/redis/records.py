"""The store's replies as records."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

import msgspec

from everfaas_core.model.ids import FunctionId, TaskId, WorkerId
from everfaas_core.model.output import LogPage, LogPiece, Progress, Stream, cursor_of
from everfaas_core.model.records import (
    AdoptedTask,
    AttemptRecord,
    ClaimedTask,
    FunctionOptions,
    FunctionRecord,
    GroupPage,
    GroupResult,
    TaskRecord,
)
from everfaas_core.model.states import Cause, Status

CLAIMED_VALUES: Final = 11  # what `describe` in prelude.lua gives of a task
ATTEMPTS_KEPT: Final = 100  # of one task, in its timeline; older ones are dropped

_options: Final = msgspec.msgpack.Decoder(FunctionOptions)
_word: Final = msgspec.msgpack.Decoder(tuple[int | float, int | float | None, str])
_names: Final = msgspec.msgpack.Decoder(tuple[str, ...])


def claimed(rows: Sequence[Any]) -> Iterator[ClaimedTask]:
    """Read tasks from a flat reply."""
    for i in range(0, len(rows), CLAIMED_VALUES):
        yield one_claimed(rows[i : i + CLAIMED_VALUES])


def one_claimed(row: Sequence[Any]) -> ClaimedTask:
    """Read one task."""
    task, function, payload, attempt, charged, priority, most, backoff, timeout, rest, retry_on = row
    return ClaimedTask(
        task_id=TaskId(task.decode()),
        function_id=FunctionId(function.decode()),
        payload=payload,
        attempt=int(attempt),
        charged=int(charged),
        priority=int(priority),
        max_attempts=int(most),
        retry_backoff_s=float(backoff or 0),
        retry_on=_names.decode(retry_on) if retry_on else (),
        timeout_s=float(timeout) if timeout else None,
        remaining_s=int(rest) / 1000 if rest else None,
    )


def adopted(rows: Sequence[Any]) -> Iterator[AdoptedTask]:
    """Read tasks, each with its worker and that one's epoch in front, from a flat reply."""
    for i in range(0, len(rows), CLAIMED_VALUES + 2):
        task = one_claimed(rows[i + 2 : i + 2 + CLAIMED_VALUES])
        yield AdoptedTask(task=task, worker=WorkerId(rows[i].decode()), epoch=int(rows[i + 1]))


def functions(ids: Sequence[FunctionId], rows: Sequence[Any]) -> list[FunctionRecord | None]:
    """Read functions from a flat reply of four values each."""
    found: list[FunctionRecord | None] = []
    for function_id, i in zip(ids, range(0, len(rows), 4), strict=True):
        name, payload, options, created = rows[i : i + 4]
        if name is None:
            found.append(None)
            continue
        record = FunctionRecord(
            function_id=function_id,
            name=name.decode(),
            payload=payload,
            options=_options.decode(options),
            created_ms=int(created),
        )
        found.append(record)
    return found


def task(task_id: TaskId, row: Sequence[Any] | None) -> TaskRecord | None:
    """Read one record from the reply of records.lua."""
    if row is None:
        return None
    status, function, sub, priority, most, due, deadline, timeout, group, tags = row[:10]
    ended, expires, cause, error, cancel, attempt, retry_of, payload_size, result_size = row[10:19]
    progress, name, first = row[19:22]
    return TaskRecord(
        task_id=task_id,
        function_id=FunctionId(function.decode()),
        function_name=name.decode(),
        status=Status(status.decode()),
        submitted_ms=int(sub),
        priority=int(priority),
        max_attempts=int(most),
        payload_size_bytes=payload_size,
        not_before_ms=int(due) if due else None,
        deadline_ms=int(deadline) if deadline else None,
        timeout_s=float(timeout) if timeout else None,
        group=group.decode() if group is not None else None,
        tags=_names.decode(tags) if tags else (),
        attempts=tuple(_attempts(first, row[22:])),
        ended_ms=int(ended) if ended else None,
        expires_ms=int(expires) if expires else None,
        cause=Cause(cause.decode()) if cause else None,
        error=error.decode() if error else None,
        result_size_bytes=result_size,
        cancel_requested=bool(cancel),
        retry_of=TaskId(retry_of.decode()) if retry_of else None,
        progress=_progress(progress, attempt) if progress else None,
    )


def _progress(value: bytes, latest: bytes) -> Progress | None:
    """Read what an attempt has said of its progress, if it is the latest one."""
    attempt, at_ms, word = value.split(b"|", 2)
    if attempt != latest:
        return None
    done, total, message = _word.decode(word)
    return Progress(done=done, total=total, message=message, at_ms=int(at_ms))


def log_page(reply: Sequence[Any], cursor: str | None) -> LogPage:
    """Read a page from the reply of log.lua to one who was at `cursor`."""
    pieces = tuple([_piece(*row) for row in zip(reply[2::4], reply[3::4], reply[4::4], reply[5::4], strict=True)])
    end = pieces[-1].cursor if pieces else cursor or cursor_of(0, 0)
    return LogPage(status=Status(reply[0].decode()), pieces=pieces, cursor=end, more=bool(reply[1]))


def _piece(place: bytes, stream: bytes, text: bytes, at_ms: bytes) -> LogPiece:
    attempt, end = map(int, place.split(b"-"))
    return LogPiece(
        attempt=attempt,
        stream=Stream(stream.decode()),
        start=end - len(text),
        text=text,
        at_ms=int(at_ms),
        cursor=cursor_of(attempt, end),
    )


def group_page(reply: Sequence[Any], results: Sequence[bytes | None]) -> GroupPage:
    """Read a page from the reply of group.lua, and its results; None for one whose record was deleted since."""
    cursor, tasks, ended, more = reply[:4]
    found = [
        GroupResult(
            task_id=TaskId(task.decode()),
            status=Status(status.decode()),
            result=result,
            cursor=number.decode(),
            tags=_names.decode(tags) if tags else (),
        )
        for task, number, status, tags, result in zip(
            reply[4::5], reply[5::5], reply[6::5], reply[8::5], results, strict=True
        )
        if result is not None
    ]
    pending = tasks - ended
    return GroupPage(ended=tuple(found), cursor=cursor.decode(), tasks=tasks, pending=pending, more=bool(more))


def _attempts(first: int, row: Sequence[bytes | None]) -> Iterator[AttemptRecord]:
    for i in range(0, len(row), 2):
        start, end = row[i], row[i + 1]
        if start is None:
            continue
        leased, started, worker = start.decode().split("|", 2)
        ended, cause, run = end.decode().split("|") if end else ("", "", "")
        yield AttemptRecord(
            attempt=first + i // 2,
            worker=WorkerId(worker),
            leased_ms=int(leased),
            started_ms=int(started),
            ended_ms=int(ended) if ended else None,
            cause=Cause(cause) if cause else None,
            run_s=float(run) if run else None,
        )
