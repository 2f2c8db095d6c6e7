"""Copies of the client's classes and functions for clients that have only `dill`, written in the slot.

`dill` writes most of them, code included. What it can't, an enum or a class that refers to what does not pickle, is
written as a class that holds the same data.
"""

from __future__ import annotations

import collections
import contextlib
import enum
import pickle
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator
from types import ModuleType
from typing import Any, Final

import dill

PROTOCOL: Final = 5


class _Made:
    """Pickles as a call."""

    def __init__(self, make: Callable[..., Any], *arguments: Any) -> None:
        self._call = make, arguments

    def __reduce__(self) -> tuple[Any, ...]:
        return self._call


@contextlib.contextmanager
def unimported(names: Iterable[str]) -> Iterator[None]:
    """Keep dill from importing modules in which it looks for what it pickles: they are the client's, and came by value.

    A module of the same name that the worker has must not be run for that.
    """
    hidden = [name for name in names if name not in sys.modules]
    sys.modules.update({name: ModuleType(name) for name in hidden})
    try:
        yield
    finally:
        for name in hidden:
            sys.modules.pop(name, None)


def copy_of(obj: Any, by_dill: Callable[[Any], bytes]) -> bytes:
    """Write a class or function so that plain `dill` loads it. Raises PicklingError for a function that can't be."""
    if isinstance(obj, enum.EnumType):
        base: type = next(kind for kind in obj.__mro__ if kind.__module__ == "enum")
        members: list[tuple[str, Any]] = [(name, obj.__members__[name].value) for name in obj.__members__]
        return pickle.dumps(_Made(base, obj.__name__, members), PROTOCOL)
    if isinstance(obj, type) and tuple in obj.__bases__ and hasattr(obj, "_fields"):
        return pickle.dumps(_Made(collections.namedtuple, obj.__name__, obj._fields), PROTOCOL)
    try:
        with warnings.catch_warnings(action="ignore"):  # dill tells of what it tries next
            copy = by_dill(obj)
            dill.loads(copy)  # noqa: S301 - not all that it writes loads
            return copy
    except Exception as error:  # noqa: BLE001 - what a class refers to may be anything
        if not isinstance(obj, type):
            raise pickle.PicklingError(f"the function {obj.__qualname__!r} can't be sent back: {error}") from None
    bases = tuple(base for base in obj.__mro__[1:] if base.__module__ == "builtins")[:1]
    names = {"__module__": obj.__module__, "__qualname__": obj.__qualname__, "__doc__": obj.__doc__}
    return pickle.dumps(_Made(type, obj.__name__, bases, names), PROTOCOL)
