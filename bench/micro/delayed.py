"""What delayed tasks cost where they wait, and elsewhere: `python -m bench.micro.delayed [--tasks 1000000]`.

Submits tasks that are due in an hour to an embedded store, and prints: the rate of submitting; the store's memory for
each task; and what a dispatcher's turn (report, sweep, claim) takes, and how much this process has grown, without and
with all of them waiting. The last two should be the same.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from pathlib import Path

import psutil

from everfaas_core.testing.servers import embedded_store
from everfaas_core.testing.store_scene import A, Scene, report
from everfaas_plugins.redis.store import RedisStore

BATCH = 5_000
TURNS = 500
DELAY_S = 3600.0


def turn_ms(scene: Scene) -> float:
    """Return the median time of a turn that finds nothing to do."""
    times = []
    for _ in range(TURNS):
        begun = time.perf_counter()
        reply = scene.turn(A, report=report(A), sweep=True, claim=64)
        times.append(time.perf_counter() - begun)
        if reply.claimed:
            raise RuntimeError("a delayed task was given before its time")
    return statistics.median(times) * 1e3


def used_bytes(store: RedisStore) -> int:
    """Return the server's memory."""
    with_memory = store._server.command("INFO", "memory").decode().splitlines()
    return int(next(line.partition(":")[2] for line in with_memory if line.startswith("used_memory:")))


def measure(url: str, count: int) -> None:
    store = RedisStore(url)
    store.prepare()
    scene = Scene(store)
    process = psutil.Process(os.getpid())
    function = scene.function()
    empty_ms, empty_bytes, before_rss = turn_ms(scene), used_bytes(store), process.memory_info().rss
    begun = time.perf_counter()
    for number in range(0, count, BATCH):
        size = min(BATCH, count - number)
        store.submit([scene.spec(function, delay_s=DELAY_S, payload=b"p" * 100) for _ in range(size)], count)
    took_s = time.perf_counter() - begun
    print(f"submitted             {count} delayed tasks, {count / took_s:,.0f}/s")
    print(f"store's memory        {(used_bytes(store) - empty_bytes) / count:,.0f} bytes for each task")
    print(f"an idle turn          {empty_ms:.3f} ms without them, {turn_ms(scene):.3f} ms with them")
    print(f"this process grew by  {(process.memory_info().rss - before_rss) / 2**20:.1f} MiB")
    print(f"next due in           {scene.turn(A, claim=1).next_due_s:.0f} s")
    store.close()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.micro.delayed", description=__doc__.split("\n")[0])
    parser.add_argument("--tasks", type=int, default=1_000_000)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, embedded_store(Path(folder)) as url:
        measure(url, arguments.tasks)


if __name__ == "__main__":
    main()
