"""The wire between workers and dispatchers: connections that keep order, delay, break, hold what a partition holds.

It behaves like TCP under ZeroMQ: within a connection nothing is reordered or lost; when it breaks, what was on its way
is lost, or, if a worker's kernel had it already, arrives all the same, perhaps after what a newer connection brought.
"""

from __future__ import annotations

import random
from typing import Final, Protocol

from msgspec import Struct

from everfaas_core.sim.clock import Clock
from everfaas_core.sim.trace import Trace
from everfaas_core.wire.messages import Outcomes, ToDispatcher, ToWorker

LATE_SHARE: Final = 0.5
"""Of the connections that a worker gives up, those whose messages on the way arrive all the same."""

ECHO_S_MAX: Final = 2.0
"""How much later a duplicated report is heard again."""


class Weather(Struct, frozen=True, kw_only=True):
    """How a network behaves. A message takes `delay_s` × (0.5 … 1.5), and a share of them a spike more."""

    delay_s: float = 0.0005
    spike_share: float = 0.0
    spike_s: float = 0.0
    echo_share: float = 0.0  # of the reports, those that are heard twice


class WorkerEnd(Protocol):
    """The side that connects."""

    name: str

    def on_connected(self, connection: Connection) -> None:
        """The connection is made."""

    def on_message(self, connection: Connection, message: ToWorker) -> None:
        """A message has come in."""

    def on_broken(self, connection: Connection) -> None:
        """The connection is gone."""


class DispatcherEnd(Protocol):
    """The side that listens."""

    def on_message(self, connection: Connection, message: ToDispatcher) -> None:
        """A message has come in."""


class Connection:
    """One connection. `up` and `down` are when the last message of each direction arrives."""

    __slots__ = ("address", "alive", "down", "gone_at", "late", "number", "server", "up", "worker")

    def __init__(self, number: int, worker: WorkerEnd, address: str) -> None:
        self.number = number
        self.worker = worker
        self.address = address
        self.server: DispatcherEnd | None = None  # None: not made yet
        self.up = self.down = 0.0
        self.alive = True  # as the worker sees it
        self.late = False  # given up by the worker, and what was on its way up arrives all the same
        self.gone_at = float("inf")  # when the dispatcher's side finds it gone


class Network:
    """All connections, and who listens where."""

    def __init__(self, clock: Clock, trace: Trace, chance: random.Random, weather: Weather) -> None:
        self.weather = weather
        self._clock = clock
        self._trace = trace
        self._chance = chance
        self._listening: dict[str, DispatcherEnd] = {}
        self._bound: set[str] = set()  # addresses at which a process is, stopped or not
        self._knocking: dict[str, list[Connection]] = {}  # wait for somebody to listen there
        self._open: dict[str, dict[int, Connection]] = {}  # address → made, by number
        self._cuts: dict[tuple[str, str], float] = {}  # (worker, address) → until
        self._made = 0
        self.echoes = 0

    def _delay_s(self) -> float:
        weather = self.weather
        delay_s = weather.delay_s * (0.5 + self._chance.random())
        if weather.spike_share and self._chance.random() < weather.spike_share:
            delay_s += weather.spike_s * self._chance.random()
        return delay_s

    # ── who can reach whom ───────────────────────────────────────────────────────────────────────────────────────────

    def listen(self, address: str, server: DispatcherEnd) -> None:
        """Somebody serves an address from now on; who has knocked there is let in."""
        self._listening[address] = server
        self._bound.add(address)
        for connection in self._knocking.pop(address, ()):
            self._clock.after(self._delay_s(), self._make, connection)

    def refused(self, worker: str, address: str) -> bool:
        """Tell whether a worker would find that nobody is there: a refusal comes back, silence does not."""
        return address not in self._bound and self._cuts.get((worker, address), 0.0) <= self._clock.now

    def silence(self, address: str) -> None:
        """Nobody accepts connections there for now (stopped, not dead)."""
        self._listening.pop(address, None)

    def die(self, address: str) -> None:
        """Who served an address is dead: all its connections break."""
        self._bound.discard(address)
        self._listening.pop(address, None)
        for connection in list(self._open.pop(address, {}).values()):
            connection.server = None
            arrives = max(connection.down, self._free_at(connection) + self._delay_s())
            self._clock.at(arrives, self._broken, connection)

    def cut(self, worker: str, address: str, until: float) -> None:
        """Let nothing pass between the two until then; it is not lost, but held."""
        self._cuts[worker, address] = max(until, self._cuts.get((worker, address), 0.0))

    def heal(self) -> None:
        """End all partitions, for what is sent from now on."""
        self._cuts.clear()

    def _free_at(self, connection: Connection) -> float:
        until = self._cuts.get((connection.worker.name, connection.address), 0.0) if self._cuts else 0.0
        return max(until, self._clock.now)

    # ── connections ──────────────────────────────────────────────────────────────────────────────────────────────────

    def connect(self, worker: WorkerEnd, address: str) -> Connection:
        """Begin to connect; `on_connected` follows when it is made, however long that takes."""
        self._made += 1
        connection = Connection(self._made, worker, address)
        self._clock.after(2 * self._delay_s(), self._make, connection)
        return connection

    def _make(self, connection: Connection) -> None:
        if not connection.alive:
            return
        free_at = self._free_at(connection)
        if free_at > self._clock.now:
            self._clock.at(free_at + self._delay_s(), self._make, connection)
        elif (server := self._listening.get(connection.address)) is None:
            self._knocking.setdefault(connection.address, []).append(connection)
        else:
            connection.server = server
            self._open.setdefault(connection.address, {})[connection.number] = connection
            connection.worker.on_connected(connection)

    def close(self, connection: Connection) -> None:
        """The worker gives a connection up (or is dead)."""
        if not connection.alive:
            return
        connection.alive = False
        connection.late = self._chance.random() < LATE_SHARE
        connection.gone_at = max(connection.up, self._free_at(connection) + self._delay_s())
        self._open.get(connection.address, {}).pop(connection.number, None)

    def snap(self, connection: Connection) -> None:
        """A connection breaks by itself: both sides find out, and nothing on its way arrives."""
        if connection.alive and connection.server is not None:
            connection.server = None
            connection.gone_at = self._clock.now
            self._open.get(connection.address, {}).pop(connection.number, None)
            self._clock.after(self._delay_s(), self._broken, connection)

    def _broken(self, connection: Connection) -> None:
        if connection.alive:
            connection.alive = False
            connection.worker.on_broken(connection)

    # ── messages ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def send_up(self, connection: Connection, message: ToDispatcher) -> None:
        """Send from a worker to its dispatcher."""
        if connection.server is None:
            return
        connection.up = max(connection.up, self._free_at(connection) + self._delay_s())
        self._clock.at(connection.up, self._arrive_up, connection, connection.server, message)
        share = self.weather.echo_share
        if share and isinstance(message, Outcomes) and self._chance.random() < share:
            self.echoes += 1
            later = connection.up + ECHO_S_MAX * self._chance.random()
            self._clock.at(later, self._arrive_up, connection, connection.server, message)

    def _arrive_up(self, connection: Connection, server: DispatcherEnd, message: ToDispatcher) -> None:
        if connection.server is server and (connection.alive or connection.late):
            server.on_message(connection, message)

    def can_send_down(self, connection: Connection) -> bool:
        """Tell whether the dispatcher's side still believes in a connection."""
        return connection.server is not None and self._clock.now < connection.gone_at

    def send_down(self, connection: Connection, message: ToWorker) -> None:
        """Send from a dispatcher to a worker; it may be gone by then."""
        connection.down = max(connection.down, self._free_at(connection) + self._delay_s())
        self._clock.at(connection.down, self._arrive_down, connection, message)

    def _arrive_down(self, connection: Connection, message: ToWorker) -> None:
        if connection.alive:
            connection.worker.on_message(connection, message)
