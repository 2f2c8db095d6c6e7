"""A simulated worker: the production session and slots' machine, turned as `worker.agent` turns them.

A `SimWorker` is the machine of that name in the fleet; each time it is started it gets a new `Life`, as a process does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

from everfaas_core.model.ids import WorkerId
from everfaas_core.sim.clock import Alarm
from everfaas_core.sim.ledger import Grants
from everfaas_core.sim.network import Connection
from everfaas_core.sim.slots import SimHost
from everfaas_core.sim.surroundings import Surroundings
from everfaas_core.wire import messages as m
from everfaas_core.worker import directives as do
from everfaas_core.worker import session as s
from everfaas_core.worker.agent import ACK_S_MAX

RECONNECT_S: Final = 0.1
"""The uplink's wait before it connects again after its connection broke."""


class Life:
    """One process of a worker."""

    def __init__(self, owner: SimWorker, serial: int) -> None:
        self.owner = owner
        self.around = owner.around
        self._clock = self.around.clock
        self._serial = serial
        self.host = SimHost(
            owner.name, owner.slots, self._clock, self.local, self.around.ledger, self.around.trace,
            self.around.chance, self.wake,
        )  # fmt: skip
        identity = s.Identity(
            mode=self.around.mode, host=owner.name, pid=serial, slots=owner.slots, python="3.11.0", dill="0.4.1"
        )
        self.address = owner.home
        worker_id = WorkerId(f"{owner.name}-{serial}")
        self.session = s.Session(identity, self.host, worker_id, url=owner.home, gone=self._gone)
        self._grants = Grants(owner.name, owner.slots, self.around.rule)
        self._connection: Connection | None = None
        self._connected = False
        self._inbox: list[tuple[Connection, m.ToWorker]] = []
        self._alarm = Alarm(self._clock, self.wake)
        self._awake = True
        self._turned_at = self.local()
        self._draining = False
        self._drained_at: float | None = None
        self.over = False

    def local(self) -> float:
        """Return this machine's monotonic clock: it began earlier, and goes a little fast or slow."""
        return 1000.0 + self._clock.now * self.owner.rate

    # ── the uplink ───────────────────────────────────────────────────────────────────────────────────────────────────

    @property
    def connection(self) -> Connection | None:
        """The connection that is made, if one is."""
        return self._connection if self._connected else None

    def _connect(self) -> None:
        if not self.over:
            self._connected = False
            self._connection = self.around.network.connect(self.owner, self.address)

    def _gone(self, welcome: m.Welcome, url: str) -> bool:
        """Tell what the agent would of a dispatcher on another machine: whether connections are refused."""
        return self.around.network.refused(self.owner.name, url)

    def _reconnect(self, address: str | None) -> None:
        if address is not None:
            self.address = address
        if self._connection is not None:
            self.around.network.close(self._connection)
        self._connect()

    def on_connected(self, connection: Connection) -> None:
        """The uplink itself asks for a Hello each time its connection was made."""
        if connection is self._connection:
            self._connected = True
            self._inbox.append((connection, m.Stranger()))
            self.wake()

    def on_message(self, connection: Connection, message: m.ToWorker) -> None:
        """Keep what came until the next turn."""
        self._inbox.append((connection, message))
        self.wake()

    def on_broken(self, connection: Connection) -> None:
        """Connect again."""
        if connection is self._connection:
            self._connected = False
            self._clock.after(RECONNECT_S, self._again, connection)

    def _again(self, connection: Connection) -> None:
        if connection is self._connection:
            self._connect()

    def _send(self, message: m.ToDispatcher) -> None:
        match message:
            case m.Hello():
                self._grants.hello(message.epoch, message.granted, message.held)
            case m.Beat(granted, window):
                self._grants.granted(granted, window)
            case m.Outcomes(items, granted, window):
                self._grants.granted(granted, window)
                self._grants.reported([(one.task_id, one.attempt) for one in items])
        if self._connection is not None and self._connected:
            self.around.network.send_up(self._connection, message)

    # ── turns ────────────────────────────────────────────────────────────────────────────────────────────────────────

    def start(self) -> None:
        """Begin to connect, and start the slots."""
        self._connect()
        self.host.start()
        self.wake()

    def wake(self) -> None:
        """Take a turn now, unless the process is stopped or over."""
        if self._awake and not self.over:
            self._turn()

    def _turn(self) -> None:
        self._awake = False  # what a turn itself causes is seen by this turn
        now = self.local()
        gap_s, self._turned_at = now - self._turned_at, now
        if gap_s > 1.0:
            self._carry_out(self.session.overslept(now, gap_s))
        inbox, self._inbox = self._inbox, []
        for connection, message in inbox:
            if connection is self._connection:
                if isinstance(message, m.Tasks) and self.session.joined:
                    self._grants.sent(message.epoch, [(one.task_id, one.attempt) for one in message.items])
                self._carry_out(self.session.heard(now, message))
        self.session.ended(self.host.turn())
        self._carry_out(self.session.tick(now))
        if self._draining and not self.over:
            self._leave_when_done(now)
        self._awake = not self.over
        if self._awake:
            self._set_alarm()

    def _set_alarm(self) -> None:
        due = self.session.next_timer()
        if (slots_due := self.host.next_timer()) is not None and slots_due < due:
            due = slots_due
        if self._drained_at is not None:
            due = min(due, self._drained_at + ACK_S_MAX)
        # A hair later than due, so that rounding never makes a turn too early to do anything.
        self._alarm.set((due - 1000.0) / self.owner.rate + 1e-6)

    def _carry_out(self, directives: Iterable[do.Directive]) -> None:
        for directive in directives:
            match directive:
                case do.Say(message):
                    self._send(message)
                case do.Accept(tasks):
                    self._carry_out(self.session.lacks(sorted(self.host.offer(tasks))))
                case do.StopAttempts(items):
                    if items:
                        self.host.kill(items)
                case do.Reconnect(url):
                    self._reconnect(url or None)
                case do.Drain():
                    self.drain()
                case do.Fence(seconds, until):
                    self.host.fence(seconds, until)
                case do.Leave(reason):
                    self._end(f"gave up: {reason}")
                case do.Note(text):
                    self.around.trace.tell(self._clock.now, self.owner.name, text)

    def drain(self) -> None:
        """Begin to leave, as after a SIGTERM."""
        if not self._draining:
            self._draining = True
            self._carry_out(self.session.drain())
            self.host.drain()
            self.wake()

    def _leave_when_done(self, now: float) -> None:
        if not self.host.idle():
            self._drained_at = None
            return
        if self._drained_at is None:
            self._drained_at = now
        if not self.session.retained:
            self._leave("left")
        elif now >= self._drained_at + ACK_S_MAX:
            self._leave(f"left with {len(self.session.retained)} outcomes not acknowledged")

    def _leave(self, how: str) -> None:
        returned = self.session.returned(self.host.unbegun())
        self.host.close()
        self._send(m.Bye(returned))
        self._end(how)

    def _end(self, how: str) -> None:
        self.over = True
        self.host.close()
        self.around.trace.tell(self._clock.now, self.owner.name, how)
        self.owner.on_over()

    # ── faults ───────────────────────────────────────────────────────────────────────────────────────────────────────

    def die(self) -> None:
        """SIGKILL: the slots die with it, and its kernel closes the connection."""
        self.over = True
        self._awake = False
        self.host.close()
        if self._connection is not None:
            self.around.network.close(self._connection)

    def stop(self) -> None:
        """SIGSTOP."""
        self._awake = False
        self.host.stopped(self.owner.rate)

    def go_on(self) -> None:
        """SIGCONT."""
        if not self.over:
            self._awake = True
            self.wake()


class SimWorker:
    """A worker of the fleet, through all its lives."""

    def __init__(
        self, name: str, slots: int, address: str, rate: float, around: Surroundings,
        on_over: Callable[[SimWorker], None],
    ) -> None:  # fmt: skip
        self.name = name
        self.slots = slots
        self.home = address
        self.rate = rate
        self.around = around
        self.stopped = False
        self.life: Life | None = None
        self._on_over = on_over
        self._lives = 0

    @property
    def address(self) -> str:
        """Where it connects to: at first where its operator said."""
        return self.home if self.life is None else self.life.address

    @property
    def up(self) -> bool:
        """Whether its process lives and is not stopped."""
        return self.life is not None and not self.stopped

    def start(self) -> None:
        """Start a process, unless one lives."""
        if self.life is None:
            self._lives += 1
            self.life = Life(self, self._lives)
            self.life.start()

    def on_over(self) -> None:
        """Take note that the process has ended by itself."""
        life, self.life = self.life, None
        if life is not None:
            connection = life.connection
            if connection is not None:
                self.around.network.close(connection)
                connection.late = True  # its Bye is given the time to leave
        self._on_over(self)

    def die(self) -> None:
        """Kill the process."""
        life, self.life, self.stopped = self.life, None, False
        if life is not None:
            life.die()

    def stop(self) -> None:
        """Stop the process."""
        if self.life is not None and not self.stopped:
            self.stopped = True
            self.life.stop()

    def go_on(self) -> None:
        """Let a stopped process go on."""
        if self.stopped:
            self.stopped = False
            if self.life is not None:
                self.life.go_on()

    # ── network.WorkerEnd ────────────────────────────────────────────────────────────────────────────────────────────

    def on_connected(self, connection: Connection) -> None:
        """Hand on."""
        if self.life is not None:
            self.life.on_connected(connection)

    def on_message(self, connection: Connection, message: m.ToWorker) -> None:
        """Hand on."""
        if self.life is not None:
            self.life.on_message(connection, message)

    def on_broken(self, connection: Connection) -> None:
        """Hand on."""
        if self.life is not None:
            self.life.on_broken(connection)
