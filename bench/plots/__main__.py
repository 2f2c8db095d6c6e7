"""Measures and plots: `python -m bench.plots --out docs/performance/ [--only backlog,workers] [--modes pull]`.

Throughput against backlog (tasks queued while no worker runs, then drained by 4 slots; the dispatcher's memory beside
it), and against slots (tasks that sleep). Writes backlog.svg and workers.svg, and every figure to backlog.json and
workers.json; `--redraw` draws these again. A million tasks take some minutes and 1.5 GB of memory.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from bench.plots import backlog, draw, workers

BACKLOGS = "1000,10000,100000,1000000"
SLOTS = "1,2,4,8,16"
BACKLOG_MODES = ("pull", "push")  # in local mode there is no system without slots
DRAWN = {"backlog": (draw.backlog, draw.BACKLOG), "workers": (draw.workers, draw.WORKERS)}

Rows = list[dict[str, Any]]


def measure_backlogs(modes: Sequence[str], sizes: Sequence[int]) -> Rows:
    """Measure all, mode by mode for each size."""
    rows: Rows = []
    for size in sizes:
        for mode in modes:
            if mode not in BACKLOG_MODES:
                continue
            for one in backlog.measure(mode, size):
                rows.append(one.as_dict())
                print(
                    f"{mode}, {size:,} queued: {one.drained_per_s:,.0f}/s, dispatcher {one.dispatcher_start_mb:.1f} MB "
                    f"at first, {one.dispatcher_queued_mb:.1f} queued, {one.dispatcher_peak_mb:.1f} at most",
                    flush=True,
                )
    return rows


def measure_workers(modes: Sequence[str], slots: Sequence[int]) -> Rows:
    """Measure all, mode by mode for each number of slots."""
    rows: Rows = []
    for count in slots:
        for mode in modes:
            one = workers.measure(mode, count)
            rows.append(one.as_dict())
            share = 100 * one.per_s / one.ideal_per_s
            print(f"{mode}, {count} slots: {one.per_s:.1f} sleeps/s, {share:.1f} % of the ideal", flush=True)
    return rows


def numbers(text: str) -> list[int]:
    """Read "1000,10000"."""
    return [int(word) for word in text.split(",")]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.plots", description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("docs/performance"))
    parser.add_argument("--only", default=",".join(DRAWN), help="some of backlog, workers")
    parser.add_argument("--modes", default="local,pull,push")
    parser.add_argument("--backlogs", type=numbers, default=numbers(BACKLOGS), help=f"sizes ({BACKLOGS})")
    parser.add_argument("--slots", type=numbers, default=numbers(SLOTS), help=f"numbers of slots ({SLOTS})")
    parser.add_argument("--redraw", action="store_true", help="draw the figures that are there, measure nothing")
    arguments = parser.parse_args()
    chosen, modes = arguments.only.split(","), arguments.modes.split(",")
    if set(chosen) - set(DRAWN) or set(modes) - set(draw.COLOURS):
        parser.error("--only takes backlog and workers, --modes takes local, pull and push")
    if chosen == ["backlog"] and not set(modes) & set(BACKLOG_MODES):
        parser.error("in mode local there is no system without slots: --modes pull,push")
    arguments.out.mkdir(parents=True, exist_ok=True)
    measure: dict[str, Callable[[], Rows]] = {
        "backlog": lambda: measure_backlogs(modes, arguments.backlogs),
        "workers": lambda: measure_workers(modes, arguments.slots),
    }
    for name in chosen:
        kept = arguments.out / f"{name}.json"
        if not arguments.redraw:
            on = {"cores": os.cpu_count(), "load_before": os.getloadavg()[0], "at": time.strftime("%Y-%m-%d")}
            kept.write_text(json.dumps({"machine": on, "rows": measure[name]()}, indent=1) + "\n")
        function, file = DRAWN[name]
        rows = json.loads(kept.read_text())["rows"]
        if rows:
            function(rows, arguments.out / file)
            print(f"{arguments.out / file}", flush=True)


if __name__ == "__main__":
    main()
