"""The dispatch machine alone: all steps of a task, among 10 to 10,000 workers. Their number should not matter."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from bench.micro.meter import Cost, Meter
from everfaas_core.dispatch import actions as do
from everfaas_core.dispatch import events as ev
from everfaas_core.dispatch.fleet import CreditRule
from everfaas_core.dispatch.machine import Machine, MachineConfig
from everfaas_core.dispatch.strategy import Strategy
from everfaas_core.model.ids import FunctionId, TaskId, WorkerId
from everfaas_core.model.records import ClaimedTask
from everfaas_core.model.states import Cause
from everfaas_core.wire.messages import Held, Outcome
from everfaas_plugins.least_loaded import LeastLoaded
from everfaas_plugins.round_robin import RoundRobin

TITLE = "machine"
FLEETS = (10, 100, 1_000, 10_000)
SLOTS = 4
TASKS = 10_000
NOW = 1.0
RESULT = b"r" * 20
FUNCTION = FunctionId("f" * 36)
RULES: dict[CreditRule, Callable[[], Strategy]] = {"granted": RoundRobin, "capacity": LeastLoaded}


def measure(repeats: int) -> list[Cost]:
    """Return what the machine costs for one task from claim to acknowledgement, and for one heartbeat."""
    meter = Meter()
    for _ in range(repeats):
        for rule in RULES:
            for size in FLEETS:
                world = _World(rule, size)
                world.run(TASKS)
                meter.add(f"a task: {rule}, {size:,} workers", TASKS, *world.used())
                world.beat()
                meter.add(f"a heartbeat: {rule}, {size:,} workers", size, *world.used())
    return meter.costs()


class _World:
    """Answers what the machine wants at once, as a store and workers that take no time. Counts the machine's alone."""

    def __init__(self, rule: CreditRule, workers: int) -> None:
        self._machine = Machine(MachineConfig(rule=rule, liveness_s=1e9), RULES[rule]())
        self._granted = {WorkerId(f"worker-{number}"): SLOTS for number in range(workers)}
        self._wanted: list[do.Action] = []
        self._left = self._ended = 0
        self._wall_s = self._cpu_s = 0.0
        self._step([ev.Company(False)])
        self._step([ev.Joined(worker, SLOTS, SLOTS) for worker in self._granted])
        self.beat()
        self.used()

    def used(self) -> tuple[float, dict[str, float]]:
        """Return what the steps since the last call have taken: wall clock and CPU seconds."""
        used = self._wall_s, {"own": self._cpu_s}
        self._wall_s = self._cpu_s = 0.0
        return used

    def beat(self) -> None:
        """Let every worker be heard of."""
        self._step([ev.Beaten(worker, granted) for worker, granted in self._granted.items()])

    def run(self, count: int) -> None:
        """Let so many tasks go all the way."""
        self._left, self._ended = count, 0
        self._step([ev.Rung()])
        while self._ended < count:
            wanted, self._wanted = self._wanted, []
            self._step(self._answers(wanted))

    def _step(self, events: Sequence[ev.Event]) -> None:
        began, before = time.perf_counter(), time.process_time()
        actions = self._machine.step(NOW, events)
        self._cpu_s += time.process_time() - before
        self._wall_s += time.perf_counter() - began
        self._wanted += actions  # the machine may have asked for tasks before there are any

    def _answers(self, actions: Sequence[do.Action]) -> list[ev.Event]:
        """Return what the store and the workers have to say: one event for each kind and worker, as in the runtime."""
        claimed: list[ev.Event] = []
        started: list[Held] = []
        settled: list[Held] = []
        outcomes: dict[WorkerId, list[Outcome]] = {}
        for action in actions:
            match action:
                case do.Claim(count):
                    claimed.append(self._claimed(count))
                case do.StartAttempt(task_id, attempt):
                    started.append((task_id, attempt))
                case do.Run(worker_id, _, task_id, attempt):
                    outcomes.setdefault(worker_id, []).append(Outcome(task_id, attempt, Cause.OK, RESULT))
                case do.FinishAttempt(task_id, attempt):
                    settled.append((task_id, attempt))
                case do.Acknowledge(_, items):
                    self._ended += len(items)
        for worker_id, ran in outcomes.items():
            self._granted[worker_id] += len(ran)
        ended = [ev.Ended(one, tuple(ran), self._granted[one]) for one, ran in outcomes.items()]
        events: list[ev.Event] = [*ended, *claimed]
        if settled:
            events.append(ev.Settled(tuple(settled)))
        if started:
            events.append(ev.Started(tuple(started), ()))
        return events

    def _claimed(self, asked: int) -> ev.Claimed:
        given = min(asked, self._left)
        tasks = [
            ClaimedTask(task_id=TaskId(f"task-{number}"), function_id=FUNCTION, payload=b"")
            for number in range(self._left - given, self._left)
        ]
        self._left -= given
        return ev.Claimed(asked, tuple(tasks))
