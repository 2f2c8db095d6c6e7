"""Functions' code as this dispatcher has it at hand, bounded in bytes; the store has all of it."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from typing import Final

from everfaas_core.model.ids import FunctionId
from everfaas_core.model.records import FunctionRecord
from everfaas_core.wire.messages import FunctionItem

CACHE_BYTES_MAX: Final = 128 * 1024 * 1024


class Codebook:
    """A cache by function id, the one used longest ago leaving first. The newest stays whatever its size."""

    def __init__(self, cache_bytes_max: int = CACHE_BYTES_MAX) -> None:
        self._max = cache_bytes_max
        self._items: OrderedDict[FunctionId, FunctionItem] = OrderedDict()
        self._gone: set[FunctionId] = set()  # asked for, and not in the store: it was flushed
        self._size_bytes = 0

    def missing(self, functions: Iterable[FunctionId]) -> set[FunctionId]:
        """Return those that have to be fetched."""
        return {function_id for function_id in functions if function_id not in self._items}

    def put(self, function_id: FunctionId, record: FunctionRecord | None) -> None:
        """Keep a function that was fetched; None: the store does not know it."""
        if record is None:
            self._gone.add(function_id)
            return
        self._gone.discard(function_id)
        old = self._items.pop(function_id, None)
        item = FunctionItem(function_id, record.name, record.payload, record.options.python)
        self._size_bytes += len(item.payload) - (0 if old is None else len(old.payload))
        self._items[function_id] = item
        while self._size_bytes > self._max and len(self._items) > 1:
            _, dropped = self._items.popitem(last=False)
            self._size_bytes -= len(dropped.payload)

    def item(self, function_id: FunctionId) -> FunctionItem | None:
        """Return a function's code; empty if the store has it no longer; None if it has to be fetched (again)."""
        item = self._items.get(function_id)
        if item is not None:
            self._items.move_to_end(function_id)
            return item
        if function_id in self._gone:
            self._gone.discard(function_id)
            return FunctionItem(function_id, "", b"")
        return None
