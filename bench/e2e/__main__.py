"""The table of goals (PERFORMANCE.md), ours beside it: `python -m bench.e2e [--rounds 3] [--modes local,pull,push]`.

In each round everything is measured once, one after the other: ProcessPoolExecutor as the floor, then `everfaas up` in
each mode, each time on an empty data directory; so what disturbs the machine disturbs all. The client is this process.
Prints medians with the least and the most of the rounds, and whether the median meets the goal. A round takes three
minutes, half of which is looking at idle systems.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
from collections import defaultdict
from pathlib import Path
from typing import Any

from bench.e2e import ours, pool, startup
from bench.e2e.table import COMMAND, POOL, table, with_ratios
from bench.e2e.work import Sizes

MODES = ("local", "pull", "push")


def measure_rounds(count: int, modes: list[str], sizes: Sizes) -> dict[str, list[dict[str, float]]]:
    """Measure all, in turns, and tell how it goes."""
    rounds: dict[str, list[dict[str, float]]] = defaultdict(list)
    for number in range(count):
        rounds[COMMAND].append(startup.measure())
        rounds[POOL].append(pool.measure(sizes))
        print(f"round {number + 1} {POOL}: {_brief(rounds[POOL][-1])}", flush=True)
        for mode in modes:
            rounds[mode].append(ours.measure(mode, sizes))
            print(f"round {number + 1} {mode}: {_brief(rounds[mode][-1])}", flush=True)
    return with_ratios(rounds, modes)


def machine() -> dict[str, Any]:
    """Return what the figures were taken on."""
    return {"cores": os.cpu_count(), "load_before": os.getloadavg()[0], "python": platform.python_version()}


def _brief(figures: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:,.4g}" for name, value in figures.items())


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.e2e", description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--modes", default=",".join(MODES))
    parser.add_argument("--tasks", type=int, default=Sizes.tasks, help="no-ops of a batch measurement")
    parser.add_argument("--calls", type=int, default=Sizes.calls, help="single calls")
    parser.add_argument("--idle", type=float, default=Sizes.idle_s, help="seconds for which the idle system is watched")
    parser.add_argument("--json", type=Path, help="also write all figures here")
    arguments = parser.parse_args()
    modes = arguments.modes.split(",")
    if arguments.rounds < 1 or set(modes) - set(MODES):
        parser.error(f"--rounds is at least 1, and --modes are some of {', '.join(MODES)}")
    on = machine()
    print(f"{on['cores']} cores, load before {on['load_before']:.2f}, Python {on['python']}", flush=True)
    sizes = Sizes(tasks=arguments.tasks, calls=arguments.calls, idle_s=arguments.idle)
    rounds = measure_rounds(arguments.rounds, modes, sizes)
    print(f"\nmedians of {arguments.rounds} rounds (least – most)\n\n{table(rounds, modes)}")
    if arguments.json:
        arguments.json.write_text(json.dumps({"machine": on, "rounds": rounds}, indent=1) + "\n")


if __name__ == "__main__":
    main()
