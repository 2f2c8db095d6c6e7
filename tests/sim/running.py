"""How the tests run a world."""

from __future__ import annotations

from typing import Any

import msgspec

from everfaas_core.sim.scenarios import SCENARIOS
from everfaas_core.sim.tales import TALES
from everfaas_core.sim.world import Summary, World
from everfaas_plugins.least_loaded import LeastLoaded
from everfaas_plugins.round_robin import RoundRobin


def world(name: str, seed: int, *, written: bool = False, **changes: Any) -> World:
    scenario = msgspec.structs.replace({**SCENARIOS, **TALES}[name], **changes)
    strategy = RoundRobin if scenario.rule == "granted" else LeastLoaded
    return World(scenario, seed, strategy, written=written)


def run(name: str, seed: int, **changes: Any) -> Summary:
    return world(name, seed, **changes).run()
