"""What every part of a simulated world is given."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Protocol

from msgspec import Struct

from everfaas_core.dispatch.fleet import CreditRule
from everfaas_core.model.ids import DispatcherId
from everfaas_core.model.records import FleetReport, Turn, TurnReply
from everfaas_core.ports import Strategy
from everfaas_core.sim.clock import Clock
from everfaas_core.sim.ledger import Ledger
from everfaas_core.sim.network import Network
from everfaas_core.sim.trace import Trace


class MakeStrategy(Protocol):
    """Makes the placement strategy of a dispatcher. The core knows no plugin: the command line brings one."""

    def __call__(self) -> Strategy:
        """Return a new one."""


class Timing(Struct, frozen=True, kw_only=True):
    """What a dispatcher is configured with; the defaults are those of the product."""

    heartbeat_s: float = 0.5
    liveness_s: float = 2.5
    lease_s: float = 3.0
    adoption_s: float = 5.0


class StoreLine(Protocol):
    """The way to the store, with its latency and its failures."""

    def exchange(self, who: str, turn: Turn, answer: Answered) -> None:
        """Have a turn applied; `answer` is called once, with None if no answer came."""

    def fleet(self, who: str) -> list[FleetReport] | None:
        """Return all dispatchers' reports, or None if the store does not answer."""

    def resign(self, dispatcher_id: DispatcherId) -> None:
        """Give up a lease."""


class Answered(Protocol):
    """Hears what a turn came to."""

    def __call__(self, turn: Turn, reply: TurnReply | None) -> None:
        """`reply` is None when the store did not answer."""


class Surroundings(Struct, kw_only=True):
    """One world's common parts."""

    clock: Clock
    trace: Trace
    ledger: Ledger
    network: Network
    chance: random.Random
    store: StoreLine
    rule: CreditRule
    mode: str
    timing: Timing
    make_strategy: MakeStrategy
    is_dead: Callable[[DispatcherId], bool]
