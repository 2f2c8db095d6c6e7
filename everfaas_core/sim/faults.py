"""What goes wrong: at random by rate, or by a script. Every fault ends by itself, or when the world is healed."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable

from everfaas_core.sim import scenarios as s
from everfaas_core.sim.clock import Clock
from everfaas_core.sim.dispatcher import SimDispatcher
from everfaas_core.sim.network import Network
from everfaas_core.sim.scenarios import Act, Fault
from everfaas_core.sim.store_line import EVERYBODY, FaultyLine
from everfaas_core.sim.trace import Trace
from everfaas_core.sim.worker import SimWorker


class Faults:
    """Injects; counts by kind."""

    def __init__(
        self, clock: Clock, trace: Trace, chance: random.Random, network: Network, line: FaultyLine,
        workers: list[SimWorker], dispatchers: list[SimDispatcher], counts: Counter[str],
    ) -> None:  # fmt: skip
        self._clock = clock
        self._trace = trace
        self._chance = chance
        self._network = network
        self._line = line
        self._workers = workers
        self._dispatchers = dispatchers
        self.counts = counts
        self._healed = False
        self._do: dict[str, Callable[[str, float], bool]] = {
            s.WORKER_KILLED: self._kill_worker,
            s.WORKER_STOPPED: self._stop_worker,
            s.WORKER_LEAVES: self._drain_worker,
            s.SLOT_KILLED: self._kill_slot,
            s.CONNECTION_BROKEN: self._break_connection,
            s.PARTITION: self._cut,
            s.DISPATCHER_KILLED: self._kill_dispatcher,
            s.DISPATCHER_STOPPED: self._stop_dispatcher,
            s.DISPATCHER_LEAVES: self._drain_dispatcher,
            s.STORE_REFUSES: lambda _, until: self._outage(EVERYBODY, until, silent=False),
            s.STORE_SILENT: lambda _, until: self._outage(EVERYBODY, until, silent=True),
            s.STORE_CUT_OFF: self._cut_store,
        }

    def begin(self, faults: tuple[Fault, ...], script: tuple[Act, ...]) -> None:
        """Plan the script, and the first of each kind."""
        for act in script:
            self._clock.at(act.at_s, self._inject, act.kind, act.target, act.for_s)
        for fault in faults:
            self._plan(fault)

    def _plan(self, fault: Fault) -> None:
        self._clock.after(self._chance.expovariate(fault.per_s), self._strike, fault)

    def _strike(self, fault: Fault) -> None:
        if self._healed:
            return
        for_s = fault.short_s + (fault.long_s - fault.short_s) * self._chance.random()
        among = self._dispatchers if "dispatcher" in fault.kind else self._workers
        target = among[self._chance.randrange(len(among))]
        self._inject(fault.kind, target.name, for_s)
        self._plan(fault)

    def _inject(self, kind: str, target: str, for_s: float) -> None:
        if not self._healed and self._do[kind](target, self._clock.now + for_s):
            self.counts[kind] += 1
            lasting = f" for {for_s:.3g} s" if for_s else ""
            self._trace.tell(self._clock.now, "FAULT", f"{kind}: {target or 'everybody'}{lasting}")

    def heal(self) -> None:
        """End everything that is wrong, now and for good."""
        self._healed = True
        self._network.heal()
        self._line.heal()
        for dispatcher in self._dispatchers:
            dispatcher.go_on()
            dispatcher.start()
        for worker in self._workers:
            worker.go_on()
            worker.start()

    # ── workers ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def _worker(self, name: str) -> SimWorker:
        return self._workers[int(name[1:])]

    def _kill_worker(self, name: str, until: float) -> bool:
        worker = self._worker(name)
        if worker.life is None:
            return False
        worker.die()
        self._clock.at(until, worker.start)
        return True

    def _stop_worker(self, name: str, until: float) -> bool:
        worker = self._worker(name)
        if not worker.up:
            return False
        worker.stop()
        self._clock.at(until, worker.go_on)
        return True

    def _drain_worker(self, name: str, until: float) -> bool:
        worker = self._worker(name)
        if worker.life is None or not worker.up:
            return False
        worker.life.drain()  # once it has left it is started again, see World
        return True

    def _kill_slot(self, name: str, until: float) -> bool:
        worker = self._worker(name)
        return worker.life is not None and worker.life.host.crash(self._chance.randrange(worker.slots), "killed")

    def _break_connection(self, name: str, until: float) -> bool:
        life = self._worker(name).life
        if life is None or life.connection is None:
            return False
        self._network.snap(life.connection)
        return True

    def _cut(self, name: str, until: float) -> bool:
        worker = self._worker(name)
        self._network.cut(name, worker.address, until)
        return True

    # ── dispatchers ──────────────────────────────────────────────────────────────────────────────────────────────────

    def _dispatcher(self, name: str) -> SimDispatcher:
        return self._dispatchers[int(name[1:])]

    def _kill_dispatcher(self, name: str, until: float) -> bool:
        dispatcher = self._dispatcher(name)
        if dispatcher.reign is None:
            return False
        dispatcher.die()
        self._clock.at(until, dispatcher.start)
        return True

    def _stop_dispatcher(self, name: str, until: float) -> bool:
        dispatcher = self._dispatcher(name)
        if dispatcher.reign is None or dispatcher.stopped:
            return False
        dispatcher.stop()
        self._clock.at(until, dispatcher.go_on)
        return True

    def _drain_dispatcher(self, name: str, until: float) -> bool:
        dispatcher = self._dispatcher(name)
        if dispatcher.reign is None or dispatcher.stopped:
            return False
        dispatcher.reign.drain()
        return True

    # ── the store ────────────────────────────────────────────────────────────────────────────────────────────────────

    def _outage(self, who: str, until: float, *, silent: bool) -> bool:
        self._line.outage(who, until, silent=silent)
        return True

    def _cut_store(self, name: str, until: float) -> bool:
        name = name if name.startswith("d") else self._dispatchers[0].name
        return self._outage(name, until, silent=self._chance.random() < 0.5)
