"""Many dispatcher kills under load: `python -m tests.chaos.dispatcher_kills --kills 200 [--mode pull]`.

The dispatcher is killed again and again, started again on its port each time, and never a worker: so each task must
end, and each must have been executed exactly once. Exits with 1 if not.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from .client import Load
from .history import History, Verdict, check, stories
from .house import JOIN_S, housed

SETTLE_S: Final = 60.0
ALIVE_S: Final = (0.05, 2.5)  # how long a dispatcher lives: from before its workers are back until all is normal
DEAD_S: Final = (0.0, 0.5)
LATE_S: Final = (1.0, 2.2)
"""Dead for as long as a worker takes to wonder: the successor is there, and has not welcomed it yet."""

Span = tuple[float, float]


@dataclass
class Tally:
    """What many kills have done."""

    kills: int
    verdict: Verdict
    twice: list[str]
    took_s: float

    @property
    def ok(self) -> bool:
        return not self.verdict.violations and not self.twice

    def __str__(self) -> str:
        lost = sum(": lost:" in one for one in self.verdict.violations)
        head = f"{self.kills} dispatcher kills in {self.took_s:.0f} s: {lost} lost, {len(self.twice)} executed twice"
        return "\n".join([head, *(f"  {one}" for one in self.twice[:50]), str(self.verdict)])


def run(
    home: Path,
    *,
    kills: int,
    mode: str = "pull",
    rate: float = 15.0,
    seed: int = 1,
    alive_s: Span = ALIVE_S,
    dead_s: Span = DEAD_S,
    mix: dict[str, int] | None = None,
) -> Tally:
    """Kill, start again, `kills` times. Raises AssertionError if a process was left behind."""
    rng = random.Random(seed)
    options: dict[str, Any] = {"modes": (mode,), "slots": 4}
    with housed(home, **options) as house:
        load = Load(house.urls, home, rate=rate, seed=seed, mix=mix)
        load.begin()
        began = time.monotonic()
        try:
            for _ in range(kills):
                time.sleep(rng.uniform(*alive_s))
                house.dispatchers[0].kill()
                time.sleep(rng.uniform(*dead_s))
                house.dispatchers[0].start()
            house.await_slots(JOIN_S)
        finally:
            took_s = time.monotonic() - began
            load.finish(SETTLE_S)
    history = History.read(home)
    return Tally(kills, check(history), executed_twice(history), took_s)


def executed_twice(history: History) -> list[str]:
    """Return each accepted task that was executed more than once, with when and where."""
    found = []
    for number, story in sorted(stories(history).items()):
        if len(story.begun) > 1:
            runs = ", ".join(
                f"{run['do']} {run['execution'][:6]} in {run['pid']} at {run['at']:.3f}" for run in story.runs
            )
            found.append(f"task {number} ({story.ids[:1]}): {runs}")
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Run, print, judge."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.dispatcher_kills", description=__doc__)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--mode", default="pull", choices=("pull", "push"))
    parser.add_argument("--rate", type=float, default=15.0, help="tasks a second")
    parser.add_argument("--late", action="store_true", help="let it be dead for longer: 1 to 2.2 s")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--home", type=Path, default=None, help="folder for logs and histories; kept")
    options = parser.parse_args(arguments)
    home = options.home or Path(tempfile.mkdtemp(prefix="everfaas-kills-"))
    print(f"logs and histories: {home}", flush=True)
    dead_s = LATE_S if options.late else DEAD_S
    tally = run(home, kills=options.kills, mode=options.mode, rate=options.rate, seed=options.seed, dead_s=dead_s)
    print(tally)
    return 0 if tally.ok else 1


if __name__ == "__main__":
    sys.exit(main())
