"""The dispatcher's loop: wait, take in, step the machine, one exchange with the store, send. All I/O is here.

Nothing in it sleeps: it waits on descriptors (the link's, the store's bell, signals) until the next timer. The store
may go away at any time; what it is to be told is kept until it is back, and nothing is sent before it is stored.
"""

from __future__ import annotations

import logging
import os
import platform
import time
import uuid
from collections.abc import Callable, Sequence
from typing import Final

import msgspec
from msgspec import Struct

from everfaas_core.dispatch import events as ev
from everfaas_core.dispatch.entries import Phase
from everfaas_core.dispatch.machine import Machine, MachineConfig
from everfaas_core.model.errors import EverfaasError, StoreRefused, StoreUnavailable
from everfaas_core.model.ids import DispatcherId
from everfaas_core.model.records import FleetReport, Requeue, Turn, WorkerInfo
from everfaas_core.model.states import Cause
from everfaas_core.ports import Link, Store, Strategy, TaskSource, Watch
from everfaas_core.runtime.chronicle import log_failures, log_fleet
from everfaas_core.runtime.codebook import Codebook
from everfaas_core.runtime.gathering import Gathering
from everfaas_core.runtime.lease import BOUND_SHARE, FENCE_SHARE, Lease
from everfaas_core.runtime.neighbours import Neighbours, advertised
from everfaas_core.runtime.poll import Poller
from everfaas_core.runtime.processes import this_machine
from everfaas_core.runtime.signals import DRAIN, STOP, StopRequest
from everfaas_core.runtime.sources import SourceThreads
from everfaas_core.runtime.turns import Turns
from everfaas_core.runtime.watchdog import Watchdog
from everfaas_core.wire.messages import EXCUSED_S_MAX, Held, Outcome, Peers, Pulse, Welcome

STORE_RETRY_S: Final = 0.1
STORE_RETRY_S_MAX: Final = 1.0
REPEAT_WARNING_S: Final = 5.0
LOOK_AROUND_S: Final = 1.0
"""How often other dispatchers are looked for."""

EXCHANGES_MAX: Final = 8
"""Store round trips of one turn, before the links are heard again."""


class Starved(EverfaasError):
    """The dispatcher is connected and does not consume."""

    code = "starved"


class DispatcherConfig(Struct, frozen=True, kw_only=True):
    """What a dispatcher is told. Durations in seconds."""

    dispatcher_id: DispatcherId
    mode: str
    heartbeat_s: float = 0.5
    liveness_s: float = 2.5
    lease_s: float = 3.0
    adoption_s: float = 5.0
    default_timeout_s: float | None = None  # --task-deadline


class Dispatcher:
    """One dispatcher process. `run` returns the exit status."""

    def __init__(
        self,
        config: DispatcherConfig,
        store: Store,
        link: Link,
        strategy: Strategy,
        stop: StopRequest,
        *,
        sources: Sequence[TaskSource] = (),
        log: logging.Logger | None = None,
        on_ready: Callable[[str], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._config = config
        self._store = store
        self._link = link
        self._stop = stop
        self._clock = clock
        self._log = log or logging.getLogger("everfaas.dispatcher")
        self._on_ready = on_ready
        self._machine = Machine(
            MachineConfig(
                rule="capacity" if link.credit == "capacity" else "granted",
                bound=link.bound,
                liveness_s=config.liveness_s,
                adoption_s=config.adoption_s,
                default_timeout_s=config.default_timeout_s,
            ),
            strategy,
        )
        self._machine_token = this_machine()
        self._turns = Turns(
            Welcome(config.dispatcher_id, config.heartbeat_s, config.liveness_s, self._machine_token, os.getpid()),
            Codebook(),
            bound=link.bound,
        )
        self._watchdog = Watchdog()
        self._neighbours = Neighbours(config.dispatcher_id, config.mode, self._machine_token)
        self._look_around_at = 0.0
        self._poller = Poller()
        self._sources = SourceThreads(sources, store, self._log)
        self._watch: Watch | None = None
        self._watch_fd = -1
        self._prepared = False
        self._carried: list[ev.Event] = []  # the store's answers that the machine has not heard yet
        self._report_at = 0.0
        self._lease = Lease(config.lease_s, clock())
        self._store_at = 0.0  # not before this instant, after a failure
        self._gathering = Gathering()
        self._backoff_s = STORE_RETRY_S
        self._warned_at = float("-inf")
        self._started_ms = int(time.time() * 1000)

    # ── life ─────────────────────────────────────────────────────────────────────────────────────────────────────────

    def run(self) -> int:
        """Serve until asked to stop. Returns 0, or 1 when the store is unfit."""
        self._poller.register(self._stop.fileno())
        try:
            self._link.open(self._poller)
            where = f" on {self._link.address}" if self._link.address else ""
            self._log.info("dispatcher %s, mode %s%s", self._config.dispatcher_id, self._config.mode, where)
            self._sources.start()
            self._loop()
        except (StoreRefused, Starved) as error:
            self._log.critical("%s", error)
            return 1
        finally:
            self._close()
        return 0

    def _loop(self) -> None:
        draining = False
        while self._stop.level < STOP:
            ready = self._poller.wait(self._timeout_s())
            now = self._clock()
            events: list[ev.Event] = list(self._link.receive(now, ready))
            if self._stop.level >= DRAIN and not draining:
                draining = True
                self._sources.stop()
                events.append(ev.Drained())
                self._log.info("draining: %d tasks in hand", len(self._machine.entries))
            self._stop.clear_wakeup()
            self._turn(now, events)
            if draining and self._machine.idle() and not self._turns.errand:
                return

    def _timeout_s(self) -> float:
        now = self._clock()
        if self._carried:
            return 0.0
        timers = [max(self._report_at, self._store_at), self._link.next_timer(), self._machine.next_timer()]
        if self._turns.errand:
            timers.append(max(self._store_at, self._gathering.until))
        return max(min(timer for timer in timers if timer is not None) - now, 0.0)

    def _close(self) -> None:
        self._sources.stop()
        if self._link.bound:
            self._link.close()  # its slots are dead from here on: what ran on them never will again
        try:
            if self._prepared and self._clock() >= self._store_at:
                self._give_back()
                self._store.resign(self._config.dispatcher_id)
        except (StoreUnavailable, StoreRefused) as error:
            self._log.warning("the store was not told of our leaving; our lease runs out by itself: %s", error)
        finally:
            self._link.close()
            if self._watch is not None:
                self._watch.close()
            self._poller.close()

    def _give_back(self) -> None:
        """Put back at no charge what a stopped bound link was running."""
        if not self._link.bound:
            return
        requeues = [
            Requeue(
                task_id=entry.task_id,
                attempt=entry.attempt,
                cause=Cause.GIVEN_BACK,
                charged=False,
                error="the dispatcher was stopped",
            )
            for entry in self._machine.entries.values()
            if entry.phase is Phase.RUNNING
        ]
        if requeues:
            self._store.exchange(Turn(dispatcher_id=self._config.dispatcher_id, requeues=tuple(requeues)))

    # ── one turn ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def _turn(self, now: float, events: list[ev.Event]) -> None:
        """Step and exchange until nothing is left to exchange, or the links want to be heard again."""
        outcomes: dict[Held, Outcome] = {}
        events = self._carried + events
        self._carried = []
        events += self._look_around(now)
        for event in events:
            if isinstance(event, ev.Ended):
                outcomes.update(((one.task_id, one.attempt), one) for one in event.items)
            elif isinstance(event, ev.Told):
                self._turns.errand.tell(event.said)
            elif isinstance(event, ev.Joined | ev.Left):
                self._report_at = now
                log_fleet(self._log, event)
        events += self._bell(now)
        if now >= self._report_at:
            events.append(ev.Rung())
        for _ in range(EXCHANGES_MAX):
            left_s = (1.0 - BOUND_SHARE) * self._config.lease_s
            if self._link.bound and self._machine.entries and self._may_be_inherited(now, left_s):
                events = [*self._begin_anew(now), *events]
            mute = self._may_be_inherited(now, EXCUSED_S_MAX - self._config.adoption_s)
            actions = self._machine.step(now, events)
            log_failures(self._log, actions)
            for worker_id, message in self._turns.take(actions, outcomes):
                if not (mute and isinstance(message, Pulse | Welcome)):
                    self._link.send(worker_id, message)
            outcomes = {}
            reporting = now >= self._report_at
            if now < self._store_at or not (self._turns.errand or reporting):
                return
            if self._gathering.waits(now, self._turns.errand.size) and not reporting:
                return
            events = self._exchange(now, reporting)
            now = self._clock()
        self._carried = events

    def _may_be_inherited(self, now: float, ahead_s: float) -> bool:
        """Tell whether `ahead_s` from now others may run our tasks, because the store has not heard us for so long.

        The slots of a bound link are stopped in time by ourselves. Other workers stop by themselves, or go to another
        dispatcher, once they hear no Pulse: heirs wait `adoption_s` for them beyond the lease, and a worker takes
        EXCUSED_S_MAX at the most. Where there are no others, nothing is given away, and an outage stops nobody.
        """
        return self._neighbours.any() and self._lease.ends_within(now, ahead_s)

    def _fence(self) -> None:
        """Have our own slots stopped before others may run their tasks."""
        until = self._lease.bound_until if self._neighbours.any() else None
        self._link.fence(FENCE_SHARE * self._config.lease_s, until)

    def _begin_anew(self, now: float) -> list[ev.Event]:
        """Stop what runs in our own slots, and go on as another dispatcher: the old one's claims are for its heirs."""
        self._log.warning("the store has not answered for too long: our tasks are left to other dispatchers")
        self._config = msgspec.structs.replace(self._config, dispatcher_id=DispatcherId(str(uuid.uuid4())))
        self._neighbours.rename(self._config.dispatcher_id)
        self._turns.forget()
        self._lease.renewed(now)
        return [ev.Evicted(), *self._turns.unclaimed()]

    def _exchange(self, now: float, reporting: bool) -> list[ev.Event]:
        """Ask the store for all that is due; on failure keep it for later."""
        errand = self._turns.errand
        turn = Turn(
            dispatcher_id=self._config.dispatcher_id,
            printed=tuple(errand.printed),
            progress=tuple(errand.progress),
            finishes=tuple(errand.finishes),
            requeues=tuple(errand.requeues),
            starts=tuple(errand.starts),
            adopts=tuple(errand.adopts),
            functions=tuple(errand.functions),
            claim=errand.claim,
            claim_bytes=errand.claim_bytes,
            lease_s=self._config.lease_s,
            report=self._report(now) if reporting else None,
            sweep=reporting,
            dead=self._neighbours.dead() if reporting else (),
        )
        try:
            self._prepare()
            reply = self._store.exchange(turn)
        except StoreUnavailable as error:
            return self._store_failed(error)
        self._backoff_s = STORE_RETRY_S
        if self._warned_at > float("-inf"):
            self._log.info("the store is back")
            self._warned_at = float("-inf")
        if reply.claimed:
            self._watchdog.fed()
        self._gathering.exchanged(self._clock(), turn, reply, ahead=self._machine.fleet.ahead)
        if reporting:
            self._lease.renewed(now)
            self._report_at = now + self._config.lease_s / 3
            self._fence()
            self._announce()
        return self._turns.events(turn, reply)

    def _look_around(self, now: float) -> list[ev.Event]:
        """Learn of the other dispatchers on this store: dead ones, whose claims we take over, and workers' peers."""
        if now < self._look_around_at or now < self._store_at:
            return []
        try:
            self._prepare()
            self._neighbours.update(self._store.fleet())
            self._look_around_at = now + LOOK_AROUND_S
            self._watch_consumption(now)
        except StoreUnavailable as error:
            return self._store_failed(error)
        peers = () if self._link.bound else self._neighbours.peers()
        heirs = self._neighbours.any()
        if self._turns.meet(peers, heirs=heirs):
            for worker in self._machine.fleet:
                self._link.send(worker.worker_id, Peers(peers, heirs))
        return [ev.Company(heirs)]

    def _watch_consumption(self, now: float) -> None:
        """End loudly when tasks are ready and slots are free, and still nothing is claimed. Raises Starved."""
        if self._machine.draining or not self._machine.fleet.credit:
            self._watchdog.fed()
        elif self._watchdog.starved(now, lambda: self._store.health().ready):
            raise Starved(
                "tasks are ready and slots are free, but the store gives us none: ending, to be started anew",
                hint="look at the store's log; if this comes again, report it with both logs",
            )

    def _prepare(self) -> None:
        if not self._prepared:
            self._store.prepare()
            self._prepared = True
            self._sources.release()

    def _store_failed(self, error: StoreUnavailable) -> list[ev.Event]:
        now = self._clock()
        self._store_at = now + self._backoff_s
        self._backoff_s = min(self._backoff_s * 2, STORE_RETRY_S_MAX)
        if now - self._warned_at >= REPEAT_WARNING_S:
            self._warned_at = now
            self._log.warning("the store does not answer, trying again: %s", error)
        return self._turns.unclaimed()

    def _bell(self, now: float) -> list[ev.Event]:
        """Hear the store's bell, making the watch anew if it is lost."""
        if not self._prepared or now < self._store_at:
            return []
        try:
            if self._watch is None:
                self._watch = self._store.watch("work")
                rung = True  # subscribe first, then look: nothing is missed in between
            else:
                rung = False
            for notice in self._watch.read():
                rung = rung or notice.bell or notice.lost
        except StoreUnavailable as error:
            return self._store_failed(error)
        if self._watch.fileno() != self._watch_fd:
            self._poller.unregister(self._watch_fd)
            self._watch_fd = self._watch.fileno()
            self._poller.register(self._watch_fd)
        return [ev.Rung()] if rung else []

    # ── what others see ──────────────────────────────────────────────────────────────────────────────────────────────

    def _report(self, now: float) -> FleetReport:
        wall_ms = int(time.time() * 1000)
        return FleetReport(
            dispatcher_id=self._config.dispatcher_id,
            mode=self._config.mode,
            host=platform.node(),
            pid=os.getpid(),
            started_ms=self._started_ms,
            address=advertised(self._link.address),
            machine=self._machine_token,
            workers=tuple(
                WorkerInfo(
                    worker_id=worker.worker_id,
                    host=worker.host,
                    pid=worker.pid,
                    slots=worker.slots,
                    busy=worker.load,
                    draining=worker.draining,
                    python=worker.python,
                    dill=worker.dill,
                    joined_ms=wall_ms - int((now - worker.joined_at) * 1000),
                )
                for worker in self._machine.fleet
            ),
        )

    def _announce(self) -> None:
        """Say `ready` once: the lease is stored, and tasks of a bound link would run now."""
        if self._on_ready is not None and (len(self._machine.fleet) or not self._link.bound):
            self._on_ready(self._link.address)
            self._on_ready = None
