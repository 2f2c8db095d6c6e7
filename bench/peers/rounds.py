"""The order of things: rounds of all systems in turn (A B C A B C …), and in each the same work in the same order."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from bench.peers.catalog import System
from bench.peers.environments import Environment
from bench.peers.session import Session, StepFailed

WORKS = ("first", "idle", "noop", "roundtrip", "sleeps", "cpu", "echo")
START_WITHIN_S = 90.0
STEP_WITHIN_S = 120.0
WARM_NOOPS = 200
SLEEP_S = 0.5
SPIN_S = 0.005
ECHO_BYTES = 1024**2

Record = dict[str, Any]
"""One measurement, or one failure (`error`) to make it: what JSON holds."""


@dataclass(frozen=True)
class Sizes:
    """How much of each work. The no-ops are as many as a system does in `noop_s`, within limits."""

    noop_s: float = 4.0
    noop_min: int = 1_000
    noop_max: int = 20_000
    roundtrips: int = 300
    roundtrip_limit_s: float = 30.0
    sleeps: int = 20
    spins: int = 1_000
    echoes: int = 200
    settle_s: float = 3.0
    rest_s: float = 10.0

    def scaled(self, by: float) -> Sizes:
        """Return a reduced form, for a look whether all works. Its figures mean little."""
        return replace(
            self,
            noop_s=self.noop_s * by,
            noop_min=max(100, int(self.noop_min * by)),
            noop_max=max(100, int(self.noop_max * by)),
            roundtrips=max(20, int(self.roundtrips * by)),
            roundtrip_limit_s=self.roundtrip_limit_s * by,
            sleeps=max(4, int(self.sleeps * by)),
            spins=max(40, int(self.spins * by)),
            echoes=max(4, int(self.echoes * by)),
            settle_s=self.settle_s * by,
            rest_s=max(1.0, self.rest_s * by),
        )

    def noops(self, rate_per_s: float) -> int:
        return min(self.noop_max, max(self.noop_min, int(rate_per_s * self.noop_s)))


def interleaved(systems: list[System], rounds: int) -> list[tuple[int, System]]:
    """Return what is measured when: every system once before any system twice."""
    return [(number, system) for number in range(1, rounds + 1) for system in systems]


def measure(
    system: System, environment: Environment, binary: str, sizes: Sizes, works: list[str], say: Callable[[str], None]
) -> list[Record]:
    """Run one system once. A step that fails is a record of its own; one that hangs costs its session, not the rest."""
    records: list[Record] = []
    pending = [work for work in WORKS if work in works]
    if environment.reason:
        return [{"work": work, "error": f"not installed; pip says: {environment.reason}"} for work in pending]
    while pending:
        with Session(system, environment, binary) as session:
            try:
                first = session.ask({"do": "start"}, START_WITHIN_S)
                rate = WARM_NOOPS / session.ask({"do": "noop", "count": WARM_NOOPS}, STEP_WITHIN_S)["seconds"]
            except StepFailed as failure:
                return records + [{"work": work, "error": str(failure)} for work in pending]
            while pending:
                work = pending.pop(0)
                try:
                    record = first if work == "first" else _one(session, work, sizes, rate)
                    records.append({"work": work, **record})
                except StepFailed as failure:
                    say(f"  {work}: {failure}")
                    records.append({"work": work, "error": str(failure)})
                    if failure.over:
                        break
    return records


def _one(session: Session, work: str, sizes: Sizes, rate_per_s: float) -> Record:
    if work == "idle":
        return dict(session.rest(sizes.settle_s, sizes.rest_s))
    steps: dict[str, Record] = {
        "noop": {"count": sizes.noops(rate_per_s)},
        "roundtrip": {"count": sizes.roundtrips, "limit_s": sizes.roundtrip_limit_s},
        "sleeps": {"count": sizes.sleeps, "wait_s": SLEEP_S},
        "cpu": {"count": sizes.spins, "cpu_s": SPIN_S},
        "echo": {"count": sizes.echoes, "size": ECHO_BYTES},
    }
    return {"count": steps[work]["count"]} | session.ask({"do": work} | steps[work], STEP_WITHIN_S)
