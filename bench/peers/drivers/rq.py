"""RQ. Its default worker forks a process for each job."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from bench.peers.drivers.base import RESULT_TIMEOUT_S, WORKERS, Driver, Setting
from bench.peers.drivers.work import FUNCTIONS

NOTED = "noted as started; failed when its worker's heartbeats have ceased, or retried where Retry was asked for"


class Rq(Driver):
    title = "RQ"
    requirements = "rq.txt"
    distribution = "rq"
    durability = "broker's append-only file, fsync every second"
    broker = True
    settings = (
        Setting("default", "4 × `rq worker`: a fork for each job; enqueue, latest_result(timeout)", NOTED),
        Setting("best", "`rq worker-pool` of SimpleWorkers, which do not fork; enqueue_many; quiet", NOTED),
    )

    def start(self) -> None:
        program = [sys.executable, "-m", "rq.cli"]
        if self.best:
            pool = ["worker-pool", "-n", str(WORKERS), "-w", "rq.worker.SimpleWorker", "--quiet"]
            self.place.run(*program, *pool, "--url", self.place.broker_url)
        else:
            for _ in range(WORKERS):
                self.place.run(*program, "worker", "--url", self.place.broker_url)
        from redis import Redis
        from rq import Queue

        self.queue = Queue(connection=Redis.from_url(self.place.broker_url))

    def call(self, function: str, *arguments: Any) -> Any:
        return _value(self.queue.enqueue(FUNCTIONS[function], *arguments))

    def many(self, function: str, arguments: Sequence[tuple[Any, ...]]) -> list[Any]:
        if self.best:
            prepare = self.queue.prepare_data
            jobs = self.queue.enqueue_many([prepare(FUNCTIONS[function], one) for one in arguments])
        else:
            jobs = [self.queue.enqueue(FUNCTIONS[function], *one) for one in arguments]
        return [_value(job) for job in jobs]


def _value(job: Any) -> Any:
    result = job.latest_result(timeout=RESULT_TIMEOUT_S)
    if result is None or result.type != result.Type.SUCCESSFUL:
        raise RuntimeError(f"the job has {'no result' if result is None else result.exc_string}")
    return result.return_value
