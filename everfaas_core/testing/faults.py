"""A store that fails on purpose: before a call was made, or after it, when the caller can't know that it was."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import Enum, auto
from typing import Any, Protocol, TypeVar, cast

from everfaas_core.model.errors import StoreUnavailable
from everfaas_core.model.ids import DispatcherId, FunctionId, TaskId, WorkerId
from everfaas_core.model.output import LogPage
from everfaas_core.model.records import (
    FleetReport,
    FunctionRecord,
    GroupPage,
    ResultRecord,
    TaskFilter,
    TaskPage,
    TaskRecord,
    TaskSpec,
    Turn,
    TurnReply,
)
from everfaas_core.ports import Store, StoreHealth, Watch

T = TypeVar("T")


class Fault(Enum):
    """Where a call fails."""

    BEFORE = auto()  # it was not made
    AFTER = auto()  # it was made, and its answer was lost


class Forgetful(Protocol):
    """A store that can be told that the answer to its last exchange did not arrive, as a lost connection would."""

    def reply_lost(self, turn: Turn) -> None:
        """Treat the next exchange of this dispatcher as coming after a lost answer to `turn`."""


class FaultyStore:
    """A store around another. `plan` is asked before each call, with the method's name; None lets it succeed.

    A lost answer of `exchange` needs a store with `reply_lost`: what claims and sweeps gave must be given again.
    """

    def __init__(self, inner: Store, plan: Callable[[str], Fault | None]) -> None:
        self.inner = inner
        self.plan = plan
        self.faults = 0

    def _call(self, name: str, call: Callable[[], T], lost: Callable[[], None] = lambda: None) -> T:
        fault = self.plan(name)
        if fault is None:
            return call()
        self.faults += 1
        if fault is Fault.AFTER:
            call()
            lost()
        raise StoreUnavailable(f"{name} failed on purpose", hint="repeat it")

    def prepare(self) -> None:
        self._call("prepare", self.inner.prepare)

    def secret(self) -> bytes:
        return self._call("secret", self.inner.secret)

    def put_function(self, record: FunctionRecord) -> bool:
        return self._call("put_function", lambda: self.inner.put_function(record))

    def functions(self, ids: Sequence[FunctionId]) -> Sequence[FunctionRecord | None]:
        return self._call("functions", lambda: self.inner.functions(ids))

    def list_functions(self, cursor: str | None, limit: int) -> tuple[Sequence[FunctionRecord], str | None]:
        return self._call("list_functions", lambda: self.inner.list_functions(cursor, limit))

    def submit(self, specs: Sequence[TaskSpec], queue_max: int) -> Sequence[TaskId]:
        return self._call("submit", lambda: self.inner.submit(specs, queue_max))

    def tasks(self, ids: Sequence[TaskId]) -> Sequence[TaskRecord | None]:
        return self._call("tasks", lambda: self.inner.tasks(ids))

    def results(self, ids: Sequence[TaskId]) -> Sequence[ResultRecord | None]:
        return self._call("results", lambda: self.inner.results(ids))

    def statuses(self, ids: Sequence[TaskId]) -> Sequence[str | None]:
        return self._call("statuses", lambda: self.inner.statuses(ids))

    def list_tasks(self, where: TaskFilter, cursor: str | None, limit: int) -> TaskPage:
        return self._call("list_tasks", lambda: self.inner.list_tasks(where, cursor, limit))

    def group_results(
        self, group: str, cursor: str | None, limit: int, *, bytes_max: int, with_results: bool = True
    ) -> GroupPage:
        def call() -> GroupPage:
            return self.inner.group_results(group, cursor, limit, bytes_max=bytes_max, with_results=with_results)

        return self._call("group_results", call)

    def task_log(
        self, task_id: TaskId, cursor: str | None, *, bytes_max: int, attempt: int | None = None
    ) -> LogPage | None:
        def call() -> LogPage | None:
            return self.inner.task_log(task_id, cursor, bytes_max=bytes_max, attempt=attempt)

        return self._call("task_log", call)

    def cancel(self, ids: Sequence[TaskId], *, running: bool = True) -> Sequence[str | None]:
        return self._call("cancel", lambda: self.inner.cancel(ids, running=running))

    def retry(self, task_id: TaskId, new_id: TaskId) -> TaskId | None:
        return self._call("retry", lambda: self.inner.retry(task_id, new_id))

    def drain_worker(self, worker_id: WorkerId) -> bool:
        return self._call("drain_worker", lambda: self.inner.drain_worker(worker_id))

    def fleet(self) -> Sequence[FleetReport]:
        return self._call("fleet", self.inner.fleet)

    def health(self) -> StoreHealth:
        return self._call("health", self.inner.health)

    def exchange(self, turn: Turn) -> TurnReply:
        def lost() -> None:
            cast("Forgetful", self.inner).reply_lost(turn)

        return self._call("exchange", lambda: self.inner.exchange(turn), lost)

    def resign(self, dispatcher_id: DispatcherId) -> None:
        self._call("resign", lambda: self.inner.resign(dispatcher_id))

    def watch(self, topic: str) -> Watch:
        return self._call("watch", lambda: self.inner.watch(topic))

    def close(self) -> None:
        self.inner.close()


def persistently(call: Callable[..., T], *arguments: Any, tries: int = 100) -> T:
    """Repeat a call, as every role does, until the store is available."""
    for _ in range(tries - 1):
        try:
            return call(*arguments)
        except StoreUnavailable:
            continue
    return call(*arguments)
