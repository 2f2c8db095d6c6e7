"""A whole house in one process: a dispatcher's loop and its workers in threads, slots as real processes.

For contract suites and plugin authors' own tests. The commands run the same parts as processes of their own.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Final, Self

import dill

from everfaas_core.hookspecs import Mode, StrategyProvider, Transport
from everfaas_core.model.ids import RANDOM_BYTES, DispatcherId, FunctionId, TaskId, function_id, task_id
from everfaas_core.model.output import OUTPUT_BYTES_MAX, Stream
from everfaas_core.model.records import FunctionOptions, FunctionRecord, TaskRecord, TaskSpec
from everfaas_core.model.states import TERMINAL
from everfaas_core.ports import LinkContext, Store, UplinkContext
from everfaas_core.runtime.dispatcher import Dispatcher, DispatcherConfig
from everfaas_core.runtime.signals import STOP, StopRequest
from everfaas_core.worker.agent import Agent, AgentConfig
from everfaas_core.worker.host import ProcessHost, SlotConfig

WAIT_S: Final = 30.0
QUEUE_MAX: Final = 1_000_000


class House:
    """Start it with `with`; `call` functions; what is left at the end is stopped."""

    def __init__(
        self,
        store: Store,
        mode: Mode,
        strategy: StrategyProvider,
        transport: Transport | None = None,
        *,
        slots: int = 2,
        workers: int = 1,
        options: Mapping[str, Any] | None = None,
        default_timeout_s: float | None = None,
        heartbeat_s: float = 0.5,
        lease_s: float = 3.0,
    ) -> None:
        self.store = store
        self.mode = mode
        self.slots = slots
        self._log = logging.getLogger("everfaas.house")
        self._strategy = strategy
        self._transport = transport
        self._workers = 0 if mode.runs_slots else workers
        self._options = options or {}
        self._timing = {"heartbeat_s": heartbeat_s, "liveness_s": 5 * heartbeat_s, "lease_s": lease_s}
        self._default_timeout_s = default_timeout_s
        self._threads: list[tuple[threading.Thread, StopRequest]] = []
        self._ready = threading.Event()
        self.address = ""

    def __enter__(self) -> Self:
        self.store.prepare()
        self.start_dispatcher()
        for _ in range(self._workers):
            self.start_worker()
        self.until(lambda: self.store.health().slots >= self.slots * max(self._workers, 1))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for thread, stop in reversed(self._threads):
            stop.request(STOP)
            thread.join(WAIT_S)
            stop.close()
            if thread.is_alive():
                raise AssertionError(f"{thread.name} did not stop")

    def start_dispatcher(self, worker_port: int = 0) -> StopRequest:
        """Start a dispatcher in a thread, and wait until it is ready. Returns what stops it."""
        dispatcher_id = DispatcherId(f"d{len(self._threads)}-{os.urandom(3).hex()}")
        context = LinkContext(
            dispatcher_id=dispatcher_id,
            mode=self.mode.name,
            host="127.0.0.1",
            worker_port=worker_port,
            slots=self.slots if self.mode.runs_slots else 0,
            heartbeat_s=self._timing["heartbeat_s"],
            liveness_s=self._timing["liveness_s"],
            options=self._options,
            make_slots=lambda slots: ProcessHost(SlotConfig(slots=slots), log=self._log),
        )
        stop = StopRequest()
        dispatcher = Dispatcher(
            DispatcherConfig(
                dispatcher_id=dispatcher_id,
                mode=self.mode.name,
                default_timeout_s=self._default_timeout_s,
                **self._timing,
            ),
            self.store,
            self.mode.factory(context),
            self._strategy.factory(self._options),
            stop,
            log=self._log,
            on_ready=self._on_ready,
        )
        self._ready.clear()
        self._start(dispatcher.run, stop, dispatcher_id)
        if not self._ready.wait(WAIT_S):
            raise AssertionError("the dispatcher did not become ready")
        return stop

    def _on_ready(self, address: str) -> None:
        self.address = address
        self._ready.set()

    def start_worker(self) -> StopRequest:
        """Start a worker in a thread. Returns what stops it."""
        if self._transport is None:
            raise AssertionError(f"mode {self.mode.name} needs a worker transport")
        stop = StopRequest()
        agent = Agent(
            AgentConfig(mode=self.mode.name, url=self.address, slots=self.slots),
            self._transport.factory(UplinkContext(url=self.address, options=self._options)),
            ProcessHost(SlotConfig(slots=self.slots), log=self._log),
            stop,
            self._log,
        )
        self._start(agent.run, stop, f"worker-{len(self._threads)}")
        return stop

    def _start(self, target: Callable[[], int], stop: StopRequest, name: str) -> None:
        thread = threading.Thread(target=target, name=name)
        self._threads.append((thread, stop))
        thread.start()

    # ── calls ────────────────────────────────────────────────────────────────────────────────────────────────────────

    def register(self, function: Callable[..., Any], **options: Any) -> FunctionId:
        """Register a function by value. `options` are those of FunctionOptions."""
        payload = dill.dumps(function, byref=False, recurse=True)
        made = FunctionId(function_id(function.__name__, payload, repr(sorted(options.items())).encode()))
        self.store.put_function(
            FunctionRecord(
                function_id=made, name=function.__name__, payload=payload, options=FunctionOptions(**options)
            )
        )
        return made

    def submit(self, registered: FunctionId, *calls: tuple[Any, ...], **options: Any) -> list[TaskId]:
        """Submit one task for each tuple of arguments. `options` are those of TaskSpec."""
        secret = self.store.secret()
        specs = [
            TaskSpec(
                task_id=task_id(int(time.time() * 1000), os.urandom(RANDOM_BYTES), secret),
                function_id=registered,
                payload=dill.dumps((call, {})),
                **options,
            )
            for call in calls
        ]
        return list(self.store.submit(specs, QUEUE_MAX))

    def wait(self, *ids: TaskId, wait_s: float = WAIT_S) -> list[TaskRecord]:
        """Return the records of tasks that have ended, all of them."""
        self.until(lambda: all(status in TERMINAL for status in self.store.statuses(ids)), wait_s=wait_s)
        return [record for record in self.store.tasks(ids) if record is not None]

    def result(self, one: TaskId) -> Any:
        """Return the value or exception of a task that has ended."""
        (record,) = self.store.results([one])
        if record is None:
            raise AssertionError(f"{one} is unknown")
        return dill.loads(record.result)  # noqa: S301 - what the test's own function returned

    def printed(self, one: TaskId, stream: Stream = Stream.STDOUT) -> str:
        """Return what a task has printed so far."""
        page = self.store.task_log(one, None, bytes_max=OUTPUT_BYTES_MAX)
        if page is None:
            raise AssertionError(f"{one} is unknown")
        return b"".join(piece.text for piece in page.pieces if piece.stream is stream).decode()

    def call(self, function: Callable[..., Any], *args: Any, **options: Any) -> tuple[TaskRecord, Any]:
        """Register, submit, wait; return the record and the value or exception."""
        (one,) = self.submit(self.register(function), args, **options)
        (record,) = self.wait(one)
        return record, self.result(one)

    @staticmethod
    def until(done: Callable[[], bool], wait_s: float = WAIT_S) -> None:
        """Wait until `done()`."""
        end = time.monotonic() + wait_s
        while not done():
            if time.monotonic() > end:
                raise AssertionError(f"did not happen within {wait_s:g} s: {done}")
            time.sleep(0.005)
