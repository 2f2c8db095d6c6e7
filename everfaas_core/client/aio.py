"""`AsyncClient`: the client for programs that run in an event loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from types import ModuleType, TracebackType
from typing import Any, ParamSpec, Self, TypeVar, Unpack

from everfaas_core.client.client import Client
from everfaas_core.client.futures import Future
from everfaas_core.client.group import GroupTask
from everfaas_core.client.options import CallOptions
from everfaas_core.client.session import PATIENCE_S

P = ParamSpec("P")
T = TypeVar("T")

_OVER = object()


class AsyncClient:
    """Calls functions on the fleet without blocking the event loop.

        async with AsyncClient() as client:
            print(await client.call(pow, 2, 10))
            async for value in client.map(pow, range(5), [2] * 5): print(value)

    Futures are those of `Client`: `asyncio.gather(*futures)` and `asyncio.timeout` work on them.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        ship: Iterable[str | ModuleType] = (),
        patience_s: float = PATIENCE_S,
        **options: Unpack[CallOptions],
    ) -> None:
        """Make a client; as `Client`."""
        self.client = Client(url, ship=ship, patience_s=patience_s, **options)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def submit(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Call a function on the fleet; return a future, to be awaited."""
        return await asyncio.to_thread(self.client.submit, function, *args, **kwargs)

    async def call(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Call a function on the fleet, and wait for what it returns. Being cancelled cancels the task."""
        return await (await self.submit(function, *args, **kwargs))

    async def map(self, function: Callable[..., T], /, *iterables: Iterable[Any], **how: Any) -> AsyncIterator[T]:
        """Give the result for each item. `how`: as for `Client.map`."""
        results = await asyncio.to_thread(lambda: self.client.map(function, *iterables, **how))
        async for value in _each(results):
            yield value

    async def results(self, group: str, **how: Any) -> AsyncIterator[GroupTask]:
        """Give the tasks of a group as they end. `how`: as for `Group.results`."""
        async for task in _each(self.client.attach(group).results(**how)):
            yield task

    def options(self, **options: Unpack[CallOptions]) -> AsyncClient:
        """Return this client with further options for its calls."""
        other = object.__new__(type(self))
        other.client = self.client.options(**options)
        return other

    async def close(self) -> None:
        """Send what was not sent yet, and stop."""
        await asyncio.to_thread(self.client.close)


async def _each(items: Iterator[T]) -> AsyncIterator[T]:
    """Iterate in a thread; an iterator that is left early is closed, which cancels what is left."""
    try:
        while (item := await asyncio.to_thread(next, items, _OVER)) is not _OVER:
            yield item  # type: ignore[misc]  # it is not _OVER
    finally:
        close = getattr(items, "close", None)
        if close is not None:
            close()
