"""Parsl with its HighThroughputExecutor: an interchange and one manager with four workers on this machine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bench.peers.drivers.base import RESULT_TIMEOUT_S, WORKERS, Driver, Setting
from bench.peers.drivers.work import FUNCTIONS

PREFETCH = 64
LOST = "its future fails; runs again where `retries` was asked for, while the client lives"


class Parsl(Driver):
    title = "Parsl"
    requirements = "parsl.txt"
    distribution = "parsl"
    durability = "nothing stored: in the memory of client, interchange and manager"
    scheduler_in_client = True
    settings = (
        Setting("default", "HTEX, encrypted, logging", LOST),
        Setting("best", f"prefetch {PREFETCH}, poll period 1 ms, not encrypted, no logging or scaling strategy", LOST),
    )

    def start(self) -> None:
        import parsl
        from parsl.config import Config
        from parsl.executors import HighThroughputExecutor
        from parsl.providers import LocalProvider

        tuned = {"prefetch_capacity": PREFETCH, "poll_period": 1, "encrypted": False} if self.best else {}
        executor = HighThroughputExecutor(
            address="127.0.0.1",
            max_workers_per_node=WORKERS,
            cores_per_worker=0.01,  # so that there are four of them, however few the cores
            provider=LocalProvider(min_blocks=1, init_blocks=1, max_blocks=1),
            **tuned,
        )
        quiet = {"initialize_logging": False, "strategy": "none"} if self.best else {}
        self.parsl = parsl
        parsl.load(Config(executors=[executor], run_dir=str(self.place.folder / "runinfo"), **quiet))
        self.apps = {name: parsl.python_app(function, cache=False) for name, function in FUNCTIONS.items()}

    def call(self, function: str, *arguments: Any) -> Any:
        return self.apps[function](*arguments).result(RESULT_TIMEOUT_S)

    def many(self, function: str, arguments: Sequence[tuple[Any, ...]]) -> list[Any]:
        futures = [self.apps[function](*one) for one in arguments]
        return [future.result(RESULT_TIMEOUT_S) for future in futures]

    def stop(self) -> None:
        self.parsl.dfk().cleanup()
