"""Code shipping: a stand-in, until the branch `shipping` is merged."""

from __future__ import annotations

import pickle
import sys
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import dill


class PackedFunction(NamedTuple):
    name: str
    payload: bytes
    python: str | None
    warnings: tuple[str, ...]


class Shipper:
    def __init__(self, ship: Iterable[Any] = ()) -> None:
        pass

    def pack_function(self, function: Callable[..., Any]) -> PackedFunction:
        plain: Any = getattr(function, "__wrapped__", function) if hasattr(function, "everfaas_options") else function
        try:
            payload = pickle.dumps(plain)
        except Exception:  # noqa: BLE001 - by value then
            payload = b"__main__"
        if b"__main__" in payload:
            payload = dill.dumps(plain, recurse=True)
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        return PackedFunction(getattr(plain, "__name__", "function"), payload, version, ())

    def pack_call(self, args: Any, kwargs: Any) -> bytes:
        return pickle.dumps((args, kwargs))


def load_result(payload: bytes) -> Any:
    return dill.loads(payload)  # noqa: S301 - what the user's own function returned
