"""Task sources beside the API: each runs in a thread of its own, and a broken one is reported and ended, alone."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Sequence
from typing import Final

import msgspec

from everfaas_core.model.ids import RANDOM_BYTES, TaskId, task_id
from everfaas_core.model.records import TaskSpec
from everfaas_core.ports import Store, TaskSource

QUEUE_MAX: Final = 10_000_000
JOIN_S: Final = 2.0


class SourceThreads:
    """Runs the sources from when the store is prepared until `stop`."""

    def __init__(self, sources: Sequence[TaskSource], store: Store, log: logging.Logger) -> None:
        self._store = store
        self._log = log
        self._stopped = threading.Event()
        self._prepared = threading.Event()
        self._threads = [
            threading.Thread(target=self._run, args=(source,), name=f"source-{type(source).__name__}", daemon=True)
            for source in sources
        ]

    def start(self) -> None:
        """Start the threads; they wait for `release`."""
        for thread in self._threads:
            thread.start()

    def release(self) -> None:
        """Let the sources submit: the store has been prepared."""
        self._prepared.set()

    def stop(self) -> None:
        """Tell all sources to return, and wait a bounded time for them. Idempotent."""
        self._stopped.set()
        self._prepared.set()
        for thread in self._threads:
            if thread.is_alive():
                thread.join(JOIN_S)

    def _run(self, source: TaskSource) -> None:
        self._prepared.wait()
        if self._stopped.is_set():
            return
        try:
            source.run(self._submit, self._stopped.wait)
        except Exception:  # noqa: BLE001 - a source is foreign code at a port's boundary: it must not end the dispatcher
            self._log.exception("the task source %s ended with an error", type(source).__name__)

    def _submit(self, specs: Sequence[TaskSpec]) -> Sequence[TaskId]:
        secret = self._store.secret()
        now_ms = int(time.time() * 1000)
        named = [
            spec
            if spec.task_id
            else msgspec.structs.replace(spec, task_id=task_id(now_ms, os.urandom(RANDOM_BYTES), secret))
            for spec in specs
        ]
        return self._store.submit(named, QUEUE_MAX)
