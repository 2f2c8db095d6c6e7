"""`ports.Store` in memory. Every method holds the one lock of its tables."""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from typing import Final, TypeVar

import msgspec

from everfaas_core.model.errors import IdempotencyConflict, QueueFull, UnknownFunction
from everfaas_core.model.ids import DispatcherId, FunctionId, TaskId, WorkerId
from everfaas_core.model.output import LogPage
from everfaas_core.model.records import (
    FleetReport,
    FunctionRecord,
    GroupPage,
    GroupResult,
    ResultRecord,
    TaskDefaults,
    TaskFilter,
    TaskPage,
    TaskRecord,
    TaskSpec,
    Turn,
    TurnReply,
)
from everfaas_core.model.states import Cause, Status
from everfaas_core.ports import Notice, StoreHealth, Watch

from . import logs, turns
from .records import record_of
from .tables import Group, Tables, Task
from .watch import MemoryWatch

PAGE_MAX: Final = 1000
SCAN_MAX: Final = 2000  # tasks that one page's filter looks at

_TOPICS: Final = ("work", "ended")
_CURSOR: Final = re.compile(r"[0-9]{1,16}")  # of a group: the number of an end

T = TypeVar("T")


class MemoryStore:
    """Implements `ports.Store` over tables; two stores over the same tables see the same data."""

    def __init__(self, tables: Tables, defaults: TaskDefaults | None = None) -> None:
        self._tables = tables
        self._defaults = defaults or TaskDefaults()
        self._last: dict[DispatcherId, TurnReply] = {}

    def prepare(self) -> None:
        """Nothing to do."""

    def secret(self) -> bytes:
        """Return the secret of this store's task ids."""
        return self._tables.secret

    # functions

    def put_function(self, record: FunctionRecord) -> bool:
        """Store a function under its id, unless it is there."""
        with self._tables.lock:
            if record.function_id in self._tables.functions:
                return False
            stored = msgspec.structs.replace(record, created_ms=self._tables.now_ms())
            self._tables.functions[record.function_id] = stored
            return True

    def functions(self, ids: Sequence[FunctionId]) -> Sequence[FunctionRecord | None]:
        """Return functions, in order."""
        with self._tables.lock:
            return [self._tables.functions.get(function_id) for function_id in ids]

    def list_functions(self, cursor: str | None, limit: int) -> tuple[Sequence[FunctionRecord], str | None]:
        """Return a page of functions, newest first."""
        with self._tables.lock:
            found = sorted(self._tables.functions.values(), key=_age, reverse=True)
        after = [record for record in found if cursor is None or _age(record) < cursor]
        page = after[: max(1, min(limit, PAGE_MAX))]
        return page, _age(page[-1]) if len(after) > len(page) else None

    # tasks, seen by clients

    def submit(self, specs: Sequence[TaskSpec], queue_max: int) -> Sequence[TaskId]:
        """Store and enqueue all, or none."""
        with self._tables.lock:
            ids, fresh = self._sort_out(specs)
            queued = self._tables.queued()
            if fresh and queued + len(fresh) > queue_max:
                raise QueueFull(
                    f"{queued} tasks are queued, and at most {queue_max} may be", hint="try again when some have run"
                )
            for spec in fresh:
                self._tables.add(self._made(spec), spec.delay_s)
            return ids

    def _sort_out(self, specs: Sequence[TaskSpec]) -> tuple[list[TaskId], list[TaskSpec]]:
        """Return the ids to answer with, and the tasks that are new. Raises UnknownFunction or IdempotencyConflict."""
        ids: list[TaskId] = []
        fresh: dict[TaskId, TaskSpec] = {}
        keys: dict[str, TaskSpec] = {}
        for spec in specs:
            first = None
            if spec.task_id not in self._tables.tasks and spec.task_id not in fresh:
                first = self._first_of(spec, keys)
                if first is None:
                    if spec.function_id not in self._tables.functions:
                        raise UnknownFunction(
                            f"function {spec.function_id} is not registered", hint="register it first"
                        )
                    fresh[spec.task_id] = spec
                    if spec.idempotency_key is not None:
                        keys[spec.idempotency_key] = spec
            ids.append(first or spec.task_id)
        return ids, list(fresh.values())

    def _first_of(self, spec: TaskSpec, keys: dict[str, TaskSpec]) -> TaskId | None:
        """Return the task that the spec's idempotency key stands for, in this batch or while its record is kept."""
        key = spec.idempotency_key
        if key is None:
            return None
        first = keys.get(key)
        if first is None:
            kept = self._tables.find(self._tables.keys.get(key, TaskId("")))
            if kept is None:
                return None
            first = kept.spec
        if (first.function_id, first.payload) != (spec.function_id, spec.payload):
            raise IdempotencyConflict(
                f"the idempotency key {key!r} stands for task {first.task_id}, which is another call",
                hint="a key belongs to one function and one payload, byte for byte: choose another key",
            )
        return first.task_id

    def _made(self, spec: TaskSpec) -> Task:
        now = self._tables.now_ms()
        o = self._tables.functions[spec.function_id].options
        return Task(
            spec=spec,
            submitted_ms=now,
            priority=_first(spec.priority, o.priority, self._defaults.priority),
            max_attempts=_first(spec.max_attempts, o.max_attempts, self._defaults.max_attempts),
            ttl_s=_first(spec.result_ttl_s, o.result_ttl_s, self._defaults.result_ttl_s),
            timeout_s=o.timeout_s if spec.timeout_s is None else spec.timeout_s,
            backoff_s=_first(spec.retry_backoff_s, o.retry_backoff_s),
            retry_on=_first(spec.retry_on, o.retry_on),
            deadline_ms=None if spec.deadline_s is None else now + int(spec.deadline_s * 1000),
        )

    def tasks(self, ids: Sequence[TaskId]) -> Sequence[TaskRecord | None]:
        """Return whole records, in order."""
        with self._tables.lock:
            return [None if task is None else record_of(self._tables, task) for task in map(self._tables.find, ids)]

    def results(self, ids: Sequence[TaskId]) -> Sequence[ResultRecord | None]:
        """Return statuses and results, in order."""
        with self._tables.lock:
            return [
                None if task is None else ResultRecord(task_id=task.task_id, status=task.status, result=task.result)
                for task in map(self._tables.find, ids)
            ]

    def statuses(self, ids: Sequence[TaskId]) -> Sequence[str | None]:
        """Return statuses, in order."""
        with self._tables.lock:
            return [None if task is None else task.status for task in map(self._tables.find, ids)]

    def list_tasks(self, where: TaskFilter, cursor: str | None, limit: int) -> TaskPage:
        """Return a page of tasks, newest first. The cursor is a task id."""
        limit = max(1, min(limit, PAGE_MAX))
        with self._tables.lock:
            order = self._tables.order
            stop = len(order) if cursor is None else bisect_left(order, TaskId(cursor))
            found: list[TaskRecord] = []
            position = stop
            while position > max(0, stop - SCAN_MAX) and len(found) < limit:
                position -= 1
                task = self._tables.find(order[position])
                if task is not None and _matches(task, where):
                    found.append(record_of(self._tables, task))
            return TaskPage(tasks=tuple(found), cursor=order[position] if position > 0 else None)

    def group_results(
        self, group: str, cursor: str | None, limit: int, *, bytes_max: int, with_results: bool = True
    ) -> GroupPage:
        """Return a page of a group's results, in the order of their ends. The cursor is the number of an end."""
        if cursor is not None and not _CURSOR.fullmatch(cursor):
            raise ValueError(f"a cursor of a group is a number of at most 16 digits, not {cursor!r}")
        limit = max(1, min(limit, PAGE_MAX))
        number = int(cursor or 0)
        with self._tables.lock:
            known = self._tables.groups.get(group, Group())
            found: list[GroupResult] = []
            position = bisect_right(known.ended, number, key=_number)
            stop = min(position + limit, len(known.ended))
            while position < stop and bytes_max > 0:
                number, task_id = known.ended[position]
                position += 1
                task = self._tables.find(task_id)
                if task is not None:
                    result = task.result if with_results else b""
                    bytes_max -= len(result)
                    found.append(
                        GroupResult(
                            task_id=task_id,
                            status=task.status,
                            result=result,
                            cursor=str(number),
                            tags=task.spec.tags,
                        )
                    )
            return GroupPage(
                ended=tuple(found),
                cursor=str(number),
                tasks=known.tasks,
                pending=known.tasks - len(known.ended),
                more=position < len(known.ended),
            )

    def task_log(
        self, task_id: TaskId, cursor: str | None, *, bytes_max: int, attempt: int | None = None
    ) -> LogPage | None:
        """Return what is kept of a task's output behind a cursor."""
        with self._tables.lock:
            return logs.page(self._tables.find(task_id), cursor, bytes_max, attempt)

    def cancel(self, ids: Sequence[TaskId], *, running: bool = True) -> Sequence[str | None]:
        """Cancel tasks, and mark those that run."""
        with self._tables.lock:
            return [self._cancel(task_id, running=running) for task_id in ids]

    def _cancel(self, task_id: TaskId, *, running: bool) -> str | None:
        tables = self._tables
        task = tables.find(task_id)
        if task is None or task.is_terminal:
            return None if task is None else task.status
        live = task.worker is not None and task.owner is not None
        if live and not running:
            return task.status
        is_new, task.cancelled = not task.cancelled, True
        if task.worker is not None and task.owner is not None:
            tables.hold(task, task.owner)
            if is_new:
                tables.notify("work", Notice(bell=True))
            return task.status
        if task.owner is None:
            tables.dequeue(task)
        tables.release(task, Cause.CANCELLED)
        tables.conclude_cancelled(task)
        return task.status

    def retry(self, task_id: TaskId, new_id: TaskId) -> TaskId | None:
        """Submit the call of a task that has failed, or was cancelled, as a new task."""
        tables = self._tables
        with tables.lock:
            if new_id in tables.tasks:
                return new_id
            old = tables.find(task_id)
            if old is None or old.status not in (Status.FAILED, Status.CANCELLED):
                return None if old is None else task_id
            changes = {"task_id": new_id, "idempotency_key": None, "retry_of": task_id}
            again = Task(
                spec=msgspec.structs.replace(old.spec, **changes),
                submitted_ms=tables.now_ms(),
                priority=old.priority,
                max_attempts=old.max_attempts,
                ttl_s=old.ttl_s,
                timeout_s=old.timeout_s,
                backoff_s=old.backoff_s,
                retry_on=old.retry_on,
                deadline_ms=None,
            )
            tables.add(again, 0)
            return new_id

    def drain_worker(self, worker_id: WorkerId) -> bool:
        """Mark a worker, for its dispatcher to hear of with its next report."""
        with self._tables.lock:
            known = any(worker.worker_id == worker_id for report in self.fleet() for worker in report.workers)
            if known:
                self._tables.drains[worker_id] = self._tables.now_ms()
            return known

    def fleet(self) -> Sequence[FleetReport]:
        """Return the reports of all dispatchers that live."""
        with self._tables.lock:
            now = self._tables.now_ms()
            return [d.report for d in self._tables.dispatchers.values() if d.report is not None and d.lease_ms > now]

    def health(self) -> StoreHealth:
        """Return the numbers."""
        with self._tables.lock:
            return self._tables.health()

    # dispatchers

    def exchange(self, turn: Turn) -> TurnReply:
        """Apply one turn, atomically. Cancels come with each turn that reports, claims or sweeps; so does `evicted`."""
        with self._tables.lock:
            reply = turns.exchange(self._tables, turn)
            self._last[turn.dispatcher_id] = reply
            return reply

    def reply_lost(self, turn: Turn) -> None:
        """Behave as if the answer to the last exchange, of this turn, had not arrived. For fault injection."""
        with self._tables.lock:
            turns.lose(self._tables, turn.dispatcher_id, self._last.get(turn.dispatcher_id, TurnReply()))

    def resign(self, dispatcher_id: DispatcherId) -> None:
        """Give up the lease, and put back what was not started; what runs is left to the next sweep."""
        tables = self._tables
        with tables.lock:
            tables.evicted.pop(dispatcher_id, None)
            leaving = tables.dispatchers.get(dispatcher_id)
            if leaving is None:
                return
            for task_id in sorted(leaving.claims, reverse=True):
                task = tables.tasks[task_id]
                if task.worker is None:
                    tables.release(task, Cause.GIVEN_BACK)
                    tables.put_back(task, 0)
            leaving.lease_ms, leaving.report = 0, None
            if not leaving.claims:
                del tables.dispatchers[dispatcher_id]
            tables.waiting.discard(dispatcher_id)
            self._last.pop(dispatcher_id, None)

    # wake-ups

    def watch(self, topic: str) -> Watch:
        """Subscribe to a topic."""
        if topic not in _TOPICS:
            raise ValueError(f"topic is one of {_TOPICS}, not {topic!r}")
        watch = MemoryWatch(topic, self._forget)
        with self._tables.lock:
            self._tables.watches.add(watch)
        return watch

    def _forget(self, watch: MemoryWatch) -> None:
        with self._tables.lock:
            self._tables.watches.discard(watch)

    def close(self) -> None:
        """Nothing to do."""


def _number(end: tuple[int, TaskId]) -> int:
    return end[0]


def _age(record: FunctionRecord) -> str:
    return f"{record.created_ms:015d}:{record.function_id}"


def _first(*values: T | None) -> T:
    return next(value for value in values if value is not None)


def _matches(task: Task, where: TaskFilter) -> bool:
    return (
        (where.status is None or task.status == where.status)
        and (where.cause is None or task.cause == where.cause)
        and (where.function_id is None or task.spec.function_id == where.function_id)
        and (where.group is None or task.spec.group == where.group)
        and (where.tag is None or where.tag in task.spec.tags)
    )
