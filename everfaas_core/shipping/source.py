"""Source of functions: found at the client, compiled where the bytecode is of another minor version of Python.

A unit is one statement of a file's top level, whole: compiling it makes the codes of all functions in it, closures and
methods included, with nothing executed. A function's code is found in it by name, line and order.
"""

from __future__ import annotations
import __future__

import ast
import linecache
import os
from collections.abc import Iterator
from types import CodeType
from typing import Any, Final, NamedTuple

from everfaas_core.shipping.trouble import ForeignCode

UNIT_BYTES_MAX: Final = 128 * 1024  # a longer statement does not travel as source
FILES_MAX: Final = 1000  # whose lines tracebacks know; then all are forgotten
NESTED: Final = 0x10  # a flag of inner functions, which a feature of old shares
FUTURES: Final = sum({getattr(__future__, name).compiler_flag for name in __future__.all_feature_names} - {NESTED})


class Unit:
    """The text of one statement and where it stood. Compiled at most once."""

    def __init__(self, filename: str, line: int, text: str, futures: int) -> None:
        self.filename = filename
        self.line = line
        self.text = text
        self.futures = futures
        self._compiled: CodeType | None = None

    def codes(self, name: str, line: int) -> list[CodeType]:
        """Return the codes of this name that begin on this line. Raises SyntaxError, ValueError."""
        if self._compiled is None:
            # Blank lines in front, so that tracebacks show the lines of the file.
            padded = "\n" * (self.line - 1) + self.text
            self._compiled = compile(padded, self.filename, "exec", self.futures, dont_inherit=True)
        return [one for one in nested(self._compiled) if one.co_name == name and one.co_firstlineno == line]

    def remember(self) -> None:
        """Let tracebacks show these lines, unless the file is here."""
        if os.path.exists(self.filename):
            return
        if len(linecache.cache) > FILES_MAX:
            linecache.clearcache()
        _, _, lines, _ = linecache.cache.get(self.filename) or (0, None, [], "")  # type: ignore[misc] # never lazy here
        end = self.line - 1 + self.text.count("\n") + 1
        lines = [*lines, *["\n"] * (end - len(lines))]
        lines[self.line - 1 : end] = self.text.splitlines(keepends=True)
        linecache.cache[self.filename] = (len(lines), None, lines, self.filename)  # None: never checked against a file


class LibraryFile:
    """A file of the standard library, in which another Python finds a function by its qualified name."""

    def __init__(self, path: str) -> None:
        self.path = path

    def codes(self, name: str, line: int) -> list[CodeType]:
        """Return the codes of this qualified name in this Python's own library. Raises ValueError, SyntaxError."""
        filename = os.path.join(os.path.dirname(os.__file__), self.path)
        try:
            with open(filename, encoding="utf-8") as file:
                compiled = compile(file.read(), filename, "exec", dont_inherit=True)
        except OSError as error:
            raise ValueError(str(error)) from None
        return [one for one in nested(compiled) if one.co_qualname == name]


class Place(NamedTuple):
    """Where a function's code is in a unit: among `of` of this name and line, the `nth` from 0."""

    unit: Unit | LibraryFile
    name: str
    line: int
    nth: int
    of: int

    def compile(self) -> CodeType:
        """Make the code by this Python. Raises ForeignCode."""
        try:
            codes = self.unit.codes(self.name, self.line)
        except (SyntaxError, ValueError) as error:
            raise ForeignCode(f"its source does not compile here ({error})") from None
        if len(codes) != self.of:
            raise ForeignCode(f"its source has {len(codes)} functions {self.name!r} here and {self.of} there")
        return codes[self.nth]


class _File:
    """A file as it is now: where the statements of its top level are, and its functions as this Python compiles them.

    Whole files are compiled, for the compiler of 3.12 writes other bytecode for names that the file imports.
    """

    def __init__(self, filename: str, lines: list[str]) -> None:
        """Raises SyntaxError, ValueError or RecursionError if it is no plain Python."""
        self.lines = lines
        tree = ast.parse("".join(lines), filename)
        self.spans = [_span(node) for node in tree.body]
        self.codes: dict[tuple[str, int], list[CodeType]] = {}
        for code in nested(compile(tree, filename, "exec", dont_inherit=True)):
            self.codes.setdefault((code.co_name, code.co_firstlineno), []).append(code)


class SourceFinder:
    """Finds places at the client. Reads and compiles each file once; not thread-safe."""

    def __init__(self) -> None:
        self._files: dict[str, _File | None] = {}
        self._lines: dict[str, list[str]] = {}
        self._units: dict[tuple[str, int, int], Unit] = {}
        self._library = os.path.dirname(os.__file__) + os.sep

    def place(self, code: CodeType, namespace: dict[str, Any]) -> Place | str:
        """Return where a code's source is, or in plain words why there is none."""
        filename, line = code.co_filename, code.co_firstlineno
        if filename.startswith(self._library) and "-packages" + os.sep not in filename:
            return Place(LibraryFile(filename[len(self._library) :]), code.co_qualname, 0, 0, 1)
        lines = linecache.getlines(filename, namespace)
        if not lines:
            return _absence(filename)
        file = self._file(filename, lines)
        if file is None:
            return f"the source in {filename} is not plain Python"
        codes = file.codes.get((code.co_name, line), ())
        nth = next((nth for nth, one in enumerate(codes) if _same(one, code)), None)
        if nth is None:
            return f"{filename} was changed after it was loaded, or a tool has rewritten the code"
        unit = self._unit(filename, file, line, code.co_flags & FUTURES)
        if unit is None:
            return f"the statement around line {line} of {filename} is longer than {UNIT_BYTES_MAX} bytes"
        return Place(unit, code.co_name, line, nth, len(codes))

    def _unit(self, filename: str, file: _File, line: int, futures: int) -> Unit | None:
        start, end = next(span for span in file.spans if span[0] <= line <= span[1])
        text = "".join(file.lines[start - 1 : end])
        unit = self._units.get((filename, start, futures))
        if unit is None or unit.text != text:
            if len(text) > UNIT_BYTES_MAX:
                return None
            unit = self._units[filename, start, futures] = Unit(filename, start, text, futures)
        return unit

    def _file(self, filename: str, lines: list[str]) -> _File | None:
        if self._lines.get(filename) is not lines:
            self._lines[filename] = lines
            try:
                self._files[filename] = _File(filename, lines)
            except (SyntaxError, ValueError, RecursionError):
                self._files[filename] = None
        return self._files[filename]


def _span(node: ast.stmt) -> tuple[int, int]:
    first = min([node.lineno, *(one.lineno for one in getattr(node, "decorator_list", ()))])
    return first, node.end_lineno or node.lineno


def _absence(filename: str) -> str:
    if filename == "<stdin>":
        return "it was typed at a prompt that keeps no source (Python 3.13's does, and IPython's)"
    if filename == "<string>":
        return "it was made by exec or eval, which keep no source"
    return f"its source {filename} is not there"


def nested(code: CodeType) -> Iterator[CodeType]:
    """Yield all codes inside of a code, outer ones first, in the order of the source."""
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield constant
            yield from nested(constant)


def _same(one: CodeType, other: CodeType) -> bool:
    """Tell whether two codes of this Python do the same."""
    return (
        one.co_code == other.co_code
        and one.co_names == other.co_names
        and one.co_freevars == other.co_freevars
        and len(one.co_consts) == len(other.co_consts)
        and all(
            _same(a, b) if isinstance(a, CodeType) and isinstance(b, CodeType) else a == b or repr(a) == repr(b)
            for a, b in zip(one.co_consts, other.co_consts, strict=True)
        )
    )
