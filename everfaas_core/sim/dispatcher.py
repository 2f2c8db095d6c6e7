"""A simulated dispatcher: the production machine and turns, in the loop of `runtime.dispatcher` without its I/O.

A `SimDispatcher` is an address; each time it is started it gets a new `Reign`, as a process does, under a new id.
"""

from __future__ import annotations

from collections.abc import Callable

from everfaas_core.dispatch import events as ev
from everfaas_core.dispatch.machine import Machine, MachineConfig
from everfaas_core.model.ids import DispatcherId
from everfaas_core.model.records import FleetReport, Turn, TurnReply, WorkerInfo
from everfaas_core.runtime.codebook import Codebook
from everfaas_core.runtime.dispatcher import EXCHANGES_MAX, LOOK_AROUND_S, STORE_RETRY_S, STORE_RETRY_S_MAX
from everfaas_core.runtime.gathering import Gathering
from everfaas_core.runtime.neighbours import Neighbours
from everfaas_core.runtime.turns import Turns
from everfaas_core.sim.clock import Alarm
from everfaas_core.sim.network import Connection
from everfaas_core.sim.surroundings import Surroundings
from everfaas_core.sim.switchboard import Switchboard
from everfaas_core.wire.messages import EXCUSED_S_MAX, Held, Outcome, Peers, Pulse, ToDispatcher, Welcome


class Reign:
    """One process of a dispatcher. Its monotonic clock is the world's."""

    def __init__(self, around: Surroundings, name: str, serial: int, on_left: Callable[[], None]) -> None:
        self.around = around
        self.name = name
        self.dispatcher_id = DispatcherId(f"{name}-{serial}")
        self._clock = around.clock
        self._on_left = on_left
        timing = around.timing
        config = MachineConfig(rule=around.rule, liveness_s=timing.liveness_s, adoption_s=timing.adoption_s)
        self.machine = Machine(config, around.make_strategy())
        welcome = Welcome(self.dispatcher_id, timing.heartbeat_s, timing.liveness_s)
        self.turns = Turns(welcome, Codebook(), bound=False)
        self.switchboard = Switchboard(around, name)
        self._alarm = Alarm(self._clock, self.wake)
        self._carried: list[ev.Event] = []
        self._neighbours = Neighbours(self.dispatcher_id, around.mode, "")
        self._others: list[DispatcherId] = []
        self._look_around_at = 0.0
        self._report_at = 0.0
        self._leased_at = -100.0
        self._store_at = 0.0
        self._gathering = Gathering()
        self._backoff_s = STORE_RETRY_S
        self._rung = True
        self._busy = False  # waits for the store
        self._stopped = False
        self._late: tuple[Turn, TurnReply | None] | None = None  # came while stopped
        self._rounds = 0
        self._reporting = False
        self._drain_wanted = self._draining = False
        self.over = False

    # ── what wakes it ────────────────────────────────────────────────────────────────────────────────────────────────

    def hear(self, connection: Connection, message: ToDispatcher) -> None:
        """Keep what came until the next turn."""
        self.switchboard.put(connection, message)
        self.wake()

    def ring(self) -> None:
        """The store's bell."""
        self._rung = True
        self.wake()

    def drain(self) -> None:
        """SIGTERM."""
        self._drain_wanted = True
        self.wake()

    def stop(self) -> None:
        """SIGSTOP."""
        self._stopped = True

    def go_on(self) -> None:
        """SIGCONT."""
        self._stopped = False
        late, self._late = self._late, None
        if late is not None:
            self._answered(*late)
        else:
            self.wake()

    def wake(self) -> None:
        """Take a turn, unless one is under way."""
        if not (self._busy or self._stopped or self.over):
            self._turn()

    # ── one turn ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def _turn(self) -> None:
        now = self._clock.now
        events: list[ev.Event] = [*self._carried, *self.switchboard.receive()]
        self._carried = []
        if self._drain_wanted and not self._draining:
            self._draining = True
            events.append(ev.Drained())
        events += self._look_around(now)
        outcomes: dict[Held, Outcome] = {}
        for event in events:
            if isinstance(event, ev.Ended):
                for one in event.items:
                    outcomes[one.task_id, one.attempt] = one
            elif isinstance(event, ev.Told):
                self.turns.errand.tell(event.said)
            elif isinstance(event, ev.Joined | ev.Left):
                self._report_at = now
        if (self._rung and now >= self._store_at) or now >= self._report_at:
            self._rung = False
            events.append(ev.Rung())
        self._rounds = 0
        self._step(events, outcomes)

    def _step(self, events: list[ev.Event], outcomes: dict[Held, Outcome]) -> None:
        now = self._clock.now
        timing = self.around.timing
        mute = now > self._leased_at + timing.lease_s + timing.adoption_s - EXCUSED_S_MAX
        for worker_id, message in self.turns.take(self.machine.step(now, events), outcomes):
            if not (mute and isinstance(message, Pulse | Welcome)):
                self.switchboard.send(worker_id, message)
        self._reporting = now >= self._report_at
        waits = self._gathering.waits(now, self.turns.errand.size) and not self._reporting
        if now < self._store_at or waits or not (self.turns.errand or self._reporting):
            self._rest()
        else:
            self._exchange()

    def _exchange(self) -> None:
        errand = self.turns.errand
        self._rounds += 1
        self._asked_at = self._clock.now
        self._busy = True
        turn = Turn(
            dispatcher_id=self.dispatcher_id,
            printed=tuple(errand.printed),
            progress=tuple(errand.progress),
            finishes=tuple(errand.finishes),
            requeues=tuple(errand.requeues),
            starts=tuple(errand.starts),
            adopts=tuple(errand.adopts),
            functions=tuple(sorted(errand.functions)),
            claim=errand.claim,
            claim_bytes=errand.claim_bytes,
            lease_s=self.around.timing.lease_s,
            report=self._report() if self._reporting else None,
            sweep=self._reporting,
            dead=self._dead() if self._reporting else (),
        )
        self.around.store.exchange(self.name, turn, self._answered)

    def _answered(self, turn: Turn, reply: TurnReply | None) -> None:
        if self.over:
            return
        if self._stopped:
            self._late = turn, reply
            return
        self._busy = False
        now = self._clock.now
        if reply is None:
            self._store_at = now + self._backoff_s
            self._backoff_s = min(self._backoff_s * 2, STORE_RETRY_S_MAX)
            events = self.turns.unclaimed()
        else:
            self._backoff_s = STORE_RETRY_S
            self._gathering.exchanged(now, turn, reply, ahead=self.machine.fleet.ahead)
            if self._reporting:
                self._leased_at = self._asked_at
                self._report_at = now + self.around.timing.lease_s / 3
            events = self.turns.events(turn, reply)
        if self._rounds == EXCHANGES_MAX:
            self._carried = events
            self._turn()
        else:
            self._step(events, {})

    def _rest(self) -> None:
        """The turn is over: leave if drained, take in what came meanwhile, or wait."""
        now = self._clock.now
        if self._draining and self.machine.idle() and not self.turns.errand:
            self.over = True
            self._on_left()
            return
        if self.switchboard.waiting:
            self._clock.at(now, self.wake)
        due = max(self._report_at, self._store_at)
        if (machine_due := self.machine.next_timer()) is not None:
            due = min(due, machine_due)
        if self.turns.errand:
            due = min(due, max(self._store_at, self._gathering.until))
        if self._rung:
            due = min(due, self._store_at)
        self._alarm.set(due + 1e-6)

    def _dead(self) -> tuple[DispatcherId, ...]:
        return tuple([one for one in self._others if self.around.is_dead(one)])

    def _look_around(self, now: float) -> list[ev.Event]:
        """Learn of the other dispatchers; see `Neighbours`."""
        if now < self._look_around_at or now < self._store_at:
            return []
        fleet = self.around.store.fleet(self.name)
        if fleet is None:
            return []
        self._look_around_at = now + LOOK_AROUND_S
        self._neighbours.update(fleet)
        self._others = [report.dispatcher_id for report in fleet if report.dispatcher_id != self.dispatcher_id]
        peers = self._neighbours.peers()
        if self.turns.meet(peers, heirs=bool(self._others)):
            for worker in self.machine.fleet:
                self.switchboard.send(worker.worker_id, Peers(peers, bool(self._others)))
        return [ev.Company(bool(self._others))]

    def _report(self) -> FleetReport:
        return FleetReport(
            dispatcher_id=self.dispatcher_id,
            mode=self.around.mode,
            host=self.name,
            pid=1,
            started_ms=0,
            address=self.name,
            workers=tuple([
                WorkerInfo(
                    worker_id=worker.worker_id, host=worker.host, pid=worker.pid, slots=worker.slots, busy=worker.load,
                    draining=worker.draining, python=worker.python, dill=worker.dill, joined_ms=0,
                )
                for worker in self.machine.fleet
            ]),
        )  # fmt: skip


class SimDispatcher:
    """An address, and who serves it."""

    def __init__(self, name: str, around: Surroundings, on_over: Callable[[SimDispatcher], None]) -> None:
        self.name = name
        self.around = around
        self.stopped = False
        self._on_over = on_over
        self.reign: Reign | None = None
        self._reigns = 0

    def start(self) -> None:
        """Start a process, unless one lives."""
        if self.reign is None:
            self._reigns += 1
            self.reign = Reign(self.around, self.name, self._reigns, self._left)
            self.around.network.listen(self.name, self)
            self.reign.wake()

    def _left(self) -> None:
        assert self.reign is not None
        self.around.store.resign(self.reign.dispatcher_id)
        self.reign = None
        self.around.network.die(self.name)
        self.around.trace.tell(self.around.clock.now, self.name, "left")
        self._on_over(self)

    def die(self) -> None:
        """Kill the process: its connections break."""
        reign, self.reign, self.stopped = self.reign, None, False
        if reign is not None:
            reign.over = True
            self.around.network.die(self.name)

    def stop(self) -> None:
        """Stop the process: nobody is let in, what comes is kept by the kernel."""
        if self.reign is not None and not self.stopped:
            self.stopped = True
            self.reign.stop()
            self.around.network.silence(self.name)

    def go_on(self) -> None:
        """Let a stopped process go on."""
        if self.stopped and self.reign is not None:
            self.stopped = False
            self.around.network.listen(self.name, self)
            self.reign.go_on()

    # ── network.DispatcherEnd ────────────────────────────────────────────────────────────────────────────────────────

    def on_message(self, connection: Connection, message: ToDispatcher) -> None:
        """Hand on."""
        if self.reign is not None:
            self.reign.hear(connection, message)

    def ring(self, dispatcher_id: DispatcherId) -> None:
        """Hand on the store's bell, if it rings for who serves here now."""
        if self.reign is not None and self.reign.dispatcher_id == dispatcher_id:
            self.reign.ring()
