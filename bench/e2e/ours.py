"""One mode of ours, from its start to its end, as a client sees it over HTTP."""

from __future__ import annotations

import pickle
import statistics
import time
from pathlib import Path

from bench.e2e.client import BenchClient, serialize
from bench.e2e.system import running
from bench.e2e.usage import all_cpu_s, idle_percent, memory_mb
from bench.e2e.work import SLOTS, Sizes, noop, noop_of, spin
from everfaas_core import Client
from everfaas_core.cli.bench import percentile
from everfaas_core.cli.workload import NONE, Workload
from everfaas_core.client.http import Api

ROOT = Path(__file__).parents[2]
SETTLE_S = 1.0  # after the first result, before the idle system is looked at
POLL_S = 0.01
POLLED_WORK_S = 0.05
POLLED_CALLS = 20


def measure(mode: str, sizes: Sizes) -> dict[str, float]:
    """Return all figures of one mode. At rest first, then under load."""
    started = time.perf_counter()
    with running(mode, "--path", str(ROOT), slots=SLOTS) as url:
        classic = BenchClient(url)
        no_op = classic.register(lambda: None, "no_op")
        classic.call(no_op)
        figures = {"first_result_s": time.perf_counter() - started}
        time.sleep(SETTLE_S)
        figures["idle_percent"] = idle_percent(sizes.idle_s)
        figures["idle_mb"] = memory_mb()
        with Api(url) as api:
            figures |= _modern(Workload(api, {"spin": spin}, pickle.loads), sizes)
        figures |= _sdk(url, sizes)
        figures |= _classic(classic, no_op, sizes)
        figures["after_mb"] = memory_mb()
        return figures


def _modern(work: Workload, sizes: Sizes) -> dict[str, float]:
    """Measure with http.client and msgpack, raw bytes in both directions."""
    work.warm_up(SLOTS)
    figures = {"sleeps_s": work.naps_s(sizes.naps, sizes.nap_s)}
    latencies_s = sorted(work.calls_s(sizes.calls))
    figures["call_p50_ms"] = statistics.median(latencies_s) * 1e3
    figures["call_p99_ms"] = percentile(latencies_s, 0.99) * 1e3
    before_s = all_cpu_s()
    figures["batch_per_s"] = sizes.tasks / work.batches_s(sizes.tasks)
    figures["cpu_us"] = (all_cpu_s() - before_s) / sizes.tasks * 1e6
    spins = [((sizes.spin_s,), NONE)] * sizes.spins
    figures["cpu_percent"] = 100 * sizes.spins_ideal_s / work.run_s("spin", spins)
    figures["echo_mib_per_s"] = sizes.echoed_mib / work.echoes_s(sizes.echoes, sizes.echo_bytes)
    return figures


def _sdk(url: str, sizes: Sizes) -> dict[str, float]:
    """Measure with our own client: a call at a time, many futures, a map."""
    with Client(url) as client:
        list(client.map(noop_of, range(SLOTS * 10)))
        latencies_s = []
        for _ in range(sizes.calls):
            began = time.perf_counter()
            client.submit(noop).result()
            latencies_s.append(time.perf_counter() - began)
        latencies_s.sort()
        figures = {
            "sdk_p50_ms": statistics.median(latencies_s) * 1e3,
            "sdk_p99_ms": percentile(latencies_s, 0.99) * 1e3,
        }
        before_s, began = all_cpu_s(), time.perf_counter()
        count = sum(1 for _ in client.map(noop_of, range(sizes.tasks)))
        figures["sdk_map_per_s"] = count / (time.perf_counter() - began)
        figures["sdk_cpu_us"] = (all_cpu_s() - before_s) / count * 1e6
        began = time.perf_counter()
        futures = [client.submit(noop) for _ in range(sizes.tasks)]
        for future in futures:
            future.result()
        figures["sdk_submit_per_s"] = len(futures) / (time.perf_counter() - began)
        return figures


def _classic(client: BenchClient, no_op: str, sizes: Sizes) -> dict[str, float]:
    """Measure with `requests`, JSON and base64."""
    sleep = client.register(time.sleep, "sleep")
    arguments = serialize(((POLLED_WORK_S,), {}))
    beyond = []
    for _ in range(POLLED_CALLS):
        took_s, polls = client.polled(sleep, arguments, POLL_S)
        beyond.append((took_s - POLLED_WORK_S) / (took_s / polls))
    return {
        "v0_polls_beyond": statistics.median(beyond),
        "v0_per_s": client.classic_rate(no_op, sizes.calls),
        "json_per_s": client.batch_rate(no_op, sizes.tasks),
    }
