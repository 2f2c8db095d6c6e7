"""The floor: ProcessPoolExecutor in this process, one `submit` for each task. Nothing is stored, nothing survives."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import Any

from bench.e2e.usage import all_cpu_s
from bench.e2e.work import SLOTS, Sizes, echo, nap, noop, spin


def measure(sizes: Sizes) -> dict[str, float]:
    """Return the figures that a pool has as well."""
    with ProcessPoolExecutor(SLOTS) as pool:
        run_s(pool, nap, [(0.05,)] * SLOTS)  # so that all processes are there
        figures = {"sleeps_s": run_s(pool, nap, [(sizes.nap_s,)] * sizes.naps)}
        latencies_s = sorted(run_s(pool, noop, [()]) for _ in range(sizes.calls))
        figures["call_p50_ms"] = statistics.median(latencies_s) * 1e3
        figures["call_p99_ms"] = latencies_s[math.ceil(sizes.calls * 0.99) - 1] * 1e3
        before_s = all_cpu_s()
        figures["batch_per_s"] = sizes.tasks / run_s(pool, noop, [()] * sizes.tasks)
        figures["cpu_us"] = (all_cpu_s() - before_s) / sizes.tasks * 1e6
        figures["cpu_percent"] = 100 * sizes.spins_ideal_s / run_s(pool, spin, [(sizes.spin_s,)] * sizes.spins)
        blobs = [(number.to_bytes(8, "big") * (sizes.echo_bytes // 8),) for number in range(sizes.echoes)]
        figures["echo_mib_per_s"] = sizes.echoed_mib / run_s(pool, echo, blobs)
    return figures


def run_s(pool: ProcessPoolExecutor, function: Callable[..., Any], calls: Sequence[tuple[Any, ...]]) -> float:
    """Submit them all, and return the seconds until all results are there."""
    began = time.perf_counter()
    futures = [pool.submit(function, *arguments) for arguments in calls]
    for future in futures:
        future.result()
    return time.perf_counter() - began
