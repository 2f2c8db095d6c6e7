"""What makes a function pack the same in each run of its program, so that it is one function in the store."""

from __future__ import annotations

import hashlib
import pickle
from typing import Any, Final

from cloudpickle import cloudpickle as inner

SETS: Final = (set, frozenset)
SORTABLE: Final = (str, bytes, int, float, bool, type(None))


def class_id(cls: type) -> str:
    """Return the id by which a class of this process is known where it travels to, and when instances come back.

    Its name, and a number where this process has had several of that name (a notebook's cell that was run again): ids
    are compared within one function's payload and its calls, and payloads of the same bytes hold the same classes.
    """
    with inner._DYNAMIC_CLASS_TRACKER_LOCK:
        known = inner._DYNAMIC_CLASS_TRACKER_BY_CLASS.get(cls)
        if known is None:
            number = 1
            while (known := _hashed(cls, number)) in inner._DYNAMIC_CLASS_TRACKER_BY_ID:
                number += 1
            inner._DYNAMIC_CLASS_TRACKER_BY_CLASS[cls] = known
            inner._DYNAMIC_CLASS_TRACKER_BY_ID[known] = cls
        return str(known)


def _hashed(cls: type, number: int) -> str:
    return hashlib.sha256(f"{cls.__module__}\0{cls.__qualname__}\0{number}".encode()).hexdigest()[:32]


class Sorted:
    """Pickles as a set, its items in an order that does not depend on the interpreter's seed for hashes."""

    def __init__(self, items: set[Any] | frozenset[Any]) -> None:
        self._items = items

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self._items), (sorted(self._items, key=lambda item: (type(item).__name__, item)),)


class Sets:
    """Gives the sets of namespaces an order while one stream is packed."""

    def __init__(self) -> None:
        self._sorted: dict[int, tuple[Sorted, object]] = {}

    def ordered(self, variables: dict[str, Any]) -> dict[str, Any]:
        """Return a copy of a namespace in which sets of texts and numbers pickle the same in each run."""
        found = {name: self._of(value) for name, value in variables.items() if type(value) in SETS and is_plain(value)}
        return {**variables, **found} if found else variables

    def are_elsewhere(self, pickler: pickle.Pickler) -> bool:
        """Tell whether a pickler has also packed one of them as itself: it would be two where it was one."""
        return bool(self._sorted) and not self._sorted.keys().isdisjoint(pickler.memo.copy())

    def _of(self, value: Any) -> Sorted:
        known = self._sorted.get(id(value))
        if known is None:
            known = self._sorted[id(value)] = (Sorted(value), value)
        return known[0]


def is_plain(value: Any) -> bool:
    """Tell whether a set holds only what can be put in order."""
    return all(type(item) in SORTABLE for item in value)
