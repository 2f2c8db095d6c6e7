"""Sleeping tasks on more and more slots: the rate should be the number of slots divided by the sleep."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from bench.e2e.system import running
from everfaas_core.cli.workload import Workload
from everfaas_core.client.http import Api

NAP_S = 0.1
NAPS_PER_SLOT = 30


@dataclass(frozen=True)
class Scaled:
    """One measurement: tasks that sleep for NAP_S each."""

    mode: str
    slots: int
    per_s: float
    ideal_per_s: float

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def measure(mode: str, slots: int) -> Scaled:
    """Run NAPS_PER_SLOT sleeps for each slot, on a fresh system; the time is that until all results are in hand."""
    count = slots * NAPS_PER_SLOT
    with running(mode, slots=slots) as url, Api(url) as api:
        work = Workload(api)
        work.warm_up(slots)
        return Scaled(mode, slots, count / work.naps_s(count, NAP_S), slots / NAP_S)
