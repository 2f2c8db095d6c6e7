"""The fleet as a backend of joblib: batches of calls are tasks, so scikit-learn's `n_jobs` means slots. Needs joblib.

Nothing is shared between a program and the fleet: arguments travel with each batch, also large arrays, which joblib's
own backends would map into memory.
"""

from __future__ import annotations

import contextlib
import operator
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

from joblib.parallel import (
    AutoBatchingMixin,
    FallbackToBackend,
    ParallelBackendBase,
    SequentialBackend,
    register_parallel_backend,
)

from everfaas_core.client.client import Client
from everfaas_core.client.errors import ApiFailed
from everfaas_core.client.function import default_client
from everfaas_core.client.futures import Future

__all__ = ["FleetBackend", "register_parallel_backend"]

TASKS_NAME: Final = "joblib"
"""What the tasks are called in lists, unless the option `name` says otherwise."""


class FleetBackend(AutoBatchingMixin, ParallelBackendBase):  # type: ignore[misc]  # joblib ships no types
    """What joblib asks of a backend (`joblib.parallel.ParallelBackendBase`), by a client of the API."""

    supports_retrieve_callback = True
    default_n_jobs = -1  # who selects this backend wants the fleet

    def __init__(self, nesting_level: int | None = None, client: Client | None = None, **options: Any) -> None:
        """Take a client, or the one of this process, and options for its calls. Raises TypeError for a wrong one."""
        super().__init__(nesting_level=nesting_level)
        base = default_client(os.getpid()) if client is None else client
        self._client = base.options(**{"name": TASKS_NAME, **options})
        self._lock = threading.Lock()
        self._under_way: set[Future[Any]] = set()
        self._callbacks: ThreadPoolExecutor | None = None

    def effective_n_jobs(self, n_jobs: int | None) -> int:
        """Return how many batches can run at a time; below zero, count from the fleet's slots: -1 is all of them.

        Raises ApiFailed.
        """
        if n_jobs == 0:
            raise ValueError("n_jobs == 0 in Parallel has no meaning")
        if n_jobs is None:
            n_jobs = self.default_n_jobs
        if n_jobs > 0:
            return n_jobs
        workers = self._client.api.get("/v1/workers")["workers"]
        slots = sum(worker["slots"] for worker in workers if not worker["draining"])
        return int(max(1, slots + 1 + n_jobs))

    def configure(self, n_jobs: int = 1, parallel: Any = None, **_: Any) -> int:
        """Begin to serve a `Parallel`; one job means that it runs in this process, as with joblib's own backends."""
        if n_jobs == 1:
            raise FallbackToBackend(SequentialBackend(nesting_level=self.nesting_level))
        self.parallel = parallel
        with self._lock:
            self._callbacks = ThreadPoolExecutor(1, thread_name_prefix="everfaas-joblib")
        return self.effective_n_jobs(n_jobs)

    def submit(self, func: Callable[[], Any], callback: Callable[[Any], object] | None = None) -> Future[Any]:
        """Call a batch on the fleet. `callback` is called with the future when it has ended, in a thread of ours."""
        future: Future[Any] = self._client.submit(operator.call, func)
        with self._lock:
            self._under_way.add(future)
        future.add_done_callback(lambda ended: self._ended(ended, callback))
        return future

    def retrieve_result_callback(self, out: Future[Any]) -> Any:
        """Return what a batch returned, or raise what it raised."""
        return out.result()

    def abort_everything(self, ensure_ready: bool = True) -> None:
        """Cancel what is under way, also what runs: nobody wants the results."""
        with self._lock:
            futures = list(self._under_way)
        with contextlib.suppress(ApiFailed):  # what made joblib give up is what the caller is to see
            self._client.cancel(futures)

    def terminate(self) -> None:
        """End the service to a `Parallel`; the client stays open."""
        with self._lock:
            callbacks, self._callbacks = self._callbacks, None
        if callbacks is not None:
            callbacks.shutdown(wait=False)
        self.reset_batch_stats()

    def get_nested_backend(self) -> tuple[Any, None]:
        """Return the backend for a `Parallel` within a call: a slot does one thing at a time."""
        return SequentialBackend(nesting_level=(self.nesting_level or 0) + 1), None

    def _ended(self, future: Any, callback: Callable[[Any], object] | None) -> None:
        """Have joblib told, in another thread: it takes a lock that a submit may hold while it waits for us to send."""
        with self._lock:
            self._under_way.discard(future)
            callbacks = self._callbacks
            if callback is not None and callbacks is not None:
                callbacks.submit(callback, future)
