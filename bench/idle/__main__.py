"""What an idle system costs: `python -m bench.idle [--seconds 30] [--modes local,pull,push] [--separate]`.

Starts `everfaas up` with 4 slots for each mode (with `--separate` the roles as commands of their own), runs one task
through it, leaves it alone, and prints for each process: CPU time in % of one core, wake-ups a second, proportional and
unshared memory, threads. The goals of all processes together: below 0.5 % of a core, at most 110 MB proportional.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import asdict
from pathlib import Path

import requests

from bench.e2e.client import BenchClient
from bench.e2e.system import running
from bench.idle.gauge import Row, descendants, watch
from bench.idle.separate import separate_roles

SETTLE_S = 3.0
READY_S = 30.0
CPU_PERCENT_GOAL = 0.5
PSS_MB_GOAL = 110


def idle(mode: str, seconds: float, settle_s: float, *, slots: int, separate: bool) -> list[Row]:
    """Start it, use it once, leave it alone, and look."""
    with separate_roles(mode, slots=slots) if separate else running(mode, slots=slots) as url:
        deadline = time.monotonic() + READY_S
        while requests.get(url + "/readyz", timeout=10).status_code != 200 and time.monotonic() < deadline:
            time.sleep(0.05)
        client = BenchClient(url)
        client.call(client.register(lambda: None, "no_op"))
        client.session.close()
        time.sleep(settle_s)
        return watch(descendants(), seconds)


def main() -> None:
    """Print a table for each mode."""
    parser = argparse.ArgumentParser(prog="python -m bench.idle", description=__doc__.split("\n")[0])
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--settle", type=float, default=SETTLE_S, help="seconds between the one task and the look")
    parser.add_argument("--modes", default="local,pull,push")
    parser.add_argument("--slots", type=int, default=4)
    parser.add_argument("--separate", action="store_true", help="roles as commands of their own")
    parser.add_argument("--json", type=Path, help="also write all figures here")
    arguments = parser.parse_args()
    written = {}
    for mode in arguments.modes.split(","):
        rows = idle(mode, arguments.seconds, arguments.settle, slots=arguments.slots, separate=arguments.separate)
        how = "separate roles" if arguments.separate else "everfaas up"
        print(f"\n{how}, mode {mode}, {arguments.slots} slots, over {arguments.seconds:g} s\n")
        print("| process | CPU, % of a core | wake-ups/s | PSS, MB | USS, MB | threads |\n|---|---|---|---|---|---|")
        for row in rows:
            print(
                f"| {row.name} | {row.cpu_percent:.3f} | {row.wakeups_per_s:.2f} | {row.pss_bytes / 1e6:.1f} "
                f"| {row.uss_bytes / 1e6:.1f} | {row.threads} |"
            )
        cpu, pss = sum(row.cpu_percent for row in rows), sum(row.pss_bytes for row in rows) / 1e6
        wakeups = sum(row.wakeups_per_s for row in rows)
        print(
            f"| **all** (goals: < {CPU_PERCENT_GOAL}, ≤ {PSS_MB_GOAL} MB) | {cpu:.3f} | {wakeups:.2f} | {pss:.1f} | | |"
        )
        written[mode] = [asdict(row) for row in rows]
    if arguments.json:
        arguments.json.write_text(json.dumps(written, indent=1))


if __name__ == "__main__":
    main()
