"""`Executor`: a drop-in `concurrent.futures.Executor` whose processes are the fleet's slots."""

from __future__ import annotations

import concurrent.futures
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final, ParamSpec, TypeVar, Unpack

from everfaas_core.client.client import Client
from everfaas_core.client.errors import ClientClosed
from everfaas_core.client.futures import Future
from everfaas_core.client.options import CallOptions

P = ParamSpec("P")
T = TypeVar("T")

ALL_AT_ONCE: Final = 2**62  # `map` of the standard library submits everything before it returns


class Executor(concurrent.futures.Executor):
    """Runs calls on the fleet behind an API, where a `ProcessPoolExecutor` would run them on this machine.

        with Executor() as pool:
            print(list(pool.map(pow, range(5), [2] * 5)))

    The number of slots is the fleet's. Functions travel by value, so a script needs no `if __name__ == "__main__"`.
    """

    def __init__(self, url: str | None = None, *, client: Client | None = None, **options: Unpack[CallOptions]) -> None:
        """Make an executor on `client` (which stays open), or on a client of its own of the API at `url`."""
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
        return self._client.map(
            fn,
            *iterables,
            timeout=timeout,
            chunksize=chunksize,
            buffersize=ALL_AT_ONCE if buffersize is None else buffersize,
            watch=self._watched,
        )

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
