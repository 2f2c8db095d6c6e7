"""The client's end: packing functions and calls, or saying why they do not travel."""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable, Collection, Iterable, Mapping
from types import ModuleType
from typing import Any, Final, NamedTuple

from everfaas_core.shipping.envelope import CALL_HEAD, FUNCTION_HEAD, Envelope, packer, seal
from everfaas_core.shipping.explain import Call, explain
from everfaas_core.shipping.identity import Sets
from everfaas_core.shipping.origin import Origins
from everfaas_core.shipping.pickler import PROTOCOL, Traces, ValuePickler
from everfaas_core.shipping.reading import Book
from everfaas_core.shipping.rebuild import minor_version
from everfaas_core.shipping.source import SourceFinder
from everfaas_core.shipping.trouble import NotShippable
from everfaas_core.shipping.watching import Watch

LARGE_BYTES: Final = 1024 * 1024
"""A function that is larger than this carries data, which is worth a warning."""

KEPT_MAX: Final = 512  # packings that are kept; then all are forgotten and made again
KEPT_BYTES_MAX: Final = 64 * 1024
NAMED: Final = pickle.STACK_GLOBAL + pickle.MEMOIZE
"""What pickle writes for each class or function: if it is not there, there is none."""

_PLAIN: Final = frozenset({int, str, float, bool, bytes, type(None)})
_LISTS: Final = frozenset({list, tuple, set, frozenset})
LOOK_MAX: Final = 4  # levels of lists in lists that are looked into


class PackedFunction(NamedTuple):
    """A function ready to be registered. Equal payloads are the same function: nothing that it uses has changed."""

    name: str
    payload: bytes
    python: str | None  # the minor version whose bytecode it holds; None if it holds none
    warnings: tuple[str, ...]
    classes: frozenset[str] = frozenset()  # ids of the classes that it brings; a call need not bring them again


class Shipper:
    """Packs for one client. Thread-safe.

    Packing says at once what would not travel. It takes the function as it is now, with the globals that it uses: to
    run what the user sees, pack before each submission, and compare payloads. That takes some 50 µs, and 3 µs when
    nothing has changed and nothing that the function refers to can change in itself (`watching`).
    """

    def __init__(self, ship: Iterable[str | ModuleType] = ()) -> None:
        """`ship`: packages that travel by value although they are installed. Raises NotShippable if one is unknown."""
        self._origins = Origins(ship)
        self._book = Book(SourceFinder())
        self._kept: dict[int, tuple[Callable[..., Any], Watch, PackedFunction]] = {}
        self._python = minor_version()
        self._packer = packer()

    def pack_function(self, function: Callable[..., Any]) -> PackedFunction:
        """Pack a callable. Raises NotShippable, which says what does not travel and where it hangs."""
        kept = self._kept.get(id(function))
        if kept is not None and kept[0] is function and kept[1].holds():
            return kept[2]
        if not callable(function):
            raise NotShippable(f"{function!r:.80} can't be called", hint="submit a function, then its arguments")
        packed, traces = self._pack_function(function)
        if traces.watch.steady and len(packed.payload) <= KEPT_BYTES_MAX:
            if len(self._kept) >= KEPT_MAX:
                self._kept.clear()
            self._kept[id(function)] = function, traces.watch, packed
        return packed

    def _pack_function(self, function: Callable[..., Any]) -> tuple[PackedFunction, Traces]:
        name = function_name(function)
        packed, traces = self._pack(function, f"function {name!r}")
        if not traces.by_value:
            return PackedFunction(name, packed, None, tuple(traces.warnings)), traces
        if len(packed) > LARGE_BYTES:
            size = f"{len(packed) / LARGE_BYTES:.1f}"
            traces.warnings[f"function {name!r} carries {size} MiB with it: data is better passed as an argument"] = (
                None
            )
        payload = seal(FUNCTION_HEAD, Envelope(self._python, self._packer, name, packed))
        warnings, classes = tuple(traces.warnings), frozenset(traces.classes)
        return PackedFunction(name, payload, self._python, warnings, classes), traces

    def pack_call(
        self, args: tuple[Any, ...], kwargs: Mapping[str, Any], function: PackedFunction | None = None
    ) -> bytes:
        """Pack a call's arguments. Raises NotShippable.

        `function`: what is called; classes that it brings are then not sent with each call as well.
        """
        if all(map(_looks_plain, args)) and all(map(_looks_plain, kwargs.values())):
            try:
                packed = pickle.dumps((args, dict(kwargs)), PROTOCOL)
            except Exception:  # noqa: BLE001 - in a list there can be anything; below it is found and named
                packed = NAMED
            if NAMED not in packed:  # it names no class and no function, so there is none to send
                return packed
        packed, traces = self._pack((args, dict(kwargs)), "the arguments", () if function is None else function.classes)
        if not traces.by_value:
            return packed
        return seal(CALL_HEAD, Envelope(self._python, self._packer, "", packed))

    def _pack(self, thing: Any, what: str, known: Collection[str] = ()) -> tuple[bytes, Traces]:
        sets: Sets | None = Sets()
        while True:
            file = io.BytesIO()
            pickler = ValuePickler(file, self._origins, self._book, known, sets)
            try:
                pickler.dump(thing)
            except Exception as error:
                raise explain(Call(*thing) if type(thing) is tuple else thing, what, error, self._packs) from error
            if sets is None or not sets.are_elsewhere(pickler):
                return file.getvalue(), pickler.traces
            sets = None  # they are packed as they are

    def _packs(self, thing: Any) -> Exception | None:
        """Return why a thing does not pack, or None."""
        try:
            ValuePickler(io.BytesIO(), self._origins, self._book).dump(thing)
        except Exception as error:  # noqa: BLE001 - as above
            return error
        return None


def function_name(function: Callable[..., Any]) -> str:
    """Return a callable's name for people."""
    while not hasattr(function, "__name__") and hasattr(function, "func"):  # functools.partial
        function = function.func
    return str(getattr(function, "__name__", None) or type(function).__name__)


def _looks_plain(value: Any) -> bool:
    """Tell whether an argument is probably plain data, by the first item of each list in it.

    It need not be true; but an array in a list should not be pickled twice to find out that it is none.
    """
    for _ in range(LOOK_MAX):
        kind = type(value)
        if kind in _PLAIN:
            return True
        if kind not in _LISTS and kind is not dict:
            return False
        if not value:
            return True
        value = next(iter(value.values() if kind is dict else value))
    return True
