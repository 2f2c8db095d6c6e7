"""Dask distributed: a scheduler in the client's process and four workers of one thread on this machine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bench.peers.drivers.base import RESULT_TIMEOUT_S, WORKERS, Driver, Setting
from bench.peers.drivers.work import FUNCTIONS

BATCH = 1_000
AGAIN = "runs again, up to 3 lost workers, while scheduler and client live"


class Dask(Driver):
    title = "Dask distributed"
    requirements = "dask.txt"
    distribution = "distributed"
    durability = "nothing stored: in the scheduler's memory"
    scheduler_in_client = True
    settings = (
        Setting("default", "LocalCluster, submit and gather", AGAIN),
        Setting("best", f"map with batch_size {BATCH:,}; no dashboard, profiler or work stealing", AGAIN),
    )

    def start(self) -> None:
        import dask
        from distributed import Client, LocalCluster

        if self.best:
            dask.config.set(
                {
                    "distributed.worker.profile.enabled": False,
                    "distributed.scheduler.work-stealing": False,
                    "distributed.admin.tick.interval": "1s",
                }
            )
        self.cluster = LocalCluster(
            n_workers=WORKERS,
            threads_per_worker=1,
            dashboard_address=None if self.best else "127.0.0.1:0",
            local_directory=str(self.place.folder),
        )
        self.client = Client(self.cluster)

    def call(self, function: str, *arguments: Any) -> Any:
        return self.client.submit(FUNCTIONS[function], *arguments, pure=False).result(RESULT_TIMEOUT_S)

    def many(self, function: str, arguments: Sequence[tuple[Any, ...]]) -> list[Any]:
        if self.best and arguments[0]:
            futures = self.client.map(FUNCTIONS[function], *zip(*arguments, strict=True), pure=False, batch_size=BATCH)
        elif self.best:
            futures = self.client.map(_ignore_and_call, range(len(arguments)), pure=False, batch_size=BATCH)
        else:
            futures = [self.client.submit(FUNCTIONS[function], *one, pure=False) for one in arguments]
        return list(self.client.gather(futures))

    def stop(self) -> None:
        self.client.close()
        self.cluster.close()


def _ignore_and_call(_number: int) -> int:
    return int(FUNCTIONS["noop"]())  # map needs an iterable of arguments; only the no-op has none
