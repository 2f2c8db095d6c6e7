"""Dramatiq with its Redis broker and result backend. It acknowledges after the task ran, always."""

from __future__ import annotations

import base64
import os
import sys
from collections.abc import Sequence
from typing import Any

from bench.peers.drivers.base import RESULT_TIMEOUT_S, WORKERS, Driver, Setting

AGAIN = "runs again: acknowledged after it ran, taken back from a worker that is silent for 60 s"
PREFETCH = 16


class Dramatiq(Driver):
    title = "Dramatiq"
    requirements = "dramatiq.txt"
    distribution = "dramatiq"
    durability = "broker's append-only file, fsync every second"
    broker = True
    settings = (
        Setting("default", "1 thread a process, prefetch 2, JSON (bytes as base64 text)", AGAIN),
        Setting("best", f"prefetch {PREFETCH}, pickle, no middleware but retries and results", AGAIN),
    )

    def start(self) -> None:
        if self.best:
            os.environ["dramatiq_queue_prefetch"] = str(PREFETCH)  # noqa: SIM112 # that is its name
        app = "bench.peers.drivers.dramatiq_app"
        self.place.run(sys.executable, "-m", "dramatiq", app, "-p", str(WORKERS), "-t", "1")
        from bench.peers.drivers.dramatiq_app import ACTORS

        self.actors = ACTORS

    def call(self, function: str, *arguments: Any) -> Any:
        message = self.actors[function].send(*arguments)
        return message.get_result(block=True, timeout=RESULT_TIMEOUT_S * 1000)

    def many(self, function: str, arguments: Sequence[tuple[Any, ...]]) -> list[Any]:
        messages = [self.actors[function].send(*one) for one in arguments]
        return [message.get_result(block=True, timeout=RESULT_TIMEOUT_S * 1000) for message in messages]

    def echo(self, blobs: Sequence[bytes]) -> list[Any]:
        if self.best:
            return super().echo(blobs)
        texts = self.many("echo", [(base64.b64encode(blob).decode(),) for blob in blobs])
        return [base64.b64decode(text) for text in texts]
