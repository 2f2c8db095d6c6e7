"""`Executor`: a drop-in `concurrent.futures.Executor` whose processes are the fleet's slots."""

from __future__ import annotations

import concurrent.futures
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final, ParamSpec, TypeVar, Unpack

from everfaas_core.client.chunks import Chunked, chunks, unpacked
from everfaas_core.client.client import Client
from everfaas_core.client.errors import ClientClosed
from everfaas_core.client.futures import Future
from everfaas_core.client.options import CallOptions

P = ParamSpec("P")
T = TypeVar("T")

OF_A_POOL: Final = frozenset(
    {"initargs", "initializer", "max_tasks_per_child", "max_workers", "mp_context", "thread_name_prefix"}
)
"""What other executors take, and this one has no use for."""


class Executor(concurrent.futures.Executor):
    """Runs calls on the fleet behind an API, where a `ProcessPoolExecutor` would run them on this machine.

        with Executor() as pool:
            print(list(pool.map(pow, range(5), [2] * 5)))

    The number of slots is the fleet's. Functions travel by value, so a script needs no `if __name__ == "__main__"`.
    """

    def __init__(self, url: str | None = None, *, client: Client | None = None, **options: Unpack[CallOptions]) -> None:
        """Make an executor on `client` (which stays open), or on a client of its own of the API at `url`.

        Raises TypeError for an option that does not exist, ConfigError for what is no address.
        """
        if foreign := OF_A_POOL.intersection(options):
            raise TypeError(f"there is no {' and no '.join(sorted(foreign))} here: the processes are the fleet's slots")
        if isinstance(url, int):  # as in ProcessPoolExecutor(4)
            raise TypeError("the first argument is the API's address: how many slots there are is the fleet's business")
        if client is not None and url is not None:
            raise ValueError("give an address or a client, not both")
        self._own = client is None
        base = Client(url) if client is None else client
        self._client = base.options(**options)
        self._lock = threading.Lock()
        self._futures: set[concurrent.futures.Future[Any]] = set()
        self._shut = False

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Call a function on the fleet; return the future of what it returns. See `Client.submit`."""
        self._check()
        return self._watched(self._client.submit(fn, *args, **kwargs))

    def map(
        self,
        fn: Callable[..., T],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int = 1,
        buffersize: int | None = None,
    ) -> Iterator[T]:
        """Return an iterator of the results, in order; all calls are submitted at once, or `buffersize` ahead."""
        self._check()
        if chunksize < 1:
            raise ValueError("chunksize must be >= 1.")
        if buffersize is not None:
            return self._client.map(fn, *iterables, timeout=timeout, chunksize=chunksize, buffersize=buffersize)
        deadline = None if timeout is None else time.monotonic() + timeout
        futures: list[Future[Any]]
        if chunksize == 1:
            futures = self._client.submit_each(fn, *iterables)
        else:
            calls: Iterator[Any] = zip(*iterables, strict=False)
            futures = self._client.submit_each(Chunked(fn), chunks(calls, chunksize))
        for future in futures:
            self._watched(future)
        return self._results(futures, deadline, chunked=chunksize > 1)

    def _results(self, futures: list[Future[Any]], deadline: float | None, *, chunked: bool) -> Iterator[Any]:
        """Give what the calls of these futures returned; what is not taken at the end is cancelled."""
        futures.reverse()
        try:
            while futures:
                futures[-1].result(None if deadline is None else max(0.0, deadline - time.monotonic()))
                if chunked:
                    yield from unpacked(futures.pop().result())
                else:
                    yield futures.pop().result()  # and nothing that was given is kept: it may be large
        finally:
            left = [future for future in futures if not future.done()]
            if left:
                self._client.cancel_soon(left)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more calls; cancel those that have not begun (`cancel_futures`), wait for the others (`wait`)."""
        with self._lock:
            self._shut = True
            futures: list[Any] = list(self._futures)
        if cancel_futures and futures:
            self._client.cancel(futures, running=False)
        if wait:
            concurrent.futures.wait(futures)
        if self._own:
            if wait or not futures:
                self._client.close()
            else:
                threading.Thread(target=self._close_later, args=(futures,), name="everfaas-close", daemon=True).start()

    def _close_later(self, futures: list[Future[Any]]) -> None:
        concurrent.futures.wait(futures)
        self._client.close()

    def _check(self) -> None:
        with self._lock:
            if self._shut:
                raise ClientClosed("cannot schedule new futures after shutdown")

    def _watched(self, future: Future[T]) -> Future[T]:
        with self._lock:
            self._futures.add(future)
        future.add_done_callback(self._forget)
        return future

    def _forget(self, future: concurrent.futures.Future[Any]) -> None:
        with self._lock:
            self._futures.discard(future)
