"""Celery with its prefork pool, Redis as broker and as result backend."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

from bench.peers.drivers.base import RESULT_TIMEOUT_S, WORKERS, Driver, Setting

EARLY = "lost: acknowledged before it runs"
TUNED = "prefetch 64 a process, msgpack, no gossip, mingle, heartbeat or remote control; one producer"


class Celery(Driver):
    title = "Celery"
    requirements = "celery.txt"
    distribution = "celery"
    durability = "broker's append-only file, fsync every second"
    broker = True
    settings = (
        Setting("default", "prefork pool, prefetch 4, JSON, get() on each result", EARLY),
        Setting("best", TUNED, EARLY),
        Setting(
            "acks",
            "as best, with task_acks_late and task_reject_on_worker_lost",
            "runs again: acknowledged after it ran, given back when its process is lost (the whole worker: after 1 h)",
        ),
    )

    def start(self) -> None:
        command = [sys.executable, "-m", "celery", "-A", "bench.peers.drivers.celery_app", "worker", "-c", str(WORKERS)]
        if self.best:
            command += ["--without-gossip", "--without-mingle", "--without-heartbeat"]
        self.place.run(*command)
        from bench.peers.drivers.celery_app import TASKS

        self.tasks = TASKS

    def call(self, function: str, *arguments: Any) -> Any:
        return self.tasks[function].apply_async(arguments).get(RESULT_TIMEOUT_S)

    def many(self, function: str, arguments: Sequence[tuple[Any, ...]]) -> list[Any]:
        task = self.tasks[function]
        with task.app.producer_pool.acquire(block=True) if self.best else nullcontext() as producer:
            results = [task.apply_async(one, producer=producer) for one in arguments]
        return [result.get(RESULT_TIMEOUT_S) for result in results]
