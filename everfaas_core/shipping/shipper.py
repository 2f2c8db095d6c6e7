"""The client's end: packing functions and calls, or saying why they do not travel."""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable, Iterable, Mapping
from types import ModuleType
from typing import Any, Final, NamedTuple

from everfaas_core.shipping.envelope import CALL_HEAD, FUNCTION_HEAD, Envelope, packer, seal
from everfaas_core.shipping.explain import Call, explain
from everfaas_core.shipping.origin import Origins
from everfaas_core.shipping.pickler import PROTOCOL, Traces, ValuePickler
from everfaas_core.shipping.reading import Book
from everfaas_core.shipping.rebuild import minor_version
from everfaas_core.shipping.source import SourceFinder

LARGE_BYTES: Final = 1024 * 1024
"""A function that is larger than this carries data, which is worth a warning."""

_PLAIN: Final = frozenset({int, str, float, bool, bytes, type(None), list, tuple, dict, set})


class PackedFunction(NamedTuple):
    """A function ready to be registered. Equal payloads are the same function: nothing that it uses has changed."""

    name: str
    payload: bytes
    python: str | None  # the minor version whose bytecode it holds; None if it holds none
    warnings: tuple[str, ...]


class Shipper:
    """Packs for one client. Thread-safe.

    Packing says at once what would not travel. It takes some 50 µs and reads the function as it is now, with the
    globals that it uses: to run what the user sees, pack before each submission and compare payloads.
    """

    def __init__(self, ship: Iterable[str | ModuleType] = ()) -> None:
        """`ship`: packages that travel by value although they are installed. Raises NotShippable if one is unknown."""
        self._origins = Origins(ship)
        self._book = Book(SourceFinder())
        self._python = minor_version()
        self._packer = packer()

    def pack_function(self, function: Callable[..., Any]) -> PackedFunction:
        """Pack a callable. Raises NotShippable, which says what does not travel and where it hangs."""
        name = function_name(function)
        packed, traces = self._pack(function, f"function {name!r}")
        if not traces.by_value:
            return PackedFunction(name, packed, None, tuple(traces.warnings))
        if len(packed) > LARGE_BYTES:
            size = f"{len(packed) / LARGE_BYTES:.1f}"
            traces.warnings[f"function {name!r} carries {size} MiB with it: data is better passed as an argument"] = (
                None
            )
        payload = seal(FUNCTION_HEAD, Envelope(self._python, self._packer, name, packed))
        return PackedFunction(name, payload, self._python, tuple(traces.warnings))

    def pack_call(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bytes:
        """Pack a call's arguments. Raises NotShippable."""
        if all(type(one) in _PLAIN for one in args) and all(type(one) in _PLAIN for one in kwargs.values()):
            try:
                packed = pickle.dumps((args, dict(kwargs)), PROTOCOL)
            except Exception:  # noqa: BLE001 - in a list there can be anything; below it is found and named
                packed = pickle.STACK_GLOBAL
            if pickle.STACK_GLOBAL not in packed:  # it names no class and no function, so there is none to send
                return packed
        packed, traces = self._pack((args, dict(kwargs)), "the arguments")
        if not traces.by_value:
            return packed
        return seal(CALL_HEAD, Envelope(self._python, self._packer, "", packed))

    def _pack(self, thing: Any, what: str) -> tuple[bytes, Traces]:
        file = io.BytesIO()
        pickler = ValuePickler(file, self._origins, self._book)
        try:
            pickler.dump(thing)
        except Exception as error:
            raise explain(Call(*thing) if type(thing) is tuple else thing, what, error, self._packs) from error
        return file.getvalue(), pickler.traces

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
