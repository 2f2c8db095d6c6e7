"""The inputs of `everfaas map`: one call for each line, read as it is needed."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import sys
from collections.abc import Iterator
from typing import IO, Any, Final

from msgspec import Struct

from everfaas_core.cli.targets import literal
from everfaas_core.model.errors import ConfigError

STDIN: Final = "-"
FORMS: Final = ("lines", "jsonl", "csv")

Call = tuple[tuple[Any, ...], dict[str, Any]]


class BadInput(ConfigError):
    """An input can't be read: the user's to mend. Exit status 2."""

    code = "bad_input"


class Survey(Struct, frozen=True):
    """What a look through a file has found: how many inputs it has, and what marks its content."""

    total: int
    digest: str


class Inputs:
    """The calls of a file, or of stdin (`-`). A blank line is no input; inputs are numbered from 0.

    `lines`: a Python literal or a text, the one argument. `jsonl`: a JSON value, the one argument. `csv`: the first
    line has names, each further one is a call with keyword arguments. `star` spreads: a list is all the positional
    arguments, a dict all the keyword arguments.
    """

    def __init__(self, path: str, form: str, *, star: bool) -> None:
        self.path = path
        self.name = "stdin" if path == STDIN else path
        self.form = form
        self.star = star

    @property
    def again(self) -> bool:
        """Whether it can be read more than once."""
        return self.path != STDIN and os.path.isfile(self.path)

    def survey(self) -> Survey | None:
        """Look through the whole file: nothing is begun when a line at its end is bad. None if it is read only once.

        Raises BadInput.
        """
        if not self.again:
            return None
        digest = hashlib.sha256()
        with self._open() as file:
            for block in iter(lambda: file.buffer.read(1 << 20), b""):
                digest.update(block)
        with self._open() as file:
            if self.form == "lines" and not self.star:  # every line is an input, whatever is in it
                total = sum(1 for _ in self._lines(file))
            else:
                total = sum(1 for _ in self._calls(file))
        return Survey(total, digest.hexdigest())

    def __iter__(self) -> Iterator[Call]:
        """Yield positional and keyword arguments. Raises BadInput."""
        if self.path == STDIN:
            yield from self._calls(io.TextIOWrapper(sys.stdin.buffer, encoding="utf-8", newline=""))
            return
        with self._open() as file:
            yield from self._calls(file)

    def _open(self) -> io.TextIOWrapper:
        try:
            return open(self.path, encoding="utf-8", newline="")
        except OSError as error:
            raise BadInput(
                f"the inputs can't be read: {self.path}: {error.strerror}", hint="name a file, or - for stdin: --over"
            ) from None

    def _calls(self, file: IO[str]) -> Iterator[Call]:
        if self.form == "csv":
            yield from self._rows(file)
            return
        for number, line in self._lines(file):
            yield self._call(line.rstrip("\r\n"), number)

    def _lines(self, file: IO[str]) -> Iterator[tuple[int, str]]:
        """Yield the lines that are not blank, with their numbers from 1. Raises BadInput for what is no text."""
        number = 0
        try:
            for number, line in enumerate(file, 1):
                if not line.isspace():
                    yield number, line
        except UnicodeDecodeError as error:
            raise BadInput(f"{self.name} is not UTF-8 behind line {number}: {error.reason}") from None

    def _call(self, line: str, number: int) -> Call:
        if self.form == "jsonl":
            try:
                value = json.loads(line)
            except ValueError as error:
                raise BadInput(
                    f"{self.name}, line {number} is no JSON: {error}", hint="one JSON value a line"
                ) from None
        else:
            value = literal(line)
        if not self.star:
            return (value,), {}
        if isinstance(value, dict) and all(isinstance(name, str) for name in value):
            return (), value
        if isinstance(value, (list, tuple)):
            return tuple(value), {}
        raise BadInput(
            f"{self.name}, line {number} can't be spread: it is a {type(value).__name__}",
            hint="with --star, each input is a list (positional arguments) or a dict (keyword arguments)",
        )

    def _rows(self, file: IO[str]) -> Iterator[Call]:
        rows = csv.reader((line for _, line in self._lines(file)), strict=True)
        try:
            names = next(rows, [])
            for name in names:
                if not name.isidentifier():
                    raise BadInput(
                        f"{self.name}: {name!r} is no name of an argument",
                        hint="the first line of a CSV file names the arguments",
                    )
            for row in rows:
                if not row:
                    continue
                if len(row) != len(names):
                    raise BadInput(f"{self.name}, line {rows.line_num} has {len(row)} values for {len(names)} names")
                yield (), dict(zip(names, map(literal, row), strict=True))
        except csv.Error as error:
            raise BadInput(f"{self.name}, line {rows.line_num} is no CSV: {error}") from None
