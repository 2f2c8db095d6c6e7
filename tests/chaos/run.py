"""A randomized run: `python -m tests.chaos.run --minutes 10 --seed 1 [--tasks 20000]`.

The whole system under at least one fault a second; then all is healed, and the checker judges what clients and
functions saw. Prints the seed, what was done, and the verdict. Exits with 1 on any violation.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from .client import MIX, Load
from .history import History, Verdict, check
from .house import housed
from .monkey import REPERTOIRE, Monkey

HOUSE: Final[dict[str, Any]] = {"modes": ("pull", "pull"), "apis": 2, "workers": 2, "slots": 4, "proxies": True}
MIX_CRASHING: Final = MIX | {"crash-once": 3}
SETTLE_S: Final = 120.0


@dataclass
class Outcome:
    """What a run has shown."""

    verdict: Verdict
    monkey: Monkey
    took_s: float
    logs: str

    def __str__(self) -> str:
        faults = ", ".join(f"{name} {count}" for name, count in sorted(self.monkey.counts.items()))
        total = self.monkey.counts.total()
        lines = [f"{total} faults in {self.took_s:.0f} s: {faults}"]
        if self.monkey.ended:
            lines.append(f"ended by themselves: {'; '.join(self.monkey.ended)}")
        return "\n".join([*lines, str(self.verdict)])


def run(
    home: Path,
    *,
    seconds: float,
    seed: int,
    tasks: int,
    house: dict[str, Any] | None = None,
    repertoire: dict[str, float] | None = None,
) -> Outcome:
    """Run once. Raises AssertionError if a process was left behind."""
    with housed(home, **(house or HOUSE)) as system:
        load = Load(system.urls, home, rate=tasks / seconds, seed=seed, total=tasks, mix=MIX_CRASHING)
        load.begin()
        monkey = Monkey(system, seed, repertoire)
        began = time.monotonic()
        try:
            monkey.run(seconds)
            while load.submitting and time.monotonic() < began + seconds + SETTLE_S:
                time.sleep(0.1)  # what the faults have kept it from submitting in time
        finally:
            took_s = time.monotonic() - began
            with contextlib.suppress(Exception):
                system.heal()
            load.finish(SETTLE_S)
        logs = system.logs()
    return Outcome(check(History.read(home)), monkey, took_s, logs)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run, print, judge."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.run", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=None, help="drawn from the clock unless given")
    parser.add_argument("--tasks", type=int, default=None, help="2,000 for each minute unless given")
    parser.add_argument("--modes", default="pull,pull", help="of the dispatchers, separated by commas")
    parser.add_argument("--faults", default=",".join(REPERTOIRE), help="which, separated by commas; all unless given")
    parser.add_argument("--home", type=Path, default=None, help="folder for logs and histories; kept")
    options = parser.parse_args(arguments)
    seed = int(time.time()) if options.seed is None else options.seed
    tasks = round(options.minutes * 2000) if options.tasks is None else options.tasks
    home = options.home or Path(tempfile.mkdtemp(prefix="everfaas-chaos-"))
    print(f"seed {seed}; logs and histories: {home}", flush=True)
    house = HOUSE | {"modes": tuple(options.modes.split(","))}
    repertoire = {name: REPERTOIRE[name] for name in options.faults.split(",")}
    seconds = options.minutes * 60
    outcome = run(home, seconds=seconds, seed=seed, tasks=tasks, house=house, repertoire=repertoire)
    print(outcome)
    return 1 if outcome.verdict.violations else 0


if __name__ == "__main__":
    sys.exit(main())
