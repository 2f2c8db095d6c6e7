"""concurrent.futures.ProcessPoolExecutor: the floor. Nothing is stored, nothing survives."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from typing import Any

from bench.peers.drivers.base import RESULT_TIMEOUT_S, WORKERS, Driver, Setting
from bench.peers.drivers.work import FUNCTIONS

CHUNK = 100
LOST = "lost: the pool is broken and every task of it fails"


class Pool(Driver):
    title = "ProcessPoolExecutor"
    requirements = "pool.txt"
    durability = "nothing stored: in the client's memory"
    settings = (
        Setting("default", "submit, one future a task", LOST),
        Setting("best", f"map with chunks of {CHUNK} for no-ops: a chunk, not a task, is sent and tracked", LOST),
    )
    scheduler_in_client = True
    executor: Executor

    def start(self) -> None:
        self.executor = ProcessPoolExecutor(WORKERS)

    def call(self, function: str, *arguments: Any) -> Any:
        return self.executor.submit(FUNCTIONS[function], *arguments).result(RESULT_TIMEOUT_S)

    def many(self, function: str, arguments: Sequence[tuple[Any, ...]]) -> list[Any]:
        futures = [self.executor.submit(FUNCTIONS[function], *one) for one in arguments]
        return [future.result(RESULT_TIMEOUT_S) for future in futures]

    def noop(self, count: int) -> list[Any]:
        if not self.best:
            return super().noop(count)
        return list(self.executor.map(_ignore_and_noop, range(count), chunksize=CHUNK, timeout=RESULT_TIMEOUT_S))

    def stop(self) -> None:
        self.executor.shutdown()


def _ignore_and_noop(_number: int) -> int:
    return int(FUNCTIONS["noop"]())  # map needs an iterable of arguments
