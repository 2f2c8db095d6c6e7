"""All that the memory store holds, under one lock, and the few changes that everything is made of."""

from __future__ import annotations

import heapq
import os
import threading
import time
from bisect import bisect_left, insort
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

import msgspec

from everfaas_core.model.failure import failure_payload
from everfaas_core.model.ids import SECRET_BYTES, DispatcherId, FunctionId, TaskId, WorkerId
from everfaas_core.model.output import LogPiece, Progress
from everfaas_core.model.records import (
    PRIORITIES,
    AttemptRecord,
    ClaimedTask,
    FleetReport,
    FunctionRecord,
    ResultRecord,
    TaskSpec,
    TurnReply,
)
from everfaas_core.model.states import TERMINAL, Cause, Status
from everfaas_core.ports import Notice, StoreHealth

from .watch import MemoryWatch

ATTEMPTS_KEPT: Final = 100  # of one task, in its timeline; older ones are dropped
EVICTED_MAX: Final = 1024  # dispatchers that may come back and are to be told; most never do


@dataclass(slots=True)
class Task:
    """One task. `owner` holds it, if anybody does; `worker` is set while attempt `attempt` is live."""

    spec: TaskSpec
    submitted_ms: int
    priority: int
    max_attempts: int
    ttl_s: float
    timeout_s: float | None
    backoff_s: float
    retry_on: tuple[str, ...]
    deadline_ms: int | None
    due_ms: int | None = None
    is_delayed: bool = False
    status: Status = Status.QUEUED
    attempt: int = 0
    charged: int = 0
    owner: DispatcherId | None = None
    worker: WorkerId | None = None
    adopted: tuple[int, int] = (0, 0)  # the attempt that was sent or adopted last, and the epoch of its worker's Hello
    bound: bool = False
    leased_ms: int = 0
    cancelled: bool = False
    attempts: list[AttemptRecord] = field(default_factory=list)
    result: bytes = b""
    error: str | None = None
    cause: Cause | None = None
    ended_ms: int | None = None
    expires_ms: int | None = None
    end_number: int = 0  # of its end, if it has a group
    log: deque[LogPiece] = field(default_factory=deque)
    log_bytes: int = 0  # of its pieces, with what each costs
    progress: tuple[int, Progress] | None = None  # and the attempt that it is of

    @property
    def task_id(self) -> TaskId:
        return self.spec.task_id

    @property
    def is_terminal(self) -> bool:
        return self.status in TERMINAL


@dataclass(slots=True)
class Dispatcher:
    """What is held for one dispatcher."""

    lease_ms: int
    report: FleetReport | None = None
    claims: dict[TaskId, None] = field(default_factory=dict)
    cancels: dict[TaskId, None] = field(default_factory=dict)


@dataclass(slots=True)
class Group:
    """The tasks of a group whose records are kept: how many, and those that have ended by the number of their end."""

    tasks: int = 0
    ended: list[tuple[int, TaskId]] = field(default_factory=list)


class Tables:
    """The data. Callers hold `lock` while they use anything else of it."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self.lock = threading.RLock()
        self.secret = os.urandom(SECRET_BYTES)
        self.functions: dict[FunctionId, FunctionRecord] = {}
        self.tasks: dict[TaskId, Task] = {}
        self.order: list[TaskId] = []  # ids, sorted: by time of submission
        self.keys: dict[str, TaskId] = {}
        self.groups: dict[str, Group] = {}
        self.concluded = 0  # tasks that have ended
        self.last_end = 0  # number of the last end of a task with a group
        self.queues: list[OrderedDict[TaskId, None]] = [OrderedDict() for _ in range(PRIORITIES)]
        self.delayed: list[tuple[int, TaskId]] = []  # heaps; entries that no longer hold are skipped
        self.deadlines: list[tuple[int, TaskId]] = []
        self.expiry: list[tuple[int, TaskId]] = []
        self.delayed_count = 0
        self.picks = 0
        self.dispatchers: dict[DispatcherId, Dispatcher] = {}
        self.evicted: dict[DispatcherId, None] = {}  # to be told so
        self.drains: dict[WorkerId, int] = {}  # asked to leave → when it was last in a report, ms
        self.waiting: set[DispatcherId] = set()
        self.lost: dict[DispatcherId, TurnReply] = {}  # answers that a fault injector threw away
        self.watches: set[MemoryWatch] = set()

    def now_ms(self) -> int:
        """Return the store's time."""
        return int(self._clock() * 1000)

    def find(self, task_id: TaskId) -> Task | None:
        """Return a task whose record is kept still."""
        task = self.tasks.get(task_id)
        if task is None or (task.expires_ms is not None and task.expires_ms <= self.now_ms()):
            return None
        return task

    def add(self, task: Task, delay_s: float) -> None:
        """Store a new task and enqueue it."""
        self.tasks[task.task_id] = task
        insort(self.order, task.task_id)
        if task.spec.idempotency_key is not None:
            self.keys[task.spec.idempotency_key] = task.task_id
        if task.spec.group is not None:
            self.groups.setdefault(task.spec.group, Group()).tasks += 1
        if task.deadline_ms is not None:
            heapq.heappush(self.deadlines, (task.deadline_ms, task.task_id))
        self.enqueue(task, delay_s, at_head=False)

    def enqueue(self, task: Task, delay_s: float, *, at_head: bool) -> None:
        """Put a task that nobody holds into its queue, or delay it, and ring."""
        if delay_s > 0:
            task.due_ms = self.now_ms() + -int(-delay_s * 1000 // 1)
            is_first = not self.delayed or task.due_ms < self.delayed[0][0]
            task.is_delayed = True
            self.delayed_count += 1
            heapq.heappush(self.delayed, (task.due_ms, task.task_id))
            if is_first:
                self.ring()
            return
        queue = self.queues[task.priority]
        queue[task.task_id] = None
        if at_head:
            queue.move_to_end(task.task_id, last=False)
        self.ring()

    def dequeue(self, task: Task) -> None:
        """Take a task that nobody holds out of where it waits."""
        if task.is_delayed:
            task.is_delayed = False
            self.delayed_count -= 1
        else:
            self.queues[task.priority].pop(task.task_id, None)

    def promote(self) -> None:
        """Move the delayed tasks that are due into their queues."""
        now = self.now_ms()
        while self.delayed and self.delayed[0][0] <= now:
            due, task_id = heapq.heappop(self.delayed)
            task = self.tasks.get(task_id)
            if task is not None and task.is_delayed and task.due_ms == due:
                self.dequeue(task)
                self.enqueue(task, 0, at_head=False)

    def next_due_s(self) -> float | None:
        """Return the seconds until the first delayed task is due."""
        while self.delayed:
            due, task_id = self.delayed[0]
            task = self.tasks.get(task_id)
            if task is not None and task.is_delayed and task.due_ms == due:
                return max(0, due - self.now_ms()) / 1000
            heapq.heappop(self.delayed)
        return None

    def queued(self) -> int:
        """Count the tasks that wait."""
        return self.delayed_count + sum(map(len, self.queues))

    def hold(self, task: Task, owner: DispatcherId) -> None:
        """Give a task to a dispatcher."""
        task.owner = owner
        self.dispatchers[owner].claims[task.task_id] = None
        if task.cancelled:
            self.dispatchers[owner].cancels[task.task_id] = None

    def release(self, task: Task, cause: Cause, run_s: float | None = None) -> bool:
        """Take a task from its dispatcher; return whether that ended a live attempt."""
        if task.owner in self.dispatchers:
            self.dispatchers[task.owner].claims.pop(task.task_id, None)
            self.dispatchers[task.owner].cancels.pop(task.task_id, None)
        was_live = task.worker is not None
        if was_live and task.attempts:
            changes = {"ended_ms": self.now_ms(), "cause": cause, "run_s": run_s}
            task.attempts[-1] = msgspec.structs.replace(task.attempts[-1], **changes)
        task.owner = task.worker = None
        task.bound = False
        return was_live

    def put_back(self, task: Task, delay_s: float) -> None:
        """Enqueue a task that was released, at the head, or end it if it was cancelled meanwhile."""
        if task.cancelled:
            self.conclude_cancelled(task)
            return
        if task.deadline_ms is not None:
            heapq.heappush(self.deadlines, (task.deadline_ms, task.task_id))
        self.enqueue(task, delay_s, at_head=True)

    def health(self) -> StoreHealth:
        """Return the numbers."""
        now, queued = self.now_ms(), self.queued()
        alive = [d for d in self.dispatchers.values() if d.lease_ms > now]
        slots = sum(worker.slots for d in alive if d.report is not None for worker in d.report.workers)
        return StoreHealth(
            kind="memory",
            queued=queued,
            ready=queued - self.delayed_count,
            dispatchers=len(alive),
            slots=slots,
            ended=self.concluded,
        )

    def conclude(self, task: Task, status: Status, cause: Cause, result: bytes, error: str | None) -> None:
        """Write the terminal record of a task that was released or dequeued."""
        task.status, task.cause, task.result, task.error = status, cause, result, error or None
        self.concluded += 1
        task.ended_ms = self.now_ms()
        task.expires_ms = task.ended_ms + int(task.ttl_s * 1000)
        heapq.heappush(self.expiry, (task.expires_ms, task.task_id))
        group = task.spec.group
        if group is not None:
            # Never less than the time in µs, as in every store: a cursor of an earlier process misses nothing.
            self.last_end = max(self.last_end, int(self._clock() * 1_000_000)) + 1
            task.end_number = self.last_end
            self.groups[group].ended.append((task.end_number, task.task_id))
        told = ResultRecord(task_id=task.task_id, status=status, result=result)
        groups = () if group is None else (group,)
        self.notify("ended", Notice(ended=(task.task_id,), groups=groups, told=told))

    def conclude_cancelled(self, task: Task) -> None:
        """End a task because a client wants it."""
        reason = "cancelled"
        self.conclude(task, Status.CANCELLED, Cause.CANCELLED, failure_payload(Cause.CANCELLED, reason), reason)

    def conclude_late(self, task: Task) -> None:
        """End a task whose deadline has passed before it ran."""
        reason = "exceeded deadline before it could be run"
        self.conclude(task, Status.FAILED, Cause.DEADLINE, failure_payload(Cause.DEADLINE, reason), reason)

    def expire(self) -> None:
        """Delete records whose retention has passed."""
        now = self.now_ms()
        while self.expiry and self.expiry[0][0] <= now:
            task = self.tasks.pop(heapq.heappop(self.expiry)[1])
            del self.order[bisect_left(self.order, task.task_id)]
            key = task.spec.idempotency_key
            if key is not None and self.keys.get(key) == task.task_id:
                del self.keys[key]
            if task.spec.group is not None:
                self._leave(task.spec.group, task)

    def _leave(self, name: str, task: Task) -> None:
        group = self.groups[name]
        group.tasks -= 1
        del group.ended[bisect_left(group.ended, (task.end_number, task.task_id))]
        if group.tasks == 0:
            del self.groups[name]

    def evict(self, name: DispatcherId) -> None:
        """Remember to tell a dispatcher that its claims are gone, should it come back."""
        if len(self.evicted) >= EVICTED_MAX:
            del self.evicted[next(iter(self.evicted))]
        self.evicted[name] = None

    def describe(self, task: Task) -> ClaimedTask:
        """Return what a dispatcher is told of a task."""
        remaining = None if task.deadline_ms is None else (task.deadline_ms - self.now_ms()) / 1000
        return ClaimedTask(
            task_id=task.task_id,
            function_id=task.spec.function_id,
            payload=task.spec.payload,
            attempt=task.attempt,
            charged=task.charged,
            priority=task.priority,
            max_attempts=task.max_attempts,
            retry_backoff_s=task.backoff_s,
            retry_on=task.retry_on,
            timeout_s=task.timeout_s,
            remaining_s=remaining,
        )

    def ring(self) -> None:
        """Wake the dispatchers that found too little, once."""
        if self.waiting:
            self.waiting.clear()
            self.notify("work", Notice(bell=True))

    def notify(self, topic: str, notice: Notice) -> None:
        """Hand a notice to all who watch a topic."""
        for watch in self.watches:
            if watch.topic == topic:
                watch.put(notice)
