"""The calls of one map: handed over as their results are taken, so that inputs without end fit into memory."""

from __future__ import annotations

import collections
import itertools
import queue
import time
from collections.abc import Callable, Generator, Iterator
from typing import Any, Final

from everfaas_core.client.calls import Call
from everfaas_core.client.futures import Future
from everfaas_core.client.session import Session

MAP_BUFFER: Final = 10_000
"""Tasks of a `map` that are under way, or whose results wait to be taken, unless `buffersize` says otherwise."""

NUMBER_TAG: Final = "map:"
CHUNK_TAG: Final = "chunk:"
"""Before the number of a call, or chunk of calls, within its map: a tag of a task that others can find by its group."""

LOT: Final = 500  # calls that are handed over together


class Flow:
    """Gives the futures of calls that are done: in the order of the calls, or of their ends. Used by one thread."""

    def __init__(
        self,
        session: Session,
        function_id: str,
        fields: dict[str, Any],
        calls: Iterator[tuple[Any, ...]],
        buffer: int,
        *,
        ordered: bool,
        chunked: bool = False,
        watch: Callable[[Future[Any]], object] | None = None,
    ) -> None:
        self._session = session
        self._function_id = function_id
        self._key = fields.get("idempotency_key")
        if self._key is not None:  # begun again, it finds the same tasks: by the same group
            self._fields = fields = {"group": self._key, **fields}
        self._named = self._key is not None or "group" in fields  # others may want to know which call is which
        self._fields = fields
        self._calls = calls
        self._tag = CHUNK_TAG if chunked else NUMBER_TAG
        self._watch = watch
        self._numbers = itertools.count()
        self._buffer = buffer
        self._lot = max(1, min(LOT, buffer // 2))
        self._exhausted = False
        self._queue: collections.deque[Future[Any]] = collections.deque()  # ordered
        self._open: set[Future[Any]] = set()  # not ordered
        self._arrived: queue.SimpleQueue[Future[Any]] | None = None if ordered else queue.SimpleQueue()

    def fill(self) -> None:
        """Hand over as many calls as there is room for, in lots."""
        while not self._exhausted and self._buffer - self._under_way() >= self._lot:
            calls = [self._call(args) for args in itertools.islice(self._calls, self._lot)]
            self._exhausted = len(calls) < self._lot
            if calls:
                self._session.send(calls)
                self._note([call.future for call in calls])

    def futures(self, deadline: float | None) -> Generator[Future[Any], None, None]:
        """Give futures that are done. At the end, however it comes, those that were not taken are cancelled.

        Raises TimeoutError when the next one is not done at `deadline` (monotonic seconds).
        """
        try:
            while self._under_way():
                yield self._next(deadline)
                self.fill()
        finally:
            left = [future for future in (*self._queue, *self._open) if not future.done()]
            if left:
                self._session.cancel_soon(left)

    def _call(self, args: tuple[Any, ...]) -> Call:
        fields = self._fields
        if self._named:
            number = next(self._numbers)
            fields = {**fields, "tags": (*fields.get("tags", ()), f"{self._tag}{number}")}
            if self._key is not None:
                fields["idempotency_key"] = f"{self._key}/{number}"
        return self._session.call(self._function_id, self._session.shipper.pack_call(args, {}), fields)

    def _under_way(self) -> int:
        return len(self._queue) + len(self._open)

    def _note(self, futures: list[Future[Any]]) -> None:
        if self._watch is not None:
            for future in futures:
                self._watch(future)
        if self._arrived is None:
            self._queue.extend(futures)
            return
        self._open.update(futures)
        for future in futures:
            future.add_done_callback(self._arrived.put)  # type: ignore[arg-type]  # it gives the future itself

    def _next(self, deadline: float | None) -> Future[Any]:
        left_s = None if deadline is None else max(0.0, deadline - time.monotonic())
        if self._arrived is None:
            self._queue[0].exception(left_s)
            return self._queue.popleft()
        try:
            future = self._arrived.get(timeout=left_s)
        except queue.Empty:
            raise TimeoutError from None
        self._open.remove(future)
        return future
