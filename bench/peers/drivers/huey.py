"""Huey with Redis, its consumer in processes."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from bench.peers.drivers.base import RESULT_TIMEOUT_S, WORKERS, Driver, Setting

LOST = "lost: popped before it runs; it has no acknowledgements"


class Huey(Driver):
    title = "Huey"
    requirements = "huey.txt"
    distribution = "huey"
    durability = "broker's append-only file, fsync every second"
    broker = True
    settings = (
        Setting("default", "worker type process; the client polls for a result", LOST),
        Setting("best", "notify_result; all tasks of a batch in one LPUSH; no periodic tasks, quiet", LOST),
    )

    def start(self) -> None:
        app = "bench.peers.drivers.huey_app"
        command = [sys.executable, "-m", "huey.bin.huey_consumer", f"{app}.huey", "-w", str(WORKERS), "-k", "process"]
        self.place.run(*command, *(["--no-periodic", "--quiet"] if self.best else []))
        from bench.peers.drivers.huey_app import TASKS, huey

        self.tasks, self.huey = TASKS, huey

    def call(self, function: str, *arguments: Any) -> Any:
        return self.tasks[function](*arguments).get(blocking=True, timeout=RESULT_TIMEOUT_S)

    def many(self, function: str, arguments: Sequence[tuple[Any, ...]]) -> list[Any]:
        results = self._submit_all(function, arguments) if self.best else self.tasks[function].map(arguments)
        return [result.get(blocking=True, timeout=RESULT_TIMEOUT_S) for result in results]

    def _submit_all(self, function: str, arguments: Sequence[tuple[Any, ...]]) -> list[Any]:
        """Huey's own form and key, in one command instead of one a task: it has no call for that."""
        from huey.api import Result

        tasks = [self.tasks[function].s(*one) for one in arguments]
        storage = self.huey.storage
        storage.conn.lpush(storage.queue_key, *(self.huey.serialize_task(task) for task in tasks))
        return [Result(self.huey, task) for task in tasks]
