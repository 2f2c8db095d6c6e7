"""Each script of the store on the embedded server: one call at a time, and so many items in one call."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from bench.micro.meter import Cost, Meter
from everfaas_core.model.ids import DispatcherId, TaskId
from everfaas_core.model.records import Adopt, ClaimedTask, Finish, Requeue, Start, TaskFilter, Turn
from everfaas_core.model.states import Cause, Status
from everfaas_core.testing.servers import embedded_store
from everfaas_core.testing.store_scene import PLENTY, WORKER, Scene, report
from everfaas_plugins.redis.store import RedisStore

TITLE = "store"
SIZES = {1: 300, 16: 1_600, 256: 5_120}  # items in one call → tasks of one repetition
PAYLOAD = b"p" * 100
RESULT = b"r" * 20
LEASE_S = 60.0
GROUP = "group"
GROUP_BYTES_MAX = 1024 * 1024
PAGE = 50

T = TypeVar("T")


def measure(repeats: int) -> list[Cost]:
    """Return what each script costs for one item. CPU is that of the client and that of the whole server."""
    with tempfile.TemporaryDirectory() as folder, embedded_store(Path(folder)) as url:
        store = RedisStore(url)
        store.prepare()
        try:
            meter = Meter(server=lambda: server_cpu_s(store))
            for repetition in range(repeats):
                for size, tasks in SIZES.items():
                    _Repetition(store, meter, size, tasks, f"d{repetition}-{size}").run()
            return meter.costs()
        finally:
            store.close()


def server_cpu_s(store: RedisStore) -> float:
    """Return the CPU time that the server has used, all of its threads, in seconds."""
    lines = store._server.command("INFO", "cpu").decode().splitlines()
    used = {name: value for name, _, value in (line.partition(":") for line in lines)}
    return float(used["used_cpu_user"]) + float(used["used_cpu_sys"])


class _Repetition:
    """One pass through all scripts, with `size` items a call, on an empty store."""

    def __init__(self, store: RedisStore, meter: Meter, size: int, tasks: int, dispatcher: str) -> None:
        self._store, self._meter, self._size, self._tasks = store, meter, size, tasks
        self._me = DispatcherId(dispatcher)
        store._server.command("FLUSHDB")
        self._scene = Scene(store)
        self._function = self._scene.function()

    def run(self) -> None:
        self._turn(report=report(self._me))  # so that it has a lease
        ids = self._submit(self._tasks)
        claimed = self._claims("claim, with lease")
        self._each("requeue", claimed, self._requeue)
        claimed = self._claims(None)
        self._each("start", claimed, self._start)
        self._each("adopt, with lease", claimed, self._adopt)
        self._each("finish", claimed, self._finish)
        self._each("statuses", ids, self._store.statuses)
        self._each("results", ids, self._store.results)
        self._each("records", ids, self._store.tasks)
        again = self._submit(self._tasks, measured=False)
        self._each("cancel", again, self._store.cancel)
        self._each("functions", [self._function] * self._tasks, self._store.functions)
        if self._size == 1:
            self._singles(again)

    def _singles(self, cancelled: Sequence[TaskId]) -> None:
        """Measure the scripts that know no batches, or do the same whatever a batch holds."""
        rounds = range(self._tasks)
        names = itertools.count()
        self._run_group()
        single: list[tuple[str, Callable[[int], Any]]] = [
            ("put_function", lambda _: self._scene.function(f"f{next(names)}")),
            ("lease, with a report", lambda _: self._turn(report=report(self._me))),
            ("sweep, nothing to do, with lease", lambda _: self._turn(sweep=True)),
            ("claim, nothing to claim, with lease", lambda _: self._turn(claim=64)),
            ("fleet (health)", lambda _: self._store.health()),
            (f"list, a page of {PAGE}, with records", lambda _: self._store.list_tasks(TaskFilter(), None, PAGE)),
            (f"group, a page of {PAGE}", lambda _: self._group_page()),
            ("drain", lambda _: self._store.drain_worker(WORKER)),
            ("retry", lambda i: self._store.retry(cancelled[i], self._scene.new_id())),
            ("resign", lambda _: self._store.resign(self._me)),
        ]
        for what, call in single:
            with self._meter.phase(f"{what}: one at a time", len(rounds)):
                for i in rounds:
                    call(i)

    def _run_group(self) -> None:
        self._store.submit([self._scene.spec(self._function, group=GROUP) for _ in range(PAGE)], PLENTY)
        claimed = self._turn(claim=PAGE).claimed
        self._start(claimed)
        self._finish(claimed)

    def _group_page(self) -> None:
        if len(self._store.group_results(GROUP, None, PAGE, bytes_max=GROUP_BYTES_MAX).ended) != PAGE:
            raise RuntimeError("the group is not complete")

    def _submit(self, count: int, *, measured: bool = True) -> list[TaskId]:
        specs = [self._scene.spec(self._function, payload=PAYLOAD) for _ in range(count)]
        submit = self._store.submit
        self._each("submit" if measured else None, specs, lambda part: submit(part, PLENTY))
        return [spec.task_id for spec in specs]

    def _claims(self, what: str | None) -> list[ClaimedTask]:
        claimed: list[ClaimedTask] = []
        self._each(what, range(self._tasks), lambda part: claimed.extend(self._turn(claim=len(part)).claimed))
        if len(claimed) != self._tasks:
            raise RuntimeError(f"claimed {len(claimed)} of {self._tasks} tasks")
        return claimed

    def _each(self, what: str | None, items: Sequence[T], call: Callable[[Sequence[T]], Any]) -> None:
        """Make calls of `size` items each, measured as `what` unless that is None."""
        parts = [items[at : at + self._size] for at in range(0, len(items), self._size)]
        if what is None:
            for part in parts:
                call(part)
            return
        how = "one at a time" if self._size == 1 else f"{self._size} a call"
        with self._meter.phase(f"{what}: {how}", len(items)):
            for part in parts:
                call(part)

    def _turn(self, **parts: Any) -> Any:
        return self._store.exchange(Turn(dispatcher_id=self._me, lease_s=LEASE_S, **parts))

    def _requeue(self, tasks: Sequence[ClaimedTask]) -> None:
        items = [Requeue(task_id=one.task_id, attempt=0, cause=Cause.GIVEN_BACK, charged=False) for one in tasks]
        self._turn(requeues=tuple(items))

    def _start(self, tasks: Sequence[ClaimedTask]) -> None:
        reply = self._turn(starts=tuple(Start(task_id=one.task_id, attempt=1, worker=WORKER) for one in tasks))
        _all(reply.started)

    def _adopt(self, tasks: Sequence[ClaimedTask]) -> None:
        items = [Adopt(task_id=one.task_id, attempt=1, worker=WORKER, epoch=1) for one in tasks]
        _all(self._turn(adopts=tuple(items)).adoptions)

    def _finish(self, tasks: Sequence[ClaimedTask]) -> None:
        items = [
            Finish(
                task_id=one.task_id,
                attempt=1,
                status=Status.COMPLETED,
                cause=Cause.OK,
                result=RESULT,
                run_s=0.001,
            )
            for one in tasks
        ]
        _all(self._turn(finishes=tuple(items)).finished)


def _all(done: Sequence[object]) -> None:
    if not all(done):
        raise RuntimeError("the store refused something that was right: this measures nothing")
