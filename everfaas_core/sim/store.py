"""A store for simulations, written from the rules of `model.records.Turn`, not from any plugin. O(1) a task.

It applies turns at once and whole; latency, outages and lost answers are the business of `network`. `lose` takes note
that an answer did not arrive, so that what it gave is given again.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Iterable
from typing import Final

from everfaas_core.model.ids import DispatcherId, FunctionId, TaskId, WorkerId
from everfaas_core.model.records import (
    Adopt,
    AdoptedTask,
    ClaimedTask,
    Finish,
    FleetReport,
    FunctionOptions,
    FunctionRecord,
    Requeue,
    Start,
    Turn,
    TurnReply,
)
from everfaas_core.model.states import Cause, Status
from everfaas_core.sim.ledger import Ledger, Plan

SWEEP_MAX: Final = 2_000
"""Delayed tasks promoted by one sweep."""


class Row:
    """One task. `owner` holds it, if anybody; `worker` is set while its last attempt is live."""

    __slots__ = (
        "attempt",
        "cancelled",
        "charged",
        "epoch",
        "max_attempts",
        "owner",
        "plan",
        "queued",
        "timeout_s",
        "worker",
    )

    def __init__(self, plan: Plan, max_attempts: int) -> None:
        self.plan = plan
        self.max_attempts = max_attempts
        self.attempt = 0
        self.epoch = 0
        self.charged = 0
        self.owner: DispatcherId | None = None
        self.worker: WorkerId | None = None
        self.queued = True
        self.cancelled = False


class Holder:
    """A dispatcher, as the store knows it."""

    __slots__ = ("cancels", "claims", "lease_until", "lost_adopted", "lost_claims", "report")

    def __init__(self, lease_until: float) -> None:
        self.lease_until = lease_until
        self.report: FleetReport | None = None
        self.claims: dict[TaskId, None] = {}
        self.cancels: dict[TaskId, None] = {}
        self.lost_claims: list[TaskId] = []  # given by an answer that did not arrive
        self.lost_adopted: list[TaskId] = []


class SimStore:
    """The truth. `ring` is called with the dispatchers that found too little, when there is more."""

    def __init__(
        self, now: Callable[[], float], ledger: Ledger, ring: Callable[[DispatcherId], None], functions: int
    ) -> None:
        self._now = now
        self._ledger = ledger
        self._ring = ring
        self._rows: dict[TaskId, Row] = {}
        self._queue: deque[TaskId] = deque()
        self._delayed: list[tuple[float, TaskId]] = []
        self._holders: dict[DispatcherId, Holder] = {}
        self._evicted: dict[DispatcherId, None] = {}
        self._waiting: dict[DispatcherId, None] = {}
        self._drains: dict[WorkerId, None] = {}
        self.functions = {
            FunctionId(f"f{n}"): FunctionRecord(
                function_id=FunctionId(f"f{n}"), name=f"f{n}", payload=b"code", options=FunctionOptions()
            )
            for n in range(functions)
        }

    # ── clients ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def submit(self, plans: Iterable[Plan], max_attempts: int, delay_s: float = 0.0) -> None:
        """Accept tasks."""
        for plan in plans:
            self._ledger.accepted(plan)
            row = self._rows[plan.task_id] = Row(plan, max_attempts)
            self._enqueue(row, delay_s, at_head=False)

    def cancel(self, task_id: TaskId) -> None:
        """Cancel: at once unless an attempt is live; then mark it, and let its dispatcher know."""
        row = self._rows.get(task_id)
        if row is None:
            return
        row.plan.cancelled = row.cancelled = True
        if row.worker is None:
            self._release(row)
            self._conclude(row, Status.CANCELLED, Cause.CANCELLED, b"")
        elif row.owner in self._holders:
            self._holders[row.owner].cancels[task_id] = None
            self._ring(row.owner)

    def drain_worker(self, worker_id: WorkerId) -> None:
        """Ask a worker to leave: its dispatcher learns of it with its next report."""
        self._drains[worker_id] = None

    # ── dispatchers ──────────────────────────────────────────────────────────────────────────────────────────────────

    def exchange(self, turn: Turn) -> TurnReply:
        """Apply one turn, in the order that `Turn` prescribes."""
        me = turn.dispatcher_id
        finished = tuple([self._finish(me, item) for item in turn.finishes])
        for requeue in reversed(turn.requeues):
            self._requeue(me, requeue)
        started = tuple([self._start(me, item) for item in turn.starts])
        adoptions = self._adopts(turn)
        holds = turn.report is not None or turn.sweep or turn.claim > 0 or bool(turn.adopts)
        evicted = self._lease(turn) if holds else False
        adopted: list[AdoptedTask] = []
        if turn.sweep:
            self._promote()
            if not evicted:
                adopted = self._again_adopted(me) + self._take_over(turn)
        claimed = self._claim(me, turn.claim) if turn.claim > 0 and not evicted else ()
        due_s = self._next_due_s() if turn.sweep or turn.claim > 0 else None
        return TurnReply(
            finished=finished,
            started=started,
            adoptions=adoptions,
            functions=tuple([self.functions.get(function_id) for function_id in turn.functions]),
            claimed=claimed,
            adopted=tuple(adopted),
            cancels=tuple(self._holders[me].cancels) if holds else (),
            next_due_s=0.0 if evicted and turn.claim > 0 else due_s,
            drains=self._hear_drains(turn),
            evicted=evicted,
        )

    def fleet(self) -> list[FleetReport]:
        """Return the reports of all dispatchers whose lease is valid."""
        now = self._now()
        return [
            holder.report for holder in self._holders.values() if holder.report is not None and holder.lease_until > now
        ]

    def lose(self, me: DispatcherId, reply: TurnReply) -> None:
        """Take note that the answer to a turn did not arrive."""
        if reply.evicted:
            self._evicted[me] = None
        if (holder := self._holders.get(me)) is not None:
            holder.lost_claims += [task.task_id for task in reply.claimed]
            holder.lost_adopted += [adopted.task.task_id for adopted in reply.adopted]

    def resign(self, me: DispatcherId) -> None:
        """Give up the lease; what runs is left to the next sweep."""
        self._evicted.pop(me, None)
        holder = self._holders.get(me)
        if holder is None:
            return
        for task_id in [one for one in holder.claims if self._rows[one].worker is None]:
            row = self._rows[task_id]
            self._release(row)
            self._enqueue(row, 0.0, at_head=True)
        holder.lease_until, holder.report = self._now(), None
        self._waiting.pop(me, None)

    def _finish(self, me: DispatcherId, item: Finish) -> bool:
        row = self._rows.get(item.task_id)
        if row is None or row.attempt != item.attempt:
            return False
        if row.worker is None and row.owner != me:
            return False
        self._release(row)
        self._conclude(row, item.status, item.cause, item.result)
        return True

    def _requeue(self, me: DispatcherId, item: Requeue) -> None:
        row = self._rows.get(item.task_id)
        if row is None or row.owner != me or row.attempt != item.attempt:
            return
        was_live = row.worker is not None
        self._release(row)
        if was_live and item.charged:
            row.charged += 1
        self._put_back(row, item.delay_s)

    def _start(self, me: DispatcherId, item: Start) -> bool:
        row = self._rows.get(item.task_id)
        if row is None or row.owner != me:
            return False
        if row.worker is not None:
            return (row.attempt, row.worker) == (item.attempt, item.worker)
        if item.attempt != row.attempt + 1:
            return False
        row.attempt, row.worker, row.epoch = item.attempt, item.worker, item.epoch
        self._ledger.started(item.task_id, item.attempt)
        return True

    def _adopts(self, turn: Turn) -> tuple[ClaimedTask | None, ...]:
        """Move claims to the dispatcher that their workers went to; to none that is about to forget what it holds."""
        me = turn.dispatcher_id
        if turn.adopts and me not in self._holders:
            self._holders[me] = Holder(self._now() + turn.lease_s)
        return tuple([None if me in self._evicted else self._adopt(me, item) for item in turn.adopts])

    def _adopt(self, me: DispatcherId, item: Adopt) -> ClaimedTask | None:
        row = self._rows.get(item.task_id)
        if row is None or row.attempt != item.attempt or row.worker != item.worker or item.epoch < row.epoch:
            return None
        row.epoch = item.epoch
        self._release(row)
        row.worker = item.worker
        self._hold(row, me)
        return self._describe(row)

    def _hear_drains(self, turn: Turn) -> tuple[WorkerId, ...]:
        if turn.report is None or not self._drains:
            return ()
        return tuple([worker.worker_id for worker in turn.report.workers if worker.worker_id in self._drains])

    def _lease(self, turn: Turn) -> bool:
        until = self._now() + turn.lease_s
        holder = self._holders.get(turn.dispatcher_id)
        if holder is None:
            holder = self._holders[turn.dispatcher_id] = Holder(until)
        if turn.report is not None:
            holder.lease_until, holder.report = until, turn.report
        if turn.dispatcher_id in self._evicted:
            del self._evicted[turn.dispatcher_id]
            return True
        return False

    def _claim(self, me: DispatcherId, count: int) -> tuple[ClaimedTask, ...]:
        holder = self._holders[me]
        claimed: list[ClaimedTask] = []
        for task_id in holder.lost_claims:
            row = self._rows.get(task_id)
            if row is not None and row.owner == me and row.worker is None:
                claimed.append(self._describe(row))
        holder.lost_claims.clear()
        self._promote()
        queue = self._queue
        while len(claimed) < count:
            if not queue:
                self._waiting[me] = None
                break
            row = self._rows.get(queue.popleft())
            if row is not None and row.queued and row.owner is None:
                row.queued = False
                self._hold(row, me)
                claimed.append(self._describe(row))
        return tuple(claimed)

    def _take_over(self, turn: Turn) -> list[AdoptedTask]:
        """Take the claims of dispatchers whose lease has run out: live attempts to us, the rest to the queue."""
        me = turn.dispatcher_id
        adopted: list[AdoptedTask] = []
        now = self._now()
        for name, holder in list(self._holders.items()):
            if name == me or (holder.lease_until > now and name not in turn.dead):
                continue
            self._evicted[name] = None
            for task_id in reversed(list(holder.claims)):
                row = self._rows[task_id]
                if row.worker is None:
                    self._release(row)
                    self._put_back(row, 0.0)
                else:
                    worker = row.worker
                    self._release(row)
                    row.worker = worker
                    self._hold(row, me)
                    adopted.append(AdoptedTask(task=self._describe(row), worker=worker, epoch=row.epoch))
            del self._holders[name]
            self._waiting.pop(name, None)
        return adopted

    def _again_adopted(self, me: DispatcherId) -> list[AdoptedTask]:
        holder = self._holders[me]
        again: list[AdoptedTask] = []
        for task_id in holder.lost_adopted:
            row = self._rows.get(task_id)
            if row is not None and row.owner == me and row.worker is not None:
                again.append(AdoptedTask(task=self._describe(row), worker=row.worker, epoch=row.epoch))
        holder.lost_adopted.clear()
        return again

    # ── rows ─────────────────────────────────────────────────────────────────────────────────────────────────────────

    def _enqueue(self, row: Row, delay_s: float, *, at_head: bool) -> None:
        task_id = row.plan.task_id
        row.queued = True
        if delay_s > 0:
            heapq.heappush(self._delayed, (self._now() + delay_s, task_id))
            if self._delayed[0][1] != task_id:
                return
        elif at_head:
            self._queue.appendleft(task_id)
        else:
            self._queue.append(task_id)
        if self._waiting:
            waiting, self._waiting = self._waiting, {}
            for name in waiting:
                self._ring(name)

    def _promote(self) -> None:
        now = self._now()
        for _ in range(SWEEP_MAX):
            if not self._delayed or self._delayed[0][0] > now:
                return
            row = self._rows.get(heapq.heappop(self._delayed)[1])
            if row is not None and row.queued and row.owner is None:
                self._enqueue(row, 0.0, at_head=False)

    def _next_due_s(self) -> float | None:
        return max(self._delayed[0][0] - self._now(), 0.0) if self._delayed else None

    def _hold(self, row: Row, owner: DispatcherId) -> None:
        row.owner = owner
        holder = self._holders[owner]
        holder.claims[row.plan.task_id] = None
        if row.cancelled:
            holder.cancels[row.plan.task_id] = None

    def _release(self, row: Row) -> None:
        holder = self._holders.get(row.owner) if row.owner is not None else None
        if holder is not None:
            holder.claims.pop(row.plan.task_id, None)
            holder.cancels.pop(row.plan.task_id, None)
        row.owner = row.worker = None

    def _put_back(self, row: Row, delay_s: float) -> None:
        if row.cancelled:
            self._conclude(row, Status.CANCELLED, Cause.CANCELLED, b"")
        else:
            self._enqueue(row, delay_s, at_head=True)

    def _conclude(self, row: Row, status: Status, cause: Cause, result: bytes) -> None:
        """Write the terminal record. The row is dropped: whoever comes later finds it gone, which is as good."""
        del self._rows[row.plan.task_id]
        self._ledger.concluded(row.plan.task_id, row.attempt, status, cause, result)

    def _describe(self, row: Row) -> ClaimedTask:
        plan = row.plan
        return ClaimedTask(
            task_id=plan.task_id,
            function_id=plan.function_id,
            payload=b"",
            attempt=row.attempt,
            charged=row.charged,
            max_attempts=row.max_attempts,
            timeout_s=plan.timeout_s,
        )
