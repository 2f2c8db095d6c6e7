"""What a dispatcher asks of the memory store: one turn, in the order that `Turn` prescribes."""

from __future__ import annotations

import heapq
from collections.abc import Collection, Iterable
from typing import Final

from everfaas_core.model.failure import failure_payload
from everfaas_core.model.ids import DispatcherId, WorkerId
from everfaas_core.model.records import (
    Adopt,
    AdoptedTask,
    AttemptRecord,
    ClaimedTask,
    Finish,
    Requeue,
    Start,
    Turn,
    TurnReply,
)
from everfaas_core.model.states import Cause, Status

from . import logs
from .tables import ATTEMPTS_KEPT, Dispatcher, Tables, Task

SHARE: Final = 8  # one pick of so many goes to the least urgent level
DRAIN_KEPT_S: Final = 60.0  # how long a drain outlives the last report of its worker, which may change dispatchers
BACKOFF_S_MAX: Final = 3600.0
_LOST: Final = "the dispatcher that ran it was lost, and its attempts are used up"


def exchange(tables: Tables, turn: Turn) -> TurnReply:
    """Apply a turn; the caller holds the lock."""
    me = turn.dispatcher_id
    if turn.printed or turn.progress:
        logs.take(tables, turn)
    finished = tuple([finish(tables, me, item) for item in turn.finishes])
    requeue(tables, me, turn.requeues)
    started = tuple([start(tables, me, item) for item in turn.starts])
    lost = _regain(tables, turn)
    adoptions = adopts(tables, turn, forgets=me in tables.evicted or lost.evicted)
    evicted = lease(tables, turn) or lost.evicted if _holds(turn) else False
    adopted: list[AdoptedTask] = []
    if _sweeps(turn):
        tables.promote()
        end_late(tables)
        tables.expire()
        if not evicted:
            adopted = _held(tables, me, lost.adopted)
            adopted += take_over(tables, me, turn.dead)
    claimed: list[ClaimedTask] = []
    if turn.claim > 0 and not evicted:
        claimed = _unstarted(tables, me, lost.claimed)
        claimed += claim(tables, me, turn.claim - len(claimed), turn.claim_bytes)
    due_s = tables.next_due_s() if _sweeps(turn) or turn.claim > 0 else None
    if 0 < len(claimed) < turn.claim and any(tables.queues):
        due_s = 0.0  # stopped by the bytes: ask again
    return TurnReply(
        finished=finished,
        started=started,
        adoptions=adoptions,
        functions=tuple([tables.functions.get(function_id) for function_id in turn.functions]),
        claimed=tuple(claimed),
        adopted=tuple(adopted),
        cancels=tuple(tables.dispatchers[me].cancels) if _holds(turn) else (),
        next_due_s=0.0 if evicted and turn.claim > 0 else due_s,
        drains=hear_drains(tables, turn),
        evicted=evicted,
    )


def _sweeps(turn: Turn) -> bool:
    return turn.sweep or bool(turn.dead)


def _holds(turn: Turn) -> bool:
    """Tell whether a turn comes from a dispatcher that holds, or will hold, claims under its lease."""
    return turn.report is not None or _sweeps(turn) or turn.claim > 0 or bool(turn.adopts)


def lose(tables: Tables, me: DispatcherId, reply: TurnReply) -> None:
    """Take note that an answer did not arrive: what it gave is given again by the next turn that asks for such."""
    before = tables.lost.get(me, TurnReply())
    tables.lost[me] = TurnReply(
        claimed=before.claimed + reply.claimed,
        adopted=before.adopted + reply.adopted,
        evicted=before.evicted or reply.evicted,
    )


def _regain(tables: Tables, turn: Turn) -> TurnReply:
    """Return what a lost answer gave and this turn asks for, and keep the rest for another."""
    lost = tables.lost.pop(turn.dispatcher_id, None)
    if lost is None:
        return TurnReply()
    rest = TurnReply(
        claimed=() if turn.claim > 0 else lost.claimed,
        adopted=() if _sweeps(turn) else lost.adopted,
        evicted=lost.evicted and not _holds(turn),
    )
    if rest != TurnReply():
        tables.lost[turn.dispatcher_id] = rest
    return lost


def finish(tables: Tables, me: DispatcherId, item: Finish) -> bool:
    """Write a terminal record, fenced by its attempt."""
    task = tables.tasks.get(item.task_id)
    if task is None or task.attempt != item.attempt:
        return False
    if task.is_terminal:
        return (task.status, task.cause) == (item.status, item.cause)
    if task.worker is None and task.owner != me:
        return False  # the attempt has ended; only the dispatcher that holds the task may end it before the next
    tables.release(task, item.cause, item.run_s)
    tables.conclude(task, item.status, item.cause, item.result, item.error)
    return True


def requeue(tables: Tables, me: DispatcherId, items: Iterable[Requeue]) -> None:
    """Put tasks back, the first in front; an attempt is charged at most once."""
    for item in reversed(list(items)):
        task = tables.tasks.get(item.task_id)
        if task is None or task.is_terminal or task.owner != me or task.attempt != item.attempt:
            continue
        if tables.release(task, item.cause) and item.charged:
            task.charged += 1
        task.error = item.error or task.error
        tables.put_back(task, item.delay_s)


def start(tables: Tables, me: DispatcherId, item: Start) -> bool:
    """Store an attempt as RUNNING, if the task is ours, nobody cancelled it, and it has time left."""
    task = tables.tasks.get(item.task_id)
    if task is None or task.is_terminal or task.owner != me:
        return False
    if task.worker is not None:
        return (task.attempt, task.worker, task.bound) == (item.attempt, item.worker, item.bound)
    now = tables.now_ms()
    if task.deadline_ms is not None and task.deadline_ms <= now:
        tables.release(task, Cause.DEADLINE)
        tables.conclude_late(task)
        return False
    if item.attempt != task.attempt + 1:
        return False
    task.status, task.attempt, task.worker, task.bound = Status.RUNNING, item.attempt, item.worker, item.bound
    task.adopted = item.attempt, item.epoch
    record = AttemptRecord(attempt=item.attempt, worker=item.worker, leased_ms=task.leased_ms, started_ms=now)
    task.attempts = [*task.attempts[1 - ATTEMPTS_KEPT :], record]
    return True


def adopts(tables: Tables, turn: Turn, *, forgets: bool) -> tuple[ClaimedTask | None, ...]:
    """Move claims to the dispatcher that their workers went to; to none that is about to forget what it holds."""
    if turn.adopts:
        tables.dispatchers.setdefault(turn.dispatcher_id, Dispatcher(_until_ms(tables, turn)))
    return tuple([None if forgets else _adopt(tables, turn.dispatcher_id, item) for item in turn.adopts])


def _adopt(tables: Tables, me: DispatcherId, item: Adopt) -> ClaimedTask | None:
    task = tables.tasks.get(item.task_id)
    if task is None or task.attempt != item.attempt or task.worker != item.worker or task.bound:
        return None
    attempt, epoch = task.adopted
    if attempt == item.attempt and item.epoch < epoch:
        return None
    task.adopted = item.attempt, item.epoch
    if task.owner in tables.dispatchers:
        tables.dispatchers[task.owner].claims.pop(task.task_id, None)
        tables.dispatchers[task.owner].cancels.pop(task.task_id, None)
    tables.hold(task, me)
    return tables.describe(task)


def hear_drains(tables: Tables, turn: Turn) -> tuple[WorkerId, ...]:
    """Return the reported workers that were asked to leave, and forget those that nobody reports any more."""
    if turn.report is None:
        return ()
    now = tables.now_ms()
    asked = tuple([w.worker_id for w in turn.report.workers if w.worker_id in tables.drains])
    tables.drains.update(dict.fromkeys(asked, now))
    for worker_id in [worker_id for worker_id, at in tables.drains.items() if at <= now - DRAIN_KEPT_S * 1000]:
        del tables.drains[worker_id]
    return asked


def lease(tables: Tables, turn: Turn) -> bool:
    """Renew a lease, or make one, so that no claim is without; return whether the old one was taken away."""
    me = turn.dispatcher_id
    until = _until_ms(tables, turn)
    known = tables.dispatchers.setdefault(me, Dispatcher(until))
    if turn.report is not None:
        known.lease_ms, known.report = until, turn.report
    if me in tables.evicted:
        del tables.evicted[me]
        return True
    return False


def _until_ms(tables: Tables, turn: Turn) -> int:
    return tables.now_ms() + max(1, round(turn.lease_s * 1000))


def claim(tables: Tables, me: DispatcherId, count: int, bytes_max: int) -> list[ClaimedTask]:
    """Give out queued tasks: most urgent first, but one pick of SHARE to the least urgent.

    The task whose payload comes to `bytes_max`, with those before it, is the last one.
    """
    tables.promote()
    claimed: list[ClaimedTask] = []
    now = tables.now_ms()
    size_bytes = 0
    while len(claimed) < count and size_bytes < bytes_max:
        levels = [queue for queue in tables.queues if queue]
        if not levels:
            tables.waiting.add(me)
            break
        low_turn = tables.picks % SHARE == SHARE - 1
        if len(levels) > 1:
            tables.picks += 1
        task_id, _ = levels[0 if low_turn else -1].popitem(last=False)
        task = tables.tasks[task_id]
        if task.deadline_ms is not None and task.deadline_ms <= now:
            tables.conclude_late(task)
            continue
        task.leased_ms = now
        tables.hold(task, me)
        claimed.append(tables.describe(task))
        size_bytes += len(task.spec.payload)
    return claimed


def end_late(tables: Tables) -> None:
    """End the tasks that nobody holds and whose deadline has passed."""
    now = tables.now_ms()
    while tables.deadlines and tables.deadlines[0][0] <= now:
        task = tables.tasks.get(heapq.heappop(tables.deadlines)[1])
        if task is not None and not task.is_terminal and task.owner is None:
            tables.dequeue(task)
            tables.conclude_late(task)


def take_over(tables: Tables, me: DispatcherId, killed: Collection[DispatcherId]) -> list[AdoptedTask]:
    """Take the claims of dispatchers whose lease has run out: back to the queue, or over to us with their worker.

    `killed` are known to be dead, whatever is left of their lease.
    """
    adopted: list[AdoptedTask] = []
    now = tables.now_ms()
    for name, dead in list(tables.dispatchers.items()):
        if name == me or (dead.lease_ms > now and name not in killed):
            continue
        tables.evict(name)
        adopted += remove(tables, name, me)
    return adopted


def remove(tables: Tables, name: DispatcherId, heir: DispatcherId) -> list[AdoptedTask]:
    """Forget a dispatcher, and settle its claims."""
    adopted: list[AdoptedTask] = []
    dead = tables.dispatchers.pop(name)
    tables.waiting.discard(name)
    for task_id in sorted(dead.claims, reverse=True):
        task = tables.tasks[task_id]
        if task.worker is not None and not task.bound:
            tables.hold(task, heir)
            adopted.append(AdoptedTask(task=tables.describe(task), worker=task.worker, epoch=task.adopted[1]))
        elif task.worker is None:
            tables.release(task, Cause.GIVEN_BACK)
            tables.put_back(task, 0)
        else:
            _bury(tables, task)
    return adopted


def _bury(tables: Tables, task: Task) -> None:
    """End an attempt that died with its dispatcher."""
    tables.release(task, Cause.DISPATCHER_LOST)
    task.charged += 1
    if task.charged >= task.max_attempts and not task.cancelled:
        result = failure_payload(Cause.DISPATCHER_LOST, _LOST)
        tables.conclude(task, Status.FAILED, Cause.DISPATCHER_LOST, result, _LOST)
    else:
        tables.put_back(task, min(task.backoff_s * 2 ** min(task.charged - 1, 30), BACKOFF_S_MAX))


def _unstarted(tables: Tables, me: DispatcherId, given: Iterable[ClaimedTask]) -> list[ClaimedTask]:
    found = [tables.tasks.get(item.task_id) for item in given]
    return [tables.describe(task) for task in found if task is not None and task.owner == me and task.worker is None]


def _held(tables: Tables, me: DispatcherId, given: Iterable[AdoptedTask]) -> list[AdoptedTask]:
    found = [(item, tables.tasks.get(item.task.task_id)) for item in given]
    return [item for item, task in found if task is not None and task.owner == me and task.worker is not None]
