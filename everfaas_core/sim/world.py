"""A whole world: fleet, dispatchers, store, clients and faults from one seed; run it until every task has ended."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from typing import Final

from msgspec import Struct

from everfaas_core.model.ids import DispatcherId, FunctionId, TaskId
from everfaas_core.model.records import DEFAULT_MAX_ATTEMPTS
from everfaas_core.ports import Strategy
from everfaas_core.sim.chance import stream
from everfaas_core.sim.clock import Clock
from everfaas_core.sim.dispatcher import SimDispatcher
from everfaas_core.sim.faults import Faults
from everfaas_core.sim.ledger import Deed, Ledger, Plan, Violation
from everfaas_core.sim.network import Network
from everfaas_core.sim.scenarios import Scenario
from everfaas_core.sim.store import SimStore
from everfaas_core.sim.store_line import FaultyLine
from everfaas_core.sim.surroundings import Surroundings
from everfaas_core.sim.trace import Trace
from everfaas_core.sim.worker import SimWorker

HEALED_S_MAX: Final = 120.0
"""Beyond the time that its work takes, how long a healed world may need until every task has ended."""

PROBE_S: Final = 3.0
PROBE_S_MAX: Final = 15.0
"""A full house of tasks of the first length has to be running, all at once, before the second has passed."""

LEAVE_S_MAX: Final = 30.0
CLIENT_BATCH_S: Final = 0.05
RESTART_S: Final = 1.0  # from the end of a process that was drained to its next start


class Summary(Struct, frozen=True, kw_only=True):
    """What a run came to. `violation` is None if the promise was kept."""

    scenario: str
    seed: int
    workers: int
    slots: int
    tasks: int
    virtual_s: float
    wall_s: float
    cpu_s: float
    tasks_per_wall_s: float
    attempts: int
    ended: dict[str, int]
    faults: dict[str, int]
    events: int
    digest: str
    violation: str | None


class World:
    """One run. Every number in it comes from the scenario and the seed."""

    def __init__(
        self, scenario: Scenario, seed: int, make_strategy: Callable[[], Strategy], *,
        until_s: float | None = None, written: bool = False,
    ) -> None:  # fmt: skip
        self.scenario = scenario
        self.seed = seed
        self.trace = Trace(written=written)
        self.clock = Clock()
        self._until_s = until_s
        self._counts: Counter[str] = Counter()
        self.ledger = Ledger(DEFAULT_MAX_ATTEMPTS)
        self.store = SimStore(lambda: self.clock.now, self.ledger, self._ring, scenario.functions)
        self.network = Network(self.clock, self.trace, stream(seed, "network"), scenario.weather)
        self.line = FaultyLine(
            self.clock, self.trace, stream(seed, "store"), scenario.store, lambda: self.store, self._counts
        )
        around = Surroundings(
            clock=self.clock,
            trace=self.trace,
            ledger=self.ledger,
            network=self.network,
            chance=stream(seed, "slots"),
            store=self.line,
            rule=scenario.rule,
            mode="pull" if scenario.rule == "granted" else "push",
            timing=scenario.timing,
            make_strategy=make_strategy,
            is_dead=self._is_dead,
        )
        drift = stream(seed, "drift")
        self.dispatchers = [SimDispatcher(f"d{n}", around, self._restart) for n in range(scenario.dispatchers)]
        names = [one.name for one in self.dispatchers]
        self.workers = [
            SimWorker(
                f"w{n}", scenario.slots, names[n % len(names)],
                1.0 + scenario.drift * (2 * drift.random() - 1), around, self._restart,
            )
            for n in range(scenario.workers)
        ]  # fmt: skip
        self.faults = Faults(
            self.clock, self.trace, stream(seed, "faults"), self.network, self.line, self.workers, self.dispatchers,
            self._counts,
        )  # fmt: skip
        self._clients = stream(seed, "clients")
        self._submitted = 0
        self._closing = False

    # ── a run ────────────────────────────────────────────────────────────────────────────────────────────────────────

    def run(self) -> Summary:
        """Run to the end, or to the first violation."""
        began, cpu_began = time.perf_counter(), time.process_time()
        violation: str | None = None
        try:
            self._live()
        except Violation as broken:
            violation = f"at {self.clock.now:.3f} s: {broken}"
        except Exception as error:  # noqa: BLE001 - the machines under test must not raise anything; it is reported
            violation = f"at {self.clock.now:.3f} s: {_where(error)}"
        if violation is not None:
            self.trace.tell(self.clock.now, "VIOLATION", violation)
        wall_s = time.perf_counter() - began
        if self.network.echoes:
            self._counts["report heard twice"] = self.network.echoes
        digest = self.trace.digest()
        done = sum(self.ledger.ended.values())
        return Summary(
            scenario=self.scenario.name,
            seed=self.seed,
            workers=self.scenario.workers,
            slots=self.scenario.slots,
            tasks=self._submitted,
            virtual_s=round(self.clock.now, 3),
            wall_s=round(wall_s, 2),
            cpu_s=round(time.process_time() - cpu_began, 2),
            tasks_per_wall_s=round(done / wall_s, 1) if wall_s else 0.0,
            attempts=self.ledger.attempts,
            ended={str(status): count for status, count in sorted(self.ledger.ended.items())},
            faults=dict(sorted(self._counts.items())),
            events=self.trace.events,
            digest=digest,
            violation=violation,
        )

    def _live(self) -> None:
        scenario = self.scenario
        for dispatcher in self.dispatchers:
            dispatcher.start()
        for worker in self.workers:
            self.clock.at(self._clients.random() * 0.2, worker.start)
        self.clock.at(0.2, self._submit)
        self.faults.begin(scenario.faults, scenario.script)
        rate = scenario.load * scenario.workers * scenario.slots / scenario.task_s
        last_s = 0.2 + scenario.tasks / rate
        script_s = max((act.at_s + act.for_s for act in scenario.script), default=0.0)
        trouble_s = max(last_s, script_s + 1.0) if self._until_s is None else self._until_s
        self.clock.run(trouble_s, lambda: self._is_done() and not scenario.script)
        self._heal()

    def _is_done(self) -> bool:
        return self._submitted >= self.scenario.tasks and self.ledger.unfinished == 0

    def _heal(self) -> None:
        """Nothing goes wrong any more: now everything has to end, all slots have to be of use, all have to leave."""
        self.trace.tell(self.clock.now, "WORLD", "is healed")
        self.faults.heal()
        scenario = self.scenario
        rate = scenario.load * scenario.workers * scenario.slots / scenario.task_s
        left_s = 3 * (scenario.tasks - self._submitted + self.ledger.unfinished) / rate
        patience_s = left_s + HEALED_S_MAX
        if not self.clock.run(self.clock.now + patience_s, self._is_done):
            self.ledger.demand_all_ended(patience_s)
        self._probe()
        self._close()

    def _probe(self) -> None:
        """Demand that no slot and no credit was lost on the way: as many tasks as there are slots run at once."""
        slots = self.scenario.workers * self.scenario.slots
        plans = [Plan(TaskId(f"probe{n}"), FunctionId("f0"), Deed.RETURNS, PROBE_S_MAX, None) for n in range(slots)]
        self.clock.run(self.clock.now + PROBE_S, lambda: False)
        self.trace.tell(self.clock.now, "CLIENTS", f"submit {slots} tasks, one for each slot")
        self.trace.written = False
        self.store.submit(plans, DEFAULT_MAX_ATTEMPTS)
        began = self.clock.now
        if not self.clock.run(began + PROBE_S_MAX, lambda: self.ledger.running >= slots):
            raise Violation(
                f"{PROBE_S_MAX:g} s after {slots} tasks were submitted to {slots} idle slots "
                f"only {self.ledger.running} run: slots or credit were lost"
            )
        if not self.clock.run(self.clock.now + HEALED_S_MAX, lambda: self.ledger.unfinished == 0):
            self.ledger.demand_all_ended(HEALED_S_MAX)

    def _close(self) -> None:
        """Have everybody drained; nobody may be kept by something it forgot to let go of."""
        self._closing = True
        self.clock.run(self.clock.now + 1.0, lambda: False)
        for worker in self.workers:
            if worker.life is not None:
                worker.life.drain()
        if not self.clock.run(self.clock.now + LEAVE_S_MAX, lambda: all(one.life is None for one in self.workers)):
            stuck = [one.name for one in self.workers if one.life is not None]
            raise Violation(f"workers {', '.join(stuck[:8])} do not leave, {LEAVE_S_MAX:g} s after they were drained")
        for dispatcher in self.dispatchers:
            if dispatcher.reign is not None:
                dispatcher.reign.drain()
        if not self.clock.run(self.clock.now + LEAVE_S_MAX, lambda: all(one.reign is None for one in self.dispatchers)):
            raise Violation(f"a dispatcher without tasks does not leave, {LEAVE_S_MAX:g} s after it was drained")

    # ── clients ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def _submit(self) -> None:
        scenario = self.scenario
        rate = scenario.load * scenario.workers * scenario.slots / scenario.task_s
        count = min(max(round(rate * CLIENT_BATCH_S), 1), scenario.tasks - self._submitted)
        now_plans: list[Plan] = []
        for _ in range(count):
            plan, delay_s = self._plan()
            if delay_s:
                self.store.submit([plan], DEFAULT_MAX_ATTEMPTS, delay_s)
            else:
                now_plans.append(plan)
        self.trace.tell(self.clock.now, "CLIENTS", f"submit {' '.join(plan.task_id for plan in now_plans)}")
        self.store.submit(now_plans, DEFAULT_MAX_ATTEMPTS)
        if self._submitted < scenario.tasks:
            self.clock.after(max(CLIENT_BATCH_S, 1 / rate), self._submit)

    def _plan(self) -> tuple[Plan, float]:
        chance, mix = self._clients, self.scenario.mix
        task_id = TaskId(f"t{self._submitted}")
        self._submitted += 1
        function_id = FunctionId(f"f{chance.randrange(self.scenario.functions)}")
        luck = chance.random()
        deed, timeout_s = Deed.RETURNS, None
        if luck < mix.raises:
            deed = Deed.RAISES
        elif luck < mix.raises + mix.exits:
            deed = Deed.EXITS
        elif luck < mix.raises + mix.exits + mix.hangs:
            deed, timeout_s = Deed.HANGS, mix.timeout_s
        run_s = self.scenario.task_s * (0.5 + chance.random())
        if mix.cancelled and chance.random() < mix.cancelled:
            self.clock.after(chance.random() * 4 * self.scenario.task_s, self._cancel, task_id)
        delay_s = 3 * chance.random() if mix.delayed and chance.random() < mix.delayed else 0.0
        return Plan(task_id, function_id, deed, run_s, timeout_s), delay_s

    def _cancel(self, task_id: TaskId) -> None:
        self.trace.tell(self.clock.now, "CLIENTS", f"cancel {task_id}")
        self.store.cancel(task_id)

    # ── what the parts tell ──────────────────────────────────────────────────────────────────────────────────────────

    def _ring(self, dispatcher_id: DispatcherId) -> None:
        dispatcher = self.dispatchers[int(dispatcher_id.split("-", 1)[0][1:])]
        self.clock.after(self.line.weather.latency_s / 2, dispatcher.ring, dispatcher_id)

    def _is_dead(self, dispatcher_id: DispatcherId) -> bool:
        """Tell whether a dispatcher's process has ended, as another on the same machine sees it."""
        reign = self.dispatchers[int(dispatcher_id.split("-", 1)[0][1:])].reign
        return self.scenario.one_machine and (reign is None or reign.dispatcher_id != dispatcher_id)

    def _restart(self, who: SimWorker | SimDispatcher) -> None:
        if not self._closing:
            self.clock.after(RESTART_S, who.start)


def _where(error: Exception) -> str:
    """Say what was raised in which function."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    place = "" if trace is None else f" in {trace.tb_frame.f_code.co_qualname}, line {trace.tb_lineno}"
    return f"{type(error).__name__}{place}: {error}"
