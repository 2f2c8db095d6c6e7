"""Results: written in the slot so that any client with `dill` can load them, and read by ours with more care.

A class or function of the client's is written as a call of `dill.loads` on bytes of its own. A client that has only
`dill` gets a copy of it that way. Ours sees the call coming, reads the mark at the head of those bytes, and takes the
client's own class instead; code of another minor version of Python it refuses to load.
"""

from __future__ import annotations

import importlib
import io
import pickle
import struct
import sys
from collections.abc import Callable
from types import FunctionType, ModuleType
from typing import Any, Final, NamedTuple

import dill
from cloudpickle import cloudpickle as inner

from everfaas_core.model.failure import as_failure
from everfaas_core.shipping.copies import copy_of, unimported
from everfaas_core.shipping.rebuild import SHIPPED, Modules, minor_version
from everfaas_core.shipping.trouble import ResultUnreadable

PROTOCOL: Final = 5
_MARK_HEAD: Final = pickle.PROTO + b"\x05" + pickle.BINUNICODE
_MARK_WORD: Final = "everfaas code"
MARK_BYTES_MAX: Final = 4096
_LOADS: Final = frozenset({("dill", "loads"), ("dill._dill", "loads")})
_CODE_MAKERS: Final = frozenset({"_create_code", "CodeType", "code"})
SMALL_BYTES: Final = 256  # results below this without a global in them are loaded the short way


# ── in the slot ──────────────────────────────────────────────────────────────────────────────────────────────────────


class Mark(NamedTuple):
    """What the head of a pickle with code in it says."""

    python: str  # minor version of Python whose bytecode it may hold
    track: str = ""  # for a class, the id that it has at the client
    module: str = ""
    qualname: str = ""


def mark(python: str, track: str = "", module: str = "", qualname: str = "") -> bytes:
    """Return the head of a pickle that holds code: a text that unpicklers push and drop again."""
    text = "\n".join((_MARK_WORD, python, track, module, qualname)).encode()
    return _MARK_HEAD + struct.pack("<I", len(text)) + text + pickle.POP


def read_mark(payload: bytes) -> Mark | None:
    """Return what the mark of a pickle says, or None if there is none."""
    at = len(_MARK_HEAD) + 4
    if not payload.startswith(_MARK_HEAD):
        return None
    (size,) = struct.unpack_from("<I", payload, at - 4)
    word, *said = payload[at : at + min(size, MARK_BYTES_MAX)].decode(errors="replace").split("\n")
    return Mark(*said) if word == _MARK_WORD and len(said) == 4 else None


class AnswerPickler(pickle.Pickler):
    """Writes a result of a function that came by value, whose `__main__` is `main`.

    `by_dill` writes one class or function with its code.
    """

    def __init__(self, file: io.BytesIO, main: ModuleType, by_dill: Callable[[Any], bytes]) -> None:
        super().__init__(file, protocol=PROTOCOL)
        self._by_dill = by_dill
        self._dull: set[type] = set()  # types whose instances pickle by themselves
        self._modules: Modules = main.__dict__[SHIPPED]

    def reducer_override(self, obj: Any) -> Any:
        """Say how to pickle an object; called by the pickler."""
        kind = type(obj)
        if kind in self._dull:
            return NotImplemented
        if kind is not FunctionType and not issubclass(kind, type):
            self._dull.add(kind)
            return NotImplemented
        if _importable(obj):
            return NotImplemented
        if kind is FunctionType:
            return dill.loads, (self._copy(obj),)
        copy = self._modules.copies.get(obj)
        if copy is None:
            track = inner._DYNAMIC_CLASS_TRACKER_BY_CLASS.get(obj, "")
            copy = self._modules.copies[obj] = self._copy(obj, track, obj.__module__, obj.__qualname__)
        return dill.loads, (copy,)

    def _copy(self, obj: Any, *names: str) -> bytes:
        with unimported(self._modules):
            copy = copy_of(obj, self._by_dill)
        return mark(minor_version(), *names) + copy


def _importable(obj: Any) -> bool:
    found: Any = sys.modules.get(getattr(obj, "__module__", None) or "builtins")
    if found is None or found.__name__ == "__main__":
        return False
    for part in obj.__qualname__.split("."):
        found = getattr(found, part, None)
    return found is obj or type(obj).__module__ == "types"


# ── at the client ────────────────────────────────────────────────────────────────────────────────────────────────────


class AnswerUnpickler(dill.Unpickler):  # type: ignore[misc] # dill has no types
    """Reads one result."""

    def __init__(self, payload: bytes) -> None:
        super().__init__(io.BytesIO(payload))
        said = read_mark(payload)
        self._python = None if said is None else said.python

    def find_class(self, module: str, name: str) -> Any:
        """Resolve a global of the stream; called by the unpickler."""
        if (module, name) in _LOADS:
            return open_marked
        if name in _CODE_MAKERS and self._python != minor_version():
            raise _foreign(self._python)
        return super().find_class(module, name)


def load_result(payload: bytes) -> Any:
    """Load a task's result, or the exception that it raised; a WorkerFailure comes as the subclass of its cause.

    Instances of the client's own classes come back as such. Raises ResultUnreadable when it can't be loaded here; code
    of another minor version of Python is never loaded.
    """
    try:
        if len(payload) < SMALL_BYTES and payload[:2] == b"\x80\x05" and pickle.STACK_GLOBAL not in payload:
            return pickle.loads(payload)  # noqa: S301 - nothing in it names anything
        return as_failure(AnswerUnpickler(payload).load())
    except ResultUnreadable:
        raise
    except ModuleNotFoundError as error:
        raise ResultUnreadable(
            f"the result needs the module {error.name!r}, which can't be imported here",
            hint="install it here as on the workers, or return plain data",
        ) from error
    except Exception as error:
        raise ResultUnreadable(
            f"the result can't be loaded here: {type(error).__name__}: {error}",
            hint="versions of packages may differ between here and the workers; return plain data if they have to",
        ) from error


def open_marked(data: bytes) -> Any:
    """Return the client's own class or function that marked bytes stand for; else make the copy that is in them."""
    said = read_mark(data)
    if said is None:
        raise _foreign(None)
    own = _own_class(said)
    if own is not None:
        return own
    return AnswerUnpickler(data).load()


def _own_class(said: Mark) -> Any:
    tracked = inner._DYNAMIC_CLASS_TRACKER_BY_ID.get(said.track) if said.track else None
    if tracked is not None or not said.module or "<locals>" in said.qualname:
        return tracked
    found: Any
    try:
        found = sys.modules.get(said.module) or importlib.import_module(said.module)
        for part in said.qualname.split("."):
            found = getattr(found, part)
    except Exception:  # noqa: BLE001 - a user's module can raise anything when it is imported
        return None
    return found if isinstance(found, type) else None


def _foreign(python: str | None) -> ResultUnreadable:
    of = f"Python {python}" if python else "an unknown version of Python"
    return ResultUnreadable(
        f"the result holds code of {of}, and this is {minor_version()}: loading it could crash the interpreter",
        hint="return plain data, or run the client with the workers' version of Python",
    )


def main_of(module: ModuleType) -> bool:
    """Tell whether a function's `__main__` is one that came by value, so that results are written by AnswerPickler."""
    return SHIPPED in module.__dict__
