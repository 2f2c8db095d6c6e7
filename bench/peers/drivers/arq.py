"""arq: an asyncio queue. A worker is one process with one event loop, so four are started."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from typing import Any

from bench.peers.drivers.base import RESULT_TIMEOUT_S, WORKERS, Driver, Setting

AGAIN = "runs again: stays queued until it ran, kept from others by a key that expires after the job's timeout"
POLL_S = {"default": 0.5, "best": 0.002}
WINDOW = 64  # submits under way at once


class Arq(Driver):
    title = "arq"
    requirements = "arq.txt"
    distribution = "arq"
    durability = "broker's append-only file, fsync every second"
    broker = True
    settings = (
        Setting(
            "default", "4 workers, max_jobs 10 (but the functions block); polls of 0.5 s by worker and by client", AGAIN
        ),
        Setting("best", f"polls of 5 ms by the worker, 2 ms by the client; {WINDOW} submits under way at once", AGAIN),
    )

    def start(self) -> None:
        for _ in range(WORKERS):
            self.place.run(sys.executable, "-m", "arq", "bench.peers.drivers.arq_app.WorkerSettings")
        self.poll_s = POLL_S[self.setting]
        self.runner = asyncio.Runner()
        self.runner.run(self._connect())

    async def _connect(self) -> None:
        from arq import create_pool
        from arq.connections import RedisSettings

        self.pool = await create_pool(RedisSettings.from_dsn(self.place.broker_url))

    def call(self, function: str, *arguments: Any) -> Any:
        return self.runner.run(self._many(function, [arguments]))[0]

    def many(self, function: str, arguments: Sequence[tuple[Any, ...]]) -> list[Any]:
        return self.runner.run(self._many(function, arguments))

    async def _many(self, function: str, arguments: Sequence[tuple[Any, ...]]) -> list[Any]:
        submit = self.pool.enqueue_job
        jobs: list[Any] = []
        window = WINDOW if self.best else 1
        for begin in range(0, len(arguments), window):
            jobs += await asyncio.gather(*(submit(function, *one) for one in arguments[begin : begin + window]))
        return [await job.result(RESULT_TIMEOUT_S, poll_delay=self.poll_s) for job in jobs]
