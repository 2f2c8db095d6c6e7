"""The calls of one map: handed over as their results are taken, so that inputs without end fit into memory."""

from __future__ import annotations

import collections
import itertools
from collections.abc import Generator, Iterator
from typing import Any, Final

from everfaas_core.client.calls import Call
from everfaas_core.client.session import Session
from everfaas_core.client.slips import Desk, Slip

MAP_BUFFER: Final = 10_000
"""Tasks of a `map` that are under way, or whose results wait to be taken, unless `buffersize` says otherwise."""

NUMBER_TAG: Final = "map:"
CHUNK_TAG: Final = "chunk:"
"""Before the number of a call, or chunk of calls, within its map: a tag of a task that others can find by its group."""

LOT: Final = 500  # calls that are handed over together


Results = Generator[tuple[bool, Any], None, None]
"""Whether each call failed, and its value or exception."""


class Flow:
    """Gives what calls returned, or raised: in the order of the calls, or of their ends. Used by one thread."""

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
    ) -> None:
        self._session = session
        self._function_id = function_id
        self._fields = fields
        self._tag = CHUNK_TAG if chunked else NUMBER_TAG
        self._calls = calls
        self._numbers = itertools.count()
        self._buffer = buffer
        self._lot = max(1, min(LOT, buffer // 2))
        self._exhausted = False
        self._desk = Desk(ordered=ordered)
        self._queue: collections.deque[Slip] = collections.deque()  # ordered
        self._open: set[Slip] | None = None if ordered else set()

    def fill(self) -> None:
        """Hand over as many calls as there is room for, in lots."""
        while not self._exhausted and self._buffer - self._under_way() >= self._lot:
            calls = [self._call(args) for args in itertools.islice(self._calls, self._lot)]
            self._exhausted = len(calls) < self._lot
            if calls:
                self._session.send([call for call, _ in calls])
                (self._queue.extend if self._open is None else self._open.update)(slip for _, slip in calls)

    def results(self, deadline: float | None) -> Results:
        """Give whether a call failed, and its value or exception. What is not taken at the end is cancelled.

        Raises TimeoutError when the next one is not done at `deadline` (monotonic seconds).
        """
        try:
            while self._under_way():
                slip = self._next(deadline)
                if slip.error is not None:
                    yield True, slip.error
                else:
                    assert slip.answer is not None
                    yield self._session.opened(*slip.answer)
                self.fill()
        finally:
            left = [slip for slip in (*self._queue, *(self._open or ())) if not slip.done()]
            if left:
                self._session.cancel_soon(left)

    def _call(self, args: tuple[Any, ...]) -> tuple[Call, Slip]:
        fields = numbered(self._fields, next(self._numbers), self._tag)
        payload = self._session.shipper.pack_call(args, {}, self._session.packed(self._function_id))
        slip = Slip(self._desk)
        return self._session.call(slip, self._function_id, payload, fields), slip

    def _under_way(self) -> int:
        return len(self._queue) if self._open is None else len(self._open)

    def _next(self, deadline: float | None) -> Slip:
        if self._open is None:
            self._desk.wait_for(self._queue[0], deadline)
            return self._queue.popleft()
        slip = self._desk.next(deadline)
        self._open.remove(slip)
        return slip


def numbered(fields: dict[str, Any], number: int, tag: str = NUMBER_TAG) -> dict[str, Any]:
    """Return the fields of one of many calls: its number is in its key, and among its tags if others can find it."""
    if "group" not in fields and "idempotency_key" not in fields:
        return fields
    # A map with a key that is begun again finds the same tasks, and gets their results from the same group.
    fields = {"group": fields.get("idempotency_key"), **fields, "tags": (*fields.get("tags", ()), f"{tag}{number}")}
    if "idempotency_key" in fields:
        fields["idempotency_key"] = f"{fields['idempotency_key']}/{number}"
    return fields
