"""Taskiq with Redis. The functions are plain ones, which a worker runs in its thread, one at a time."""

from __future__ import annotations

import asyncio
import base64
import sys
from collections.abc import Sequence
from typing import Any

from bench.peers.drivers.base import RESULT_TIMEOUT_S, WORKERS, Driver, Setting

LOST = "lost: popped before it runs"
CHECK_S = {"default": 0.2}
CHECK_BEST_S = 0.001
WINDOW = 64  # submits under way at once


class Taskiq(Driver):
    title = "Taskiq"
    requirements = "taskiq.txt"
    distribution = "taskiq"
    durability = "broker's append-only file, fsync every second"
    broker = True
    settings = (
        Setting("default", "list broker, 1 thread a process, JSON (bytes as base64 text), polls of 0.2 s", LOST),
        Setting("best", f"2 tasks a process taken at a time, orjson, polls of 1 ms, {WINDOW} submits at once", LOST),
        Setting(
            "acks",
            "as best, with the stream broker, which acknowledges",
            "runs again: acknowledged when its result is stored, claimed by others after 10 minutes",
        ),
    )

    def start(self) -> None:
        app = "bench.peers.drivers.taskiq_app:broker"
        command = [sys.executable, "-m", "taskiq", "worker", app, "-w", str(WORKERS), "--max-threadpool-threads", "1"]
        self.place.run(*command, *(["--max-async-tasks", "2", "--log-level", "WARNING"] if self.best else []))
        self.check_s = CHECK_S.get(self.setting, CHECK_BEST_S)
        from bench.peers.drivers.taskiq_app import TASKS, broker

        self.tasks, self.runner = TASKS, asyncio.Runner()
        self.runner.run(broker.startup())

    def call(self, function: str, *arguments: Any) -> Any:
        return self.runner.run(self._many(function, [arguments]))[0]

    def many(self, function: str, arguments: Sequence[tuple[Any, ...]]) -> list[Any]:
        return self.runner.run(self._many(function, arguments))

    async def _many(self, function: str, arguments: Sequence[tuple[Any, ...]]) -> list[Any]:
        submit = self.tasks[function].kiq
        waiting: list[Any] = []
        window = WINDOW if self.best else 1
        for begin in range(0, len(arguments), window):
            waiting += await asyncio.gather(*(submit(*one) for one in arguments[begin : begin + window]))
        results = [await one.wait_result(check_interval=self.check_s, timeout=RESULT_TIMEOUT_S) for one in waiting]
        for result in results:
            result.raise_for_error()
        return [result.return_value for result in results]

    def echo(self, blobs: Sequence[bytes]) -> list[Any]:
        texts = self.many("echo", [(base64.b64encode(blob).decode(),) for blob in blobs])
        return [base64.b64decode(text) for text in texts]
