"""The table of goals, as far as it is reached today: `python -m bench.e2e [--rounds 3] [--modes local,pull,push]`.

Starts `everfaas up` for each mode in turn (A B C A B C …), each time on an empty data directory, and measures with
`requests` from this process: 20 sleeps of half a second on 4 slots; single no-op calls through v1, submitting and
waiting in one exchange; single calls through v0 (POST, then GET until done); a batch of no-ops; time to first result.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections import defaultdict
from pathlib import Path

from bench.e2e.client import BenchClient
from bench.e2e.system import running

ROWS = {
    "sleeps_s": "20 × sleep(0.5) on 4 slots, s (ideal 2.50)",
    "v1_p50_ms": "no-op, v1 with wait, p50, ms",
    "v1_p99_ms": "no-op, v1 with wait, p99, ms",
    "v0_per_s": "no-op, v0 by one requests session, tasks/s",
    "batch_per_s": "no-ops in batches, results in hand, tasks/s",
    "first_result_s": "`everfaas up` → first result, s",
}


def measure(mode: str, calls: int, batch: int) -> dict[str, float]:
    started = time.perf_counter()
    with running(mode) as url:
        client = BenchClient(url)
        no_op = client.register(lambda: None, "no_op")
        client.call(no_op)
        figures = {"first_result_s": time.perf_counter() - started}
        sleep = client.register(time.sleep, "sleep")
        figures["sleeps_s"] = client.sleeps(sleep, 20, 0.5)
        latencies = sorted(client.timed_call(no_op) for _ in range(calls))
        figures["v1_p50_ms"] = statistics.median(latencies) * 1e3
        figures["v1_p99_ms"] = latencies[int(len(latencies) * 0.99) - 1] * 1e3
        figures["v0_per_s"] = client.classic_rate(no_op, calls)
        figures["batch_per_s"] = client.batch_rate(no_op, batch)
        return figures


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.e2e", description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--modes", default="local,pull,push")
    parser.add_argument("--calls", type=int, default=300)
    parser.add_argument("--batch", type=int, default=10_000)
    parser.add_argument("--json", type=Path, help="also write all figures here")
    arguments = parser.parse_args()
    modes = arguments.modes.split(",")
    rounds: dict[str, list[dict[str, float]]] = defaultdict(list)
    for number in range(arguments.rounds):
        for mode in modes:
            rounds[mode].append(measure(mode, arguments.calls, arguments.batch))
            print(f"round {number + 1} {mode}: {rounds[mode][-1]}", flush=True)
    print(f"\nmedians of {arguments.rounds} rounds (least – most)\n")
    print("| | " + " | ".join(modes) + " |\n|---|" + "---|" * len(modes))
    for key, label in ROWS.items():
        cells = []
        for mode in modes:
            values = [figures[key] for figures in rounds[mode]]
            cells.append(f"{statistics.median(values):.4g} ({min(values):.4g} – {max(values):.4g})")
        print(f"| {label} | " + " | ".join(cells) + " |")
    if arguments.json:
        arguments.json.write_text(json.dumps(rounds, indent=1))


if __name__ == "__main__":
    main()
