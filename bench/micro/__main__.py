"""What each part costs, in µs per operation: `python -m bench.micro [--only store,machine] [--json FILE]`.

Medians of several repetitions in one run, taken in turns, with the least and the most; wall clock, and the CPU of each
process that has a part in it. Nothing else should run on the machine; the load is told with the figures.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
from pathlib import Path

from bench.micro.meter import table

PARTS = ("store", "machine", "wire", "slot", "api")
REPEATS = 5


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.micro", description=__doc__.split("\n")[0])
    parser.add_argument("--only", default=",".join(PARTS), help=f"some of {', '.join(PARTS)}")
    parser.add_argument("--repeats", type=int, default=REPEATS)
    parser.add_argument("--json", type=Path, help="also write all figures here")
    arguments = parser.parse_args()
    chosen = arguments.only.split(",")
    if unknown := set(chosen) - set(PARTS):
        parser.error(f"there is no part {', '.join(sorted(unknown))}: there are {', '.join(PARTS)}")
    if arguments.repeats < 1:
        parser.error("--repeats is at least 1")
    load = os.getloadavg()[0]
    print(f"{os.cpu_count()} cores, load before {load:.2f}, medians of {arguments.repeats} repetitions", flush=True)
    figures: dict[str, object] = {"cores": os.cpu_count(), "load_before": load, "repeats": arguments.repeats}
    for name in chosen:
        part = importlib.import_module(f"bench.micro.{name}")
        costs = part.measure(arguments.repeats)
        print(f"\n{table(part.TITLE, costs)}", flush=True)
        figures[name] = [cost.as_dict() for cost in costs]
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
