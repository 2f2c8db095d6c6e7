"""What a dispatcher asks of the memory store: one turn, in the order that `Turn` prescribes."""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from typing import Final

from everfaas_core.model.failure import failure_payload
from everfaas_core.model.ids import DispatcherId
from everfaas_core.model.records import (
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

from .tables import ATTEMPTS_KEPT, Dispatcher, Tables, Task

SHARE: Final = 8  # one pick of so many goes to the least urgent level
_LOST: Final = "the dispatcher that ran it was lost, and its attempts are used up"


def exchange(tables: Tables, turn: Turn) -> TurnReply:
    """Apply a turn; the caller holds the lock."""
    me = turn.dispatcher_id
    finished = tuple([finish(tables, me, item) for item in turn.finishes])
    requeue(tables, me, turn.requeues)
    started = tuple([start(tables, me, item) for item in turn.starts])
    lost = _regain(tables, turn)
    holds = turn.report is not None or turn.sweep or turn.claim > 0
    evicted = lease(tables, turn) or lost.evicted if holds else False
    adopted: list[AdoptedTask] = []
    if turn.sweep:
        tables.promote()
        end_late(tables)
        tables.expire()
        if not evicted:
            adopted = [AdoptedTask(task=again.task, worker=again.worker) for again in _held(tables, me, lost.adopted)]
            adopted += take_over(tables, me)
    claimed: list[ClaimedTask] = []
    if turn.claim > 0 and not evicted:
        claimed = _unstarted(tables, me, lost.claimed)
        claimed += claim(tables, me, turn.claim - len(claimed))
    due_s = tables.next_due_s() if turn.sweep or turn.claim > 0 else None
    return TurnReply(
        finished=finished,
        started=started,
        functions=tuple([tables.functions.get(function_id) for function_id in turn.functions]),
        claimed=tuple(claimed),
        adopted=tuple(adopted),
        cancels=tuple(tables.dispatchers[me].cancels) if holds else (),
        next_due_s=0.0 if evicted and turn.claim > 0 else due_s,
        evicted=evicted,
    )


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
        adopted=() if turn.sweep else lost.adopted,
        evicted=lost.evicted and not (turn.report is not None or turn.sweep or turn.claim > 0),
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
    record = AttemptRecord(attempt=item.attempt, worker=item.worker, leased_ms=task.leased_ms, started_ms=now)
    task.attempts = [*task.attempts[1 - ATTEMPTS_KEPT :], record]
    return True


def lease(tables: Tables, turn: Turn) -> bool:
    """Renew a lease, or make one, so that no claim is without; return whether the old one was taken away."""
    me = turn.dispatcher_id
    until = tables.now_ms() + max(1, round(turn.lease_s * 1000))
    known = tables.dispatchers.setdefault(me, Dispatcher(until))
    if turn.report is not None:
        known.lease_ms, known.report = until, turn.report
    if me in tables.evicted:
        del tables.evicted[me]
        return True
    return False


def claim(tables: Tables, me: DispatcherId, count: int) -> list[ClaimedTask]:
    """Give out queued tasks: most urgent first, but one pick of SHARE to the least urgent."""
    tables.promote()
    claimed: list[ClaimedTask] = []
    now = tables.now_ms()
    while len(claimed) < count:
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
    return claimed


def end_late(tables: Tables) -> None:
    """End the tasks that nobody holds and whose deadline has passed."""
    now = tables.now_ms()
    while tables.deadlines and tables.deadlines[0][0] <= now:
        task = tables.tasks.get(heapq.heappop(tables.deadlines)[1])
        if task is not None and not task.is_terminal and task.owner is None:
            tables.dequeue(task)
            tables.conclude_late(task)


def take_over(tables: Tables, me: DispatcherId) -> list[AdoptedTask]:
    """Take the claims of dispatchers whose lease has run out: back to the queue, or over to us with their worker."""
    adopted: list[AdoptedTask] = []
    now = tables.now_ms()
    for name, dead in list(tables.dispatchers.items()):
        if name == me or dead.lease_ms > now:
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
            adopted.append(AdoptedTask(task=tables.describe(task), worker=task.worker))
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
        tables.put_back(task, task.backoff_s * 2 ** min(task.charged - 1, 30))


def _unstarted(tables: Tables, me: DispatcherId, given: Iterable[ClaimedTask]) -> list[ClaimedTask]:
    found = [tables.tasks.get(item.task_id) for item in given]
    return [tables.describe(task) for task in found if task is not None and task.owner == me and task.worker is None]


def _held(tables: Tables, me: DispatcherId, given: Iterable[AdoptedTask]) -> list[AdoptedTask]:
    found = [(item, tables.tasks.get(item.task.task_id)) for item in given]
    return [item for item, task in found if task is not None and task.owner == me and task.worker is not None]
