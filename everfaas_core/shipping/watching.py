"""Knowing that a function is as it was when it was packed, without packing it again.

While a function is packed, everything that it refers to is written down here: by name, for names can be bound anew.
That holds good if what they are bound to can't change itself: numbers, texts, functions, classes, modules. With
anything else (a list, an instance) the packing is not steady, and is made each time.
"""

from __future__ import annotations

import enum
import functools
from collections.abc import Iterable, Mapping
from types import BuiltinFunctionType, CellType, FunctionType, GetSetDescriptorType, MemberDescriptorType, ModuleType
from typing import Any, Final

_MISSING: Final = object()
_EMPTY: Final = object()
_FIXED: Final = frozenset(
    {int, float, complex, bool, str, bytes, type(None), type(...), range}
    | {FunctionType, BuiltinFunctionType, ModuleType, MemberDescriptorType, GetSetDescriptorType}
    | {type(functools.lru_cache(repr))}  # as for functions, what it is made of is watched where it is packed
)
TUPLE_MAX: Final = 32  # a longer tuple is not looked through


class Watch:
    """What one packing referred to."""

    def __init__(self) -> None:
        self.steady = True
        self._names: list[tuple[Mapping[str, Any], str, Any]] = []
        self._cells: list[tuple[CellType, Any]] = []
        self._functions: list[tuple[FunctionType, Any, Any, Any, int]] = []
        self._sizes: list[tuple[Mapping[str, Any], int]] = []

    def names(self, where: Mapping[str, Any], names: Iterable[str]) -> None:
        """Watch variables, those that are not there yet as well."""
        for name in names:
            value = where.get(name, _MISSING)
            self._names.append((where, name, value))
            self._look(value)

    def class_(self, cls: type) -> None:
        """Watch what a class holds. What classes have under reserved names is taken not to change in itself."""
        where = vars(cls)
        self._sizes.append((where, len(where)))
        for name, value in where.items():
            self._names.append((where, name, value))
            if not (name.startswith("__") and name.endswith("__")):
                self._look(value)

    def function(self, function: FunctionType, *, look: bool = True) -> None:
        """Watch what a function is made of, but its globals.

        `look`: whether its defaults and what it closes over have to be steady.
        """
        self._functions.append(
            (function, function.__code__, function.__defaults__, function.__kwdefaults__, len(function.__dict__))
        )
        if look:
            self._look(function.__defaults__)
        if function.__kwdefaults__ is not None:
            self.names(function.__kwdefaults__, function.__kwdefaults__)
        if function.__dict__:
            self.names(function.__dict__, function.__dict__)
        for cell in function.__closure__ or ():
            value = _content(cell)
            self._cells.append((cell, value))
            if look:
                self._look(value)

    def holds(self) -> bool:
        """Tell whether nothing has changed since."""
        return (
            self.steady
            and all(where.get(name, _MISSING) is value for where, name, value in self._names)
            and all(_content(cell) is value for cell, value in self._cells)
            and all(
                function.__code__ is code
                and function.__defaults__ is defaults
                and function.__kwdefaults__ is kwdefaults
                and len(function.__dict__) == size
                for function, code, defaults, kwdefaults, size in self._functions
            )
            and all(len(where) == size for where, size in self._sizes)
        )

    def _look(self, value: Any) -> None:
        self.steady = self.steady and _is_fixed(value)


def _content(cell: CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:
        return _EMPTY


def _is_fixed(value: Any) -> bool:
    kind = type(value)
    if kind in _FIXED or value is _MISSING or value is _EMPTY or isinstance(value, (type, enum.Enum)):
        return True
    if kind in (classmethod, staticmethod):
        return _is_fixed(value.__func__)
    if kind is functools.cached_property:
        return _is_fixed(value.func)
    if kind is property:
        return all(_is_fixed(one) for one in (value.fget, value.fset, value.fdel))
    return kind in (tuple, frozenset) and len(value) <= TUPLE_MAX and all(_is_fixed(one) for one in value)
