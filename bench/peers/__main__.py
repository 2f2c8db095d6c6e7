"""Ours beside its peers: `python -m bench.peers [--rounds 3] [--only celery,ray,…] [--work noop,…] [--out DIR]`."""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import signal
import sys
import time
from pathlib import Path
from typing import Any

from bench.peers import environments, plot, processes, rounds, table
from bench.peers.catalog import DRIVERS, SETTINGS, System, load, systems
from bench.peers.drivers.base import WORKERS
from bench.peers.environments import Environment
from bench.peers.figures import FIGURES
from bench.peers.rounds import WORKS, Record, Sizes
from everfaas_core.embedded.binary import find_binary


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.peers", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="all systems in turn, so many times")
    parser.add_argument("--only", default=",".join(DRIVERS), help="systems, by name; `everfaas` is all of ours")
    parser.add_argument("--settings", default=",".join(SETTINGS), help="of default, best, acks")
    parser.add_argument("--work", default=",".join(WORKS), help=f"of {', '.join(WORKS)}")
    parser.add_argument(
        "--out", type=Path, default=Path("bench-peers"), help="folder for peers.md, peers.json, peers.svg"
    )
    parser.add_argument("--envs", type=Path, default=environments.default_folder(), help="folder of the environments")
    parser.add_argument("--scale", type=float, default=1.0, help="0.1 makes it a tenth of the work: to try it out")
    parser.add_argument("--install-only", action="store_true", help="make the environments and end")
    parser.add_argument(
        "--from", dest="source", type=Path, help="measure nothing: write table and plot of a peers.json"
    )
    return parser.parse_args()


def main() -> int:
    options = arguments()
    if options.source:
        kept = json.loads(options.source.read_text())
        write(options.out, kept["meta"], kept["records"])
        return 0
    works = options.work.split(",")
    if unknown := [work for work in works if work not in WORKS]:
        raise SystemExit(f"no such work: {', '.join(unknown)}; choose from {', '.join(WORKS)}")
    try:
        chosen = systems(options.only.split(","), options.settings.split(","))
    except ValueError as error:
        raise SystemExit(str(error)) from error
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what was started is stopped
    processes.adopt_orphans()
    installed = install(chosen, options.envs)
    if options.install_only:
        return 0
    compare(chosen, installed, works, options)
    return 0


def install(chosen: list[System], folder: Path) -> dict[str, Environment]:
    """Make, or find, the environment of each system; say what can't be had."""
    found: dict[str, Environment] = {}
    for name in dict.fromkeys(system.name for system in chosen):
        driver = load(name)
        found[name] = environments.ensure(driver.requirements, folder) if driver.requirements else environments.own()
        print(f"{driver.title}: {found[name].reason or version(name, found[name])}", flush=True)
    return found


def compare(
    chosen: list[System], installed: dict[str, Environment], works: list[str], options: argparse.Namespace
) -> None:
    """Measure everything, round by round. What there is so far is written after each system: an end loses nothing."""
    binary = str(find_binary())
    sizes = Sizes() if options.scale == 1 else Sizes().scaled(options.scale)
    records: list[Record] = []
    meta = about(chosen, installed, options)
    for number, system in rounds.interleaved(chosen, options.rounds):
        began = time.perf_counter()
        print(f"round {number}, {system}", flush=True)
        measured = rounds.measure(
            system, installed[system.name], binary, sizes, works, lambda text: print(text, flush=True)
        )
        common = {"round": number, "system": system.name, "setting": system.setting, "cores": usable_cores()}
        records += [common | record for record in measured]
        write(options.out, meta, records)
        print(f"  {time.perf_counter() - began:.0f} s: {summary(records, system, number)}", flush=True)
    print(f"\n{(options.out / 'peers.md').read_text()}")


def about(chosen: list[System], installed: dict[str, Environment], options: argparse.Namespace) -> dict[str, Any]:
    names = list(dict.fromkeys(system.name for system in chosen))
    return {
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "rounds": options.rounds,
        "scale": options.scale,
        "workers": WORKERS,
        "cores": usable_cores(),
        "processor": processor(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "versions": {name: version(name, installed[name]) for name in names},
        "packages": {name: installed[name].packages for name in names},
    }


def write(folder: Path, meta: dict[str, Any], records: list[Record]) -> None:
    """Write all three files. Without matplotlib there is no plot, and that is said."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = ",\n".join(json.dumps(record) for record in records)
    (folder / "peers.json").write_text(f'{{"meta": {json.dumps(meta, indent=1)},\n"records": [\n{lines}\n]}}\n')
    (folder / "peers.md").write_text(table.markdown(meta, records))
    try:
        plot.draw(records, folder / "peers.svg")
    except ImportError:
        print("no plot without matplotlib: pip install 'everfaas[bench]'", file=sys.stderr)


def summary(records: list[Record], system: System, number: int) -> str:
    """Return one round's figures of one system in a line."""
    mine = [
        one for one in records if (one["round"], one["system"], one["setting"]) == (number, system.name, system.setting)
    ]
    cells = {figure.label: table.cell(mine, figure.key) for figure in FIGURES}
    return "; ".join(f"{label} {text}" for label, text in cells.items() if text != table.NO_FIGURE)


def version(name: str, environment: Environment) -> str:
    return environment.packages.get(load(name).distribution, "") or (
        platform.python_version() if not load(name).distribution else ""
    )


def usable_cores() -> int:
    return len(os.sched_getaffinity(0))


def processor() -> str:
    """Return the processor's name, as Linux knows it."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


if __name__ == "__main__":
    sys.exit(main())
