"""The code of functions in the worker, from which its slots are fed."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Iterable
from typing import Final

from everfaas_core.model.ids import FunctionId
from everfaas_core.wire.messages import FunctionItem

CODES_MAX: Final = 10_000
CODES_BYTES_MAX: Final = 256 * 1024 * 1024
"""Beyond either mark, what was used longest ago and no task waits for is dropped; it is asked for again when needed."""


class CodeCache:
    """Functions by id, those used last at the end."""

    def __init__(self, count_max: int = CODES_MAX, bytes_max: int = CODES_BYTES_MAX) -> None:
        self._items: OrderedDict[FunctionId, FunctionItem] = OrderedDict()
        self._bytes = 0
        self._count_max = count_max
        self._bytes_max = bytes_max

    def put(self, items: Iterable[FunctionItem]) -> None:
        """Take code in."""
        for item in items:
            old = self._items.pop(item.function_id, None)
            self._bytes += len(item.payload) - (0 if old is None else len(old.payload))
            self._items[item.function_id] = item

    def get(self, function_id: FunctionId) -> FunctionItem:
        """Return code that is there. Raises KeyError if it is not."""
        self._items.move_to_end(function_id)
        return self._items[function_id]

    @property
    def full(self) -> bool:
        """Whether `trim` has something to do."""
        return len(self._items) > self._count_max or self._bytes > self._bytes_max

    def trim(self, in_use: Collection[FunctionId]) -> tuple[FunctionId, ...]:
        """Drop what is too much and not in use; return what was dropped."""
        dropped: list[FunctionId] = []
        for function_id in list(self._items):
            if not self.full:
                break
            if function_id not in in_use:
                self._bytes -= len(self._items.pop(function_id).payload)
                dropped.append(function_id)
        return tuple(dropped)
