"""What a function's code refers to, read off its bytecode; and the book in which that is kept."""

from __future__ import annotations

import dis
import io
import re
import threading
from collections import OrderedDict
from collections.abc import Mapping
from types import CodeType, FunctionType
from typing import Any, Final, NamedTuple

import cloudpickle
from cloudpickle import cloudpickle as inner

from everfaas_core.shipping.identity import Sorted, is_plain
from everfaas_core.shipping.source import Place, SourceFinder, nested

GLOBAL_OPS: Final = frozenset(
    {"LOAD_GLOBAL", "STORE_GLOBAL", "DELETE_GLOBAL", "LOAD_NAME", "LOAD_FROM_DICT_OR_GLOBALS"}
)
ATTRIBUTE_OPS: Final = frozenset({"LOAD_ATTR", "LOAD_METHOD", "STORE_ATTR"})
_NAME: Final = re.compile(r"[A-Za-z_]\w*")
BOOK_MAX: Final = 4096  # codes whose facts are kept; beyond it the one used longest ago is read again


class Import(NamedTuple):
    """An import statement inside of a function."""

    name: str
    names: tuple[str, ...]  # after `from … import`
    level: int  # dots


class Facts(NamedTuple):
    """What is known of one code object, nested functions included."""

    code: CodeType
    globals: tuple[str, ...]  # names that may be globals, in the order of their use
    names: frozenset[str]  # all names, attributes too
    bare: frozenset[str]  # names of variables that are used otherwise than for an attribute of theirs
    imports: tuple[Import, ...]
    bytecode: bytes  # pickled, for this minor version of Python only
    place: Place | str  # its source, or why there is none


class Book:
    """Facts of codes by identity, at most BOOK_MAX. Thread-safe."""

    def __init__(self, sources: SourceFinder) -> None:
        self._sources = sources
        self._facts: OrderedDict[int, Facts] = OrderedDict()  # Facts hold the code, so an id is not used again
        self._lock = threading.Lock()

    def facts(self, code: CodeType, namespace: dict[str, Any]) -> Facts:
        """Return what is known of a function's code. `namespace`: its globals, which know how to find the source."""
        with self._lock:
            facts = self._facts.get(id(code))
            if facts is None:
                facts = self._facts[id(code)] = self._read(code, namespace)
                if len(self._facts) > BOOK_MAX:
                    self._facts.popitem(last=False)
            return facts

    def _read(self, code: CodeType, namespace: dict[str, Any]) -> Facts:
        found: dict[str, None] = {}
        names: set[str] = set()
        bare: set[str] = set()
        imports: list[Import] = []
        for one in (code, *nested(code)):
            names.update(one.co_names)
            _read_one(one, found, bare, imports)
        place = self._sources.place(code, namespace)
        return Facts(code, tuple(found), frozenset(names), frozenset(bare), tuple(imports), _pickled(code), place)


class _CodePickler(cloudpickle.Pickler):  # type: ignore[misc] # cloudpickle has no types
    """Pickles code with the name of its file, which tracebacks show: cloudpickle leaves it out from 3.1.3 on.

    Constant sets get an order, so that the code pickles the same in each run.
    """

    def reducer_override(self, obj: Any) -> Any:
        if type(obj) is not CodeType:
            return super().reducer_override(obj)
        make, arguments = inner._code_reduce(obj)
        constants = tuple(Sorted(one) if type(one) is frozenset and is_plain(one) else one for one in obj.co_consts)
        replaced = {"<dynamic-code>": "".join(obj.co_filename)}
        return make, tuple(
            constants if one is obj.co_consts else replaced.get(one, one) if type(one) is str else one
            for one in arguments
        )


def _pickled(code: CodeType) -> bytes:
    file = io.BytesIO()
    _CodePickler(file).dump(code)
    return file.getvalue()


def annotations_of(function: FunctionType) -> dict[str, Any]:
    """Return a function's annotations; none if they can't be had."""
    try:
        return function.__annotations__
    except Exception:  # noqa: BLE001 - from 3.14 on they are code, which may name what is not there
        return {}


def names_in(annotations: Mapping[str, Any]) -> list[str]:
    """Return the names in annotations that are text."""
    texts = [one for one in annotations.values() if type(one) is str]
    return sorted(set(_NAME.findall(" ".join(texts)))) if texts else []


def _read_one(code: CodeType, found: dict[str, None], bare: set[str], imports: list[Import]) -> None:
    previous: list[dis.Instruction] = []
    variable: str | None = None
    for step in dis.get_instructions(code):
        if variable is not None and step.opname not in ATTRIBUTE_OPS and step.opname != "PRECALL":
            bare.add(variable)
        variable = None
        if step.opname in GLOBAL_OPS:
            found[step.argval] = None
        if step.opname in ("LOAD_GLOBAL", "LOAD_DEREF"):
            variable = step.argval
        elif step.opname == "IMPORT_NAME":
            level, names = (one.argval for one in previous[-2:])
            imports.append(Import(step.argval, tuple(names or ()), level))
        previous = [*previous[-1:], step]
