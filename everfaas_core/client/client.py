"""`Client`: call functions on the fleet from Python."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from types import ModuleType, TracebackType
from typing import Any, ParamSpec, Self, TypeVar, Unpack

from everfaas_core.client.calls import Call
from everfaas_core.client.chunks import Chunked, Raised, chunks
from everfaas_core.client.flow import MAP_BUFFER, Flow, Results, numbered
from everfaas_core.client.futures import Future
from everfaas_core.client.group import Group
from everfaas_core.client.http import Api
from everfaas_core.client.options import CallOptions, checked, item_fields
from everfaas_core.client.session import PATIENCE_S, Session

P = ParamSpec("P")
T = TypeVar("T")


class Client:
    """Calls functions on the fleet behind an API.

        client = Client()                        # http://127.0.0.1:8000, or EVERFAAS_URL
        client.submit(pow, 2, 10).result()       # 1024
        list(client.map(pow, range(5), [2] * 5)) # [0, 1, 4, 9, 16]

    Nothing is connected before the first call. Any thread may use a client; a context manager closes it at its end.
    Functions travel by value (docs/shipping.md). Calls that were accepted are run whatever becomes of the client.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        ship: Iterable[str | ModuleType] = (),
        patience_s: float = PATIENCE_S,
        **options: Unpack[CallOptions],
    ) -> None:
        """Make a client of the API at `url`. Raises ConfigError for what is no address, TypeError for a bad option.

        `ship`: packages that travel by value though they are installed here. `patience_s`: how long an API may be out
        of reach before calls fail with ApiUnreachable. `options`: for all calls.
        """
        self._session = Session(url, ship, patience_s)
        self._options = checked(options)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<everfaas client of {self.url}>"

    @property
    def url(self) -> str:
        """The API's address."""
        return self._session.api.url

    @property
    def api(self) -> Api:
        """The exchange with the API itself, for calls that have no method here: `client.api.get("/v1/workers")`."""
        return self._session.api

    # ── calls ────────────────────────────────────────────────────────────────────────────────────────────────────────

    def submit(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Call a function on the fleet; return the future of what it returns.

        Raises NotShippable when the function or an argument will not travel, ApiFailed when the function can't be
        registered. What is wrong with the call itself is the future's outcome.
        """
        function_id, fields = self._prepared(function)
        future: Future[T] = Future(self._session)
        payload = self._session.shipper.pack_call(args, kwargs, self._session.packed(function_id))
        call = self._session.call(future, function_id, payload, fields)
        call.asked_by_id = call.keyed
        self._session.send([call])
        return future

    def submit_each(self, function: Callable[..., T], /, *iterables: Iterable[Any]) -> list[Future[T]]:
        """Call a function for each item of the iterables; return the futures, in order. See `submit`."""
        function_id, fields = self._prepared(function)
        session = self._session
        packed = session.packed(function_id)
        futures: list[Future[T]] = []
        calls: list[Call] = []
        for number, args in enumerate(zip(*iterables, strict=False)):
            futures.append(Future(session))
            payload = session.shipper.pack_call(args, {}, packed)
            calls.append(session.call(futures[-1], function_id, payload, numbered(fields, number)))
        session.send(calls)
        return futures

    def map(
        self,
        function: Callable[..., T],
        /,
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int = 1,
        buffersize: int | None = None,
        ordered: bool = True,
        return_exceptions: bool = False,
    ) -> Iterator[T]:
        """Call a function for each item of the iterables, as the built-in `map` does; return an iterator of results.

        The calls begin at once, and at most `buffersize` of them (MAP_BUFFER) are under way or wait to be taken, so
        that inputs without end fit into memory. `chunksize` calls make one task. `ordered=False`: as they come.
        What a call raises is raised by `next`; that ends the iteration, and cancels the calls whose results were not
        taken. With `return_exceptions` it is given instead. Raises
        TimeoutError when a result is not there `timeout` seconds after now.
        """
        if chunksize < 1:
            raise ValueError("chunksize must be >= 1.")
        if buffersize is not None and not isinstance(buffersize, int):
            raise TypeError("buffersize must be an integer or None")
        if buffersize is not None and buffersize < 1:
            raise ValueError("buffersize must be None or > 0")
        deadline = None if timeout is None else time.monotonic() + timeout
        calls: Iterator[tuple[Any, ...]] = zip(*iterables, strict=False)
        called: Callable[..., Any] = function
        buffer = buffersize or MAP_BUFFER
        if chunksize > 1:
            calls = ((chunk,) for chunk in chunks(calls, chunksize))
            called = Chunked(function)
            buffer = max(1, buffer // chunksize)
        function_id, fields = self._prepared(called, function)
        flow = Flow(self._session, function_id, fields, calls, buffer, ordered=ordered, chunked=chunksize > 1)
        flow.fill()
        return _values(flow.results(deadline), chunked=chunksize > 1, return_exceptions=return_exceptions)

    def options(self, **options: Unpack[CallOptions]) -> Client:
        """Return this client with further options for its calls: `client.options(timeout_s=30, priority=9).submit(f)`.

        Raises TypeError for an option that does not exist. What the options may be, the API checks with the first call.
        """
        other = object.__new__(type(self))
        other._session = self._session
        other._options = {**self._options, **checked(options)}
        return other

    def cancel(self, futures: Iterable[Future[Any]], *, running: bool = True) -> None:
        """Cancel many tasks at once; those that run, too, unless `running` is False. Raises ApiFailed.

        What runs becomes CANCELLED a moment later; `concurrent.futures.wait` waits for it.
        """
        self._session.cancel_many(futures, running=running)

    def cancel_soon(self, futures: Iterable[Future[Any]]) -> None:
        """The same in the background; nobody hears of a failure."""
        self._session.cancel_soon(list(futures))

    def attach(self, group: str) -> Group:
        """Return the tasks of a group, whoever submitted them: `client.options(group="sweep").map(…)` did.

        For results that are still there, or still to come, after the client that wanted them has died.
        """
        return Group(self._session.api, group, self._session.opened)

    def register(self, function: Callable[..., Any]) -> str:
        """Register a function, and return its id. Raises NotShippable or ApiFailed."""
        return self._prepared(function)[0]

    def flush(self, timeout: float | None = None) -> bool:
        """Wait until all calls so far have been accepted by the API, or refused; False: not after `timeout` seconds."""
        return self._session.flush(timeout)

    def close(self) -> None:
        """Send what was not sent yet, and stop. Tasks go on; futures that have no outcome get none. Idempotent."""
        self._session.close()

    # ── inside ───────────────────────────────────────────────────────────────────────────────────────────────────────

    def _prepared(
        self, function: Callable[..., Any], shown: Callable[..., Any] | None = None
    ) -> tuple[str, dict[str, Any]]:
        """Register a function; return its id and the fields of its tasks."""
        own = getattr(shown or function, "everfaas_options", {})
        options = {**self._options, **own}
        packed = self._session.shipper.pack_function(function)
        return self._session.register(packed, options.get("name")), item_fields(options)


def _values(results: Results, *, chunked: bool, return_exceptions: bool) -> Iterator[Any]:
    """Give what calls returned, and raise, or give, what they raised."""
    try:
        while (found := next(results, None)) is not None:
            failed, value = found
            values = [Raised(value)] if failed else list(reversed(value)) if chunked else [value]
            del found, value  # nothing that was given is kept: it may be large
            while values:
                if not isinstance(values[-1], Raised):
                    yield values.pop()
                elif return_exceptions:
                    yield values.pop().error
                else:
                    raise values.pop().error
    finally:
        results.close()  # cancels what is left
