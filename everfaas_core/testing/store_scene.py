"""What the tests of a store do all the time, in few words."""

from __future__ import annotations

import itertools
import os
import select
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

from everfaas_core.model.ids import DispatcherId, FunctionId, TaskId, WorkerId, function_id, task_id
from everfaas_core.model.records import (
    ClaimedTask,
    Finish,
    FleetReport,
    FunctionOptions,
    FunctionRecord,
    Requeue,
    Start,
    TaskRecord,
    TaskSpec,
    Turn,
    TurnReply,
    WorkerInfo,
)
from everfaas_core.model.states import ENDS_AS, Cause, Status
from everfaas_core.ports import Notice, Store, Watch

A: Final = DispatcherId("dispatcher-a")
B: Final = DispatcherId("dispatcher-b")
C: Final = DispatcherId("dispatcher-c")
WORKER: Final = WorkerId("worker-1")
PLENTY: Final = 1_000_000
PATIENCE_S: Final = 10.0
LONG_S: Final = 60.0  # a lease that does not run out within a test
SHORT_S: Final = 0.15  # one that is meant to


def worker_info(worker: str = "worker-1", slots: int = 4) -> WorkerInfo:
    """Describe a worker."""
    return WorkerInfo(
        worker_id=WorkerId(worker),
        host="here",
        pid=7,
        slots=slots,
        busy=1,
        draining=False,
        python="3.11",
        dill="0.4",
        joined_ms=1,
    )


def report(dispatcher: DispatcherId = A, workers: int = 1) -> FleetReport:
    """Make a report."""
    return FleetReport(
        dispatcher_id=dispatcher,
        mode="pull",
        host="here",
        pid=1,
        started_ms=5,
        workers=tuple(worker_info(f"worker-{n + 1}") for n in range(workers)),
    )


class Scene:
    """One store, and a hand for each role."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.secret = store.secret()
        self._ms = itertools.count(int(time.time() * 1000))

    # clients

    def new_id(self) -> TaskId:
        """Make an id that sorts after those before it."""
        return task_id(next(self._ms), os.urandom(6), self.secret)

    def function(self, name: str = "double", **options: Any) -> FunctionId:
        """Register a function and return its id."""
        chosen = FunctionOptions(**options)
        identity = function_id(name, b"code", repr(chosen).encode())
        self.store.put_function(FunctionRecord(function_id=identity, name=name, payload=b"code", options=chosen))
        return identity

    def spec(self, function: FunctionId | None = None, **fields: Any) -> TaskSpec:
        """Make a task, not yet submitted."""
        values: dict[str, Any] = {"task_id": self.new_id(), "payload": b"\x00\xffargs\r\n"} | fields
        return TaskSpec(function_id=function or self.function(), **values)

    def submit(self, count: int = 1, function: FunctionId | None = None, **fields: Any) -> list[TaskId]:
        """Submit tasks and return their ids."""
        chosen = function or self.function()
        return list(self.store.submit([self.spec(chosen, **fields) for _ in range(count)], PLENTY))

    def status(self, task: TaskId) -> str | None:
        """Return one status."""
        return self.store.statuses([task])[0]

    def record(self, task: TaskId) -> TaskRecord:
        """Return one record that must be there."""
        record = self.store.tasks([task])[0]
        assert record is not None
        return record

    def result(self, task: TaskId) -> bytes:
        """Return one result that must be there."""
        found = self.store.results([task])[0]
        assert found is not None
        return found.result

    # dispatchers

    def turn(self, dispatcher: DispatcherId = A, **parts: Any) -> TurnReply:
        """Exchange one turn."""
        return self.store.exchange(Turn(dispatcher_id=dispatcher, **({"lease_s": LONG_S} | parts)))

    def claim(self, count: int, dispatcher: DispatcherId = A, **parts: Any) -> list[ClaimedTask]:
        """Claim tasks."""
        return list(self.turn(dispatcher, claim=count, **parts).claimed)

    def start(
        self,
        task: TaskId,
        attempt: int = 1,
        dispatcher: DispatcherId = A,
        worker: WorkerId = WORKER,
        *,
        bound: bool = False,
        epoch: int = 0,
    ) -> bool:
        """Start an attempt."""
        item = Start(task_id=task, attempt=attempt, worker=worker, bound=bound, epoch=epoch)
        return self.turn(dispatcher, starts=(item,)).started[0]

    def finish(
        self, task: TaskId, attempt: int = 1, cause: Cause = Cause.OK, dispatcher: DispatcherId = A, **fields: Any
    ) -> bool:
        """Finish an attempt."""
        values: dict[str, Any] = {"status": ENDS_AS[cause], "result": b"result"} | fields
        item = Finish(task_id=task, attempt=attempt, cause=cause, **values)
        return self.turn(dispatcher, finishes=(item,)).finished[0]

    def requeue(self, task: TaskId, attempt: int = 1, dispatcher: DispatcherId = A, **fields: Any) -> None:
        """Give a task back."""
        values: dict[str, Any] = {"cause": Cause.WORKER_LOST, "charged": True} | fields
        self.turn(dispatcher, requeues=(Requeue(task_id=task, attempt=attempt, **values),))

    def running(self, dispatcher: DispatcherId = A, *, bound: bool = False, **fields: Any) -> TaskId:
        """Bring one task to RUNNING; the queue must be empty before."""
        (task,) = self.submit(**fields)
        assert [claimed.task_id for claimed in self.claim(1, dispatcher)] == [task]
        assert self.start(task, 1, dispatcher, bound=bound)
        assert self.status(task) == Status.RUNNING
        return task

    def lapse(self, dispatcher: DispatcherId = A) -> None:
        """Let a dispatcher's lease run out."""
        self.turn(dispatcher, report=report(dispatcher), lease_s=SHORT_S)
        eventually(lambda: all(found.dispatcher_id != dispatcher for found in self.store.fleet()))


def ids_of(tasks: Sequence[ClaimedTask]) -> list[TaskId]:
    """Return the ids of claimed tasks, in order."""
    return [task.task_id for task in tasks]


def eventually(check: Callable[[], Any], timeout_s: float = PATIENCE_S) -> Any:
    """Return what `check` returns as soon as it is true; fail after `timeout_s`."""
    until = time.monotonic() + timeout_s
    while not (found := check()):
        assert time.monotonic() < until, f"not within {timeout_s} s"
        time.sleep(0.01)
    return found


def hear(watch: Watch, timeout_s: float = PATIENCE_S) -> list[Notice]:
    """Wait until a watch is readable, and read it; [] when it stays silent."""
    until = time.monotonic() + timeout_s
    while (left_s := until - time.monotonic()) > 0:
        if select.select([watch.fileno()], [], [], left_s)[0]:
            notices = list(watch.read())
            if notices:
                return notices
    return []


def hear_ended(watch: Watch, count: int) -> list[TaskId]:
    """Read until `count` ids of ended tasks have come."""
    found: list[TaskId] = []
    while len(found) < count:
        notices = hear(watch)
        assert notices, f"heard of {len(found)} of {count} only"
        found += [task for notice in notices for task in notice.ended]
    return found
