"""Whether anything grows: `python -m bench.soak [--tasks 1000000] [--modes pull] [--retention 5]`.

Starts `everfaas up`, runs no-op tasks through it in batches over HTTP, each result taken in hand, with a short
retention, and compares afterwards, when the last record has expired: the store's memory and number of keys, and the
memory of each process (proportional set size), with what they were before the first and after the first twentieth of
the tasks. Exits with 1 if a task is missing, a key is left, the store uses more memory than it did, or a process has
grown by more than a fifth.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import threading
import time
from pathlib import Path

from bench.e2e.client import NO_ARGUMENTS, BenchClient
from bench.e2e.system import running
from bench.soak.gauge import Gauge, Sample

BATCH = 1_000
CLIENTS = 3  # threads, each with one batch under way
WARM_SHARE = 0.05
GROWN_MAX = 0.20
"""Of a process, from the end of the warming up to the end."""

KEYS_LEFT_MAX = 50
"""Beyond those that were there before: counters and secrets, whatever was done; no task leaves any."""

STORE_LEFT_BYTES_MAX = 1024**2
SAMPLE_S = 15.0
NEAR_EXPIRY_S = 20.0  # at the most, from the end of the retention until the last record is gone
SWEPT_PER_S = 800  # records that a system at rest deletes a second, at the least: it sweeps 1,000 a turn


class Work:
    """Runs batches until so many tasks have ended with the right result."""

    def __init__(self, url: str, retention_s: float) -> None:
        self._url = url
        self._options = {"result_ttl_s": retention_s}
        self._lock = threading.Lock()
        self._left = 0
        self.done = 0
        self.errors: list[str] = []

    def run(self, tasks: int, gauge: Gauge | None = None) -> float:
        """Run them; return how long it took, in seconds."""
        self._left = tasks
        threads = [threading.Thread(target=self._client, daemon=True) for _ in range(CLIENTS)]
        began = time.perf_counter()
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            threads[0].join(SAMPLE_S)
            if gauge is not None:
                sample = gauge.take(f"{self.done:,} tasks")
                print(f"  {sample}", flush=True)
            for thread in threads[1:]:
                if not threads[0].is_alive():
                    thread.join()
        if self.errors:
            raise RuntimeError(self.errors[0])
        return time.perf_counter() - began

    def _client(self) -> None:
        try:
            client = BenchClient(self._url)
            function = client.register(lambda: None, "no_op")
            while count := self._take():
                tasks = [{"function_id": function, "payload": NO_ARGUMENTS, **self._options}] * count
                client.wait_all(client.post("/v1/tasks:batch", {"tasks": tasks})["task_ids"])
                with self._lock:
                    self.done += count
        except Exception as error:  # told by `run`, in the thread that asked
            self.errors.append(repr(error))

    def _take(self) -> int:
        with self._lock:
            count = 0 if self.errors else min(BATCH, self._left)
            self._left -= count
            return count


def soak(mode: str, tasks: int, retention_s: float) -> tuple[list[Sample], list[str]]:
    """Run in one mode; return the samples before, warm and after, and what is wrong."""
    with (
        tempfile.TemporaryDirectory(prefix="everfaas-soak-") as data,
        running(mode, data=Path(data)) as url,
        Gauge(Path(data)) as gauge,
    ):
        before = gauge.take("before")
        work = Work(url, retention_s)
        warm_tasks = int(tasks * WARM_SHARE)
        work.run(warm_tasks)
        gauge.await_keys(before.keys + KEYS_LEFT_MAX, retention_s + NEAR_EXPIRY_S + gauge.keys() / SWEPT_PER_S)
        warm = gauge.take("warm")
        took_s = work.run(tasks - warm_tasks, gauge)
        print(f"  {mode}: {work.done:,} tasks, {(tasks - warm_tasks) / took_s:,.0f}/s", flush=True)
        gauge.await_keys(before.keys + KEYS_LEFT_MAX, retention_s + NEAR_EXPIRY_S + gauge.keys() / SWEPT_PER_S)
        after = gauge.take("after")
    problems = [f"{tasks - work.done} tasks are missing"] if work.done != tasks else []
    return [before, warm, after], problems + judged(before, warm, after)


def judged(before: Sample, warm: Sample, after: Sample) -> list[str]:
    """Say what has grown."""
    found = []
    if after.keys > before.keys + KEYS_LEFT_MAX:
        found.append(f"{after.keys - before.keys} keys are left in the store")
    if after.store_bytes > warm.store_bytes + STORE_LEFT_BYTES_MAX:
        found.append(f"the store uses {after.store_bytes - warm.store_bytes:,} bytes more")
    for name, was in warm.pss_bytes.items():
        now = after.pss_bytes.get(name)
        if now is None:
            found.append(f"{name} is gone")
        elif now > was * (1 + GROWN_MAX):
            found.append(f"{name} has grown from {was / 1e6:.1f} to {now / 1e6:.1f} MB")
    return found


def main() -> int:
    """Print a table for each mode."""
    parser = argparse.ArgumentParser(prog="python -m bench.soak", description=__doc__.split("\n")[0])
    parser.add_argument("--tasks", type=int, default=1_000_000)
    parser.add_argument("--modes", default="pull")
    parser.add_argument("--retention", type=float, default=5.0, help="seconds for which a result is kept")
    parser.add_argument("--json", type=Path, help="also write all samples here")
    arguments = parser.parse_args()
    status, written = 0, {}
    for mode in arguments.modes.split(","):
        samples, problems = soak(mode, arguments.tasks, arguments.retention)
        print(f"\n{mode}, {arguments.tasks:,} tasks, kept for {arguments.retention:g} s\n")
        print("| | " + " | ".join(sample.name for sample in samples) + " |\n|---|---|---|---|")
        print("| keys in the store | " + " | ".join(f"{sample.keys:,}" for sample in samples) + " |")
        print("| store's data, MB | " + " | ".join(f"{sample.store_bytes / 1e6:.2f}" for sample in samples) + " |")
        for name in samples[0].pss_bytes:
            cells = [sample.pss_bytes.get(name) for sample in samples]
            print(f"| {name}, MB | " + " | ".join("–" if one is None else f"{one / 1e6:.1f}" for one in cells) + " |")
        for problem in problems:
            print(f"- MISS: {problem}")
        status = status or int(bool(problems))
        written[mode] = [sample.as_dict() for sample in samples]
    if arguments.json:
        arguments.json.write_text(json.dumps(written, indent=1))
    return status


if __name__ == "__main__":
    sys.exit(main())
