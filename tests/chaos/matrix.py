"""The kill matrix: `python -m tests.chaos.matrix [--kills 10] [--rows busy-slot,worker,…]` prints it as a table."""

from __future__ import annotations

import argparse
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from .history import Verdict
from .house import housed
from .leavers import kill_client, kill_up
from .rows import ROWS, SINGLE, Kill
from .scene import staged

SPECIAL: Final = {
    "client": ("the client", None),
    "up": ("`everfaas up` itself", 2.0),
}
NAMES: Final = (*(row.name for row in ROWS), *SPECIAL)


@dataclass
class Measured:
    """A row of the table."""

    name: str
    title: str
    bound_s: float | None
    since: str
    kills: list[Kill]
    verdict: Verdict | None = None

    @property
    def seconds(self) -> list[float]:
        return [kill.measured_s for kill in self.kills if kill.measured_s is not None]

    @property
    def problems(self) -> list[str]:
        found = [f"kill {at}: {one}" for at, kill in enumerate(self.kills, 1) for one in kill.problems]
        return found + (self.verdict.violations if self.verdict else [])

    @property
    def within(self) -> bool:
        return self.bound_s is None or max(self.seconds, default=0.0) < self.bound_s

    def line(self) -> str:
        """Return the row as Markdown."""
        bound = "–" if self.bound_s is None else f"< {self.bound_s:g} s"
        worst = f"{max(self.seconds):.3f} s" if self.seconds else "–"
        median = f"{statistics.median(self.seconds):.3f} s" if self.seconds else "–"
        said = "ok" if self.within and not self.problems else "MISS"
        return f"| {self.title} | {bound} | {worst} | {median} | {self.since} | {len(self.kills)} | {said} |"


HEAD: Final = "| what dies | bound | max | median | from | kills | |\n|---|---|---|---|---|---|---|"


def measure(name: str, kills: int, home: Path, seed: int = 1, mix: dict[str, int] | None = None) -> Measured:
    """Do one row, under its own mix of tasks or another one."""
    rng = random.Random(f"{seed} {name}")
    if name == "client":
        return _client(kills, home, rng)
    if name == "up":
        found = [
            kill_up(home / f"up-{at}", rng.uniform(0.5, 2.0), ("pull", "local", "push")[at % 3]) for at in range(kills)
        ]
        return Measured(name, *SPECIAL[name], "the kill", found)
    row = next(row for row in ROWS if row.name == name)
    measured = Measured(name, row.title, row.bound_s, row.since, [])
    with staged(home / name, seed=seed, mix=mix or row.mix, **row.house) as (scene, verdicts):
        while len(measured.kills) < kills:
            kill = row.once(scene, rng)
            if kill.measured_s is not None or kill.problems:
                measured.kills.append(kill)
            time.sleep(rng.uniform(0.2, 1.0))
    measured.verdict = verdicts[0]
    return measured


def _client(kills: int, home: Path, rng: random.Random) -> Measured:
    with housed(home / "client", **SINGLE) as house:
        found = [kill_client(house, home / "client" / f"one-{at}", rng.uniform(1.0, 2.0)) for at in range(kills)]
    return Measured("client", *SPECIAL["client"], "the kill", found)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table. Returns 1 if a row missed its bound or broke a promise."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.matrix", description=__doc__)
    parser.add_argument("--kills", type=int, default=10, help="of each kind")
    parser.add_argument("--rows", default=",".join(NAMES), help="which, separated by commas: " + ", ".join(NAMES))
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--home", type=Path, default=None, help="folder for logs and histories; kept")
    options = parser.parse_args(arguments)
    names = options.rows.split(",")
    if unknown := [name for name in names if name not in NAMES]:
        parser.error(f"no such rows: {', '.join(unknown)}")
    home = options.home or Path(tempfile.mkdtemp(prefix="everfaas-matrix-"))
    print(f"logs and histories: {home}", file=sys.stderr)
    table = list(_measured(names, options.kills, home, options.seed))
    print(HEAD)
    for row in table:
        print(row.line())
    for row in table:
        for problem in row.problems[:20]:
            print(f"- {row.name}: {problem}")
    return 0 if all(row.within and not row.problems for row in table) else 1


def _measured(names: Sequence[str], kills: int, home: Path, seed: int) -> Iterator[Measured]:
    for name in names:
        began = time.monotonic()
        row = measure(name, kills, home, seed)
        print(row.line(), f"({time.monotonic() - began:.0f} s)", file=sys.stderr, flush=True)
        for at, kill in enumerate(row.kills, 1):
            seconds = "–" if kill.measured_s is None else f"{kill.measured_s:.3f} s"
            print(f"    {at}: {seconds} {'; '.join(kill.notes + kill.problems)}", file=sys.stderr)
        if row.verdict is not None:
            print(f"    {row.verdict}", file=sys.stderr, flush=True)
        yield row


if __name__ == "__main__":
    sys.exit(main())
