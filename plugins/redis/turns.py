"""One turn of a dispatcher as script calls, and their replies as its answer."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator, Sequence
from typing import Any, Final, TypeVar

import msgspec
from msgspec import Struct

from everfaas_core.model.failure import failure_payload
from everfaas_core.model.ids import DispatcherId, TaskId, WorkerId
from everfaas_core.model.output import OUTPUT_BYTES_MAX, PIECE_COST_BYTES
from everfaas_core.model.records import (
    CLAIM_BYTES_MAX,
    AdoptedTask,
    ClaimedTask,
    Finish,
    FunctionRecord,
    Turn,
    TurnReply,
)
from everfaas_core.model.states import Cause

from . import records
from .blobs import is_large
from .server import Call

ITEMS_MAX: Final = 1000  # of one script call: others wait while it runs
SWEEP_MAX: Final = 1000  # tasks that each part of one sweep looks at
CANCELS_MAX: Final = 1000  # told in one turn; the others in the next ones
CLAIM_MAX: Final = 2048  # tasks of one claim
SWEEP_BYTES: Final = 32 * 1024 * 1024  # of payloads, after which a sweep stops taking over
DRAIN_KEPT_S: Final = 60.0  # how long a drain outlives the last report of its worker, which may change dispatchers

_DEADLINE: Final = "exceeded deadline before it could be run"
_LOST: Final = "the dispatcher that ran it was lost, and its attempts are used up"
_CANCELLED: Final = "cancelled"
_LOST_RESULT: Final = 2  # what finish.lua answers for a large result that is not there

T = TypeVar("T")


class Tag:
    """Marks what one call gave away, so that the same is given again when its answer did not arrive."""

    def __init__(self) -> None:
        self._origin = os.urandom(4).hex()  # another store object must not take what this one was given
        self._number = 0
        self.lost = False

    def __str__(self) -> str:
        return f"{self._origin}{self._number}"

    def arrived(self) -> None:
        """The answer is here: what comes next is another call."""
        self.lost = False
        self._number += 1

    def revoke(self) -> None:
        """Take `arrived` back."""
        self.lost = True
        self._number -= 1


class Tags:
    """The tags of one dispatcher. Used by one thread at a time."""

    def __init__(self) -> None:
        self.claim = Tag()
        self.sweep = Tag()
        self.lease = Tag()
        self.leased = False  # the store has given us a lease: if it is gone without a mark, so is everything
        self.turn = 0

    def begin(self, now_us: int) -> None:
        """Number a turn, or one more try of it: later than all before, whatever the clock does."""
        self.turn = max(now_us, self.turn + 1)

    def of(self, turn: Turn) -> list[Tag]:
        """Return those that a turn makes use of."""
        used = [(self.claim, turn.claim > 0), (self.sweep, _sweeps(turn)), (self.lease, _holds(turn))]
        return [tag for tag, is_used in used if is_used]


class Conclusions:
    """What the store itself writes as results of tasks that it ends."""

    def __init__(self) -> None:
        self.deadline = (failure_payload(Cause.DEADLINE, _DEADLINE), _DEADLINE)
        self.lost = (failure_payload(Cause.DISPATCHER_LOST, _LOST), _LOST)
        self.cancelled = (failure_payload(Cause.CANCELLED, _CANCELLED), _CANCELLED)


def calls_of(turn: Turn, tags: Tags, results: Conclusions) -> list[Call]:
    """Return the calls of a turn, in the order in which they have to be applied."""
    me = turn.dispatcher_id
    calls = [*_output(turn), *_finishes(turn)]
    calls += [Call("requeue", (me, *results.cancelled, *arguments)) for arguments in _requeues(turn)]
    for arguments in _starts(turn):
        limits = (me, tags.turn, records.ATTEMPTS_KEPT)
        calls.append(Call("start", (*limits, *results.deadline, *arguments)))
    for arguments in _adopts(turn):
        calls.append(Call("adopt", (me, tags.turn, str(tags.lease), *arguments)))
    if _holds(turn):
        calls.append(_lease(turn, tags))
    if _sweeps(turn):
        fixed = (me, tags.turn, str(tags.sweep), str(tags.lease), _flag(tags.sweep.lost), SWEEP_MAX, SWEEP_BYTES)
        calls.append(Call("sweep", (*fixed, *results.deadline, *results.lost, *results.cancelled, *turn.dead)))
    if turn.functions:
        calls.append(Call("functions", turn.functions))
    if turn.claim > 0:
        asked = (me, tags.turn, str(tags.claim), str(tags.lease), _flag(tags.claim.lost), min(turn.claim, CLAIM_MAX))
        calls.append(Call("claim", (*asked, min(turn.claim_bytes, CLAIM_BYTES_MAX), *results.deadline)))
    return calls


def reply_of(turn: Turn, calls: Sequence[Call], replies: Sequence[Any]) -> TurnReply:
    """Put the replies of `calls_of` together."""
    finished: list[bool] = []
    started: list[bool] = []
    adoptions: list[ClaimedTask | None] = []
    functions: Sequence[FunctionRecord | None] = ()
    claimed: Sequence[ClaimedTask] = ()
    adopted: Sequence[AdoptedTask] = ()
    cancels: list[TaskId] = []
    drains: list[WorkerId] = []
    evicted = False
    due = -1
    for call, reply in zip(calls, replies, strict=True):
        match call.script:
            case "finish":
                finished += [bool(done) for done in reply]
            case "start":
                started += [bool(done) for done in reply]
            case "adopt":
                adoptions += [None if row is None else records.one_claimed(row) for row in reply]
            case "lease":
                evicted = bool(reply[0])
                cancels = [TaskId(task.decode()) for task in reply[1]]
                drains = [WorkerId(worker.decode()) for worker in reply[2]]
            case "sweep":
                due = reply[0]
                adopted = list(records.adopted(reply[1:]))
            case "functions":
                functions = records.functions(turn.functions, reply)
            case "claim":
                due = reply[0]
                claimed = list(records.claimed(reply[1:]))
    return TurnReply(
        finished=tuple(finished),
        started=tuple(started),
        adoptions=tuple(adoptions),
        functions=tuple(functions),
        claimed=tuple(claimed),
        adopted=tuple(adopted),
        cancels=tuple(cancels),
        next_due_s=due / 1000 if due >= 0 else None,
        drains=tuple(drains),
        evicted=evicted,
    )


def _holds(turn: Turn) -> bool:
    """Tell whether a turn comes from a dispatcher that holds, or will hold, claims under its lease."""
    return turn.report is not None or _sweeps(turn) or turn.claim > 0 or bool(turn.adopts)


def _sweeps(turn: Turn) -> bool:
    return turn.sweep or bool(turn.dead)


def _lease(turn: Turn, tags: Tags) -> Call:
    report, slots = b"", 0
    if turn.report is not None:
        report = msgspec.msgpack.encode(turn.report)
        slots = sum(worker.slots for worker in turn.report.workers)
    lease_ms = max(1, round(turn.lease_s * 1000))
    fixed = (turn.dispatcher_id, tags.turn, str(tags.lease), lease_ms, _flag(turn.report is not None))
    kept_ms = round(DRAIN_KEPT_S * 1000)
    return Call("lease", (*fixed, report, slots, CANCELS_MAX, _flag(tags.leased), kept_ms))


def _output(turn: Turn) -> Iterator[Call]:
    """Give the calls for what attempts have printed and how far they are, in their order."""
    for printed in _parts(turn.printed):
        texts: list[Any] = [OUTPUT_BYTES_MAX, PIECE_COST_BYTES]
        for piece in printed:
            texts += (piece.task_id, piece.attempt, piece.stream, piece.start, piece.text)
        yield Call("output", texts)
    for progress in _parts(turn.progress):
        words: list[Any] = [OUTPUT_BYTES_MAX, PIECE_COST_BYTES]
        for one in progress:
            word = msgspec.msgpack.encode((one.done, one.total, one.message))
            words += (one.task_id, one.attempt, "progress", 0, word)
        yield Call("output", words)


def _finishes(turn: Turn) -> Iterator[Call]:
    """Give the calls for finishes, in their order. Those with large results, which are elsewhere, go by themselves."""
    for large, items in itertools.groupby(turn.finishes, lambda item: is_large(item.result)):
        yield from _finish_calls(turn.dispatcher_id, list(items), apart=large)


def _finish_calls(dispatcher: DispatcherId, finishes: Sequence[Finish], *, apart: bool) -> Iterator[Call]:
    for items in _parts(finishes):
        arguments: list[Any] = [dispatcher, _flag(apart)]
        for item in items:
            run = "" if item.run_s is None else item.run_s
            result = len(item.result) if apart else item.result
            arguments += (item.task_id, item.attempt, item.status, item.cause, result, item.error or "", run)
        yield Call("finish", arguments)


class LostResults(Struct, frozen=True):
    """Finishes whose large results the server did not keep (out of memory, or stopped for long), to be made again."""

    calls: Sequence[Call]  # with the results in them: whatever brings work to its end may use memory beyond the limit
    places: Sequence[tuple[list[Any], int]]  # where the replies belong

    def put(self, replies: Sequence[Any]) -> None:
        """Put the replies in place of those that told of the loss."""
        for (reply, at), done in zip(self.places, itertools.chain(*replies), strict=True):
            reply[at] = done


def lost_results(turn: Turn, calls: Sequence[Call], replies: Sequence[Any]) -> LostResults | None:
    """Return what of a turn's finishes has to be made again, if anything."""
    finishes = [reply for call, reply in zip(calls, replies, strict=True) if call.script == "finish"]
    places = [(reply, at) for reply in finishes for at in range(len(reply))]
    lost = [
        (place, item) for place, item in zip(places, turn.finishes, strict=True) if place[0][place[1]] == _LOST_RESULT
    ]
    if not lost:
        return None
    again = list(_finish_calls(turn.dispatcher_id, [item for _, item in lost], apart=False))
    return LostResults(again, [place for place, _ in lost])


def _requeues(turn: Turn) -> Iterator[Sequence[Any]]:
    for items in _parts(turn.requeues):
        arguments: list[Any] = []
        for item in items:
            delay = max(0.0, item.delay_s)
            arguments += (item.task_id, item.attempt, item.cause, _flag(item.charged), delay, item.error or "")
        yield arguments


def _starts(turn: Turn) -> Iterator[Sequence[Any]]:
    for items in _parts(turn.starts):
        arguments: list[Any] = []
        for item in items:
            arguments += (item.task_id, item.attempt, item.worker, _flag(item.bound), item.epoch)
        yield arguments


def _adopts(turn: Turn) -> Iterator[Sequence[Any]]:
    for items in _parts(turn.adopts):
        arguments: list[Any] = []
        for item in items:
            arguments += (item.task_id, item.attempt, item.worker, item.epoch)
        yield arguments


def _parts(items: Sequence[T]) -> Iterator[Sequence[T]]:
    for start in range(0, len(items), ITEMS_MAX):
        yield items[start : start + ITEMS_MAX]


def _flag(value: bool) -> str:
    return "1" if value else ""
