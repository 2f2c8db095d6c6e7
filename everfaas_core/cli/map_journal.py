"""The files of `everfaas map --out FILE`: results in FILE, and in FILE.map what `--resume` needs to go on.

Both only grow, by whole lines; whatever kills the process, at most the last line is torn, and it is cut off. A result
is written before the cursor behind it is, so after a kill it may come once more, and is known then: nothing is lost,
nothing is there twice. See docs/decisions/0017-map-is-resumed-by-keys.md.
"""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Final

from everfaas_core.model.errors import ConfigError

SUFFIX: Final = ".map"
HAS_RESULT: Final = frozenset({"COMPLETED", "FAILED"})


class OutTrouble(ConfigError):
    """The file of results can't be used as asked: the user's to decide. Exit status 2."""

    code = "out_trouble"


class Flags:
    """A set of small numbers, a byte each."""

    def __init__(self) -> None:
        self._bytes = bytearray()
        self.count = 0

    def __contains__(self, number: int) -> bool:
        return number < len(self._bytes) and bool(self._bytes[number])

    def add(self, number: int) -> bool:
        """Add a number; return False if it was there."""
        if number in self:
            return False
        if number >= len(self._bytes):
            self._bytes.extend(bytes(number + 1 - len(self._bytes) + 4096))
        self._bytes[number] = 1
        self.count += 1
        return True


class Journal:
    """What a map has done. Without `out`, nothing is written, and nothing can be resumed.

    `about` marks the work: a file of other inputs, or of another function, is not gone on with.
    """

    def __init__(self, out: Path | None, about: Mapping[str, Any], *, resume: bool) -> None:
        """Begin, or with `resume` go on if there is something to go on with. Raises OutTrouble."""
        self.run = uuid.uuid4().hex[:12]
        self.done = Flags()
        self.failed = 0
        self.times: dict[int, int] = {}  # how often an input's task was cancelled: its next one has another key
        self.waiting: dict[str, int] = {}  # task → input, of tasks that were submitted and have no result yet
        self.cursor: str | None = None
        self.resumed = False
        self._about = dict(about)
        self._out: BinaryIO | None = None
        self._state: BinaryIO | None = None
        if out is None:
            return
        if out.exists() and not out.is_file():
            raise OutTrouble(f"{out} is no file", hint="name a file that can be gone on with: --out FILE")
        state = out.with_name(out.name + SUFFIX)
        try:
            if out.exists() and not resume:
                raise OutTrouble(
                    f"{out} is there already", hint="--resume goes on with it; or name another file, or remove it"
                )
            if resume and (out.exists() or state.exists()):
                self._recall(out, state)
            self._out = open(out, "ab", buffering=0)  # noqa: SIM115 - `close` does
            self._state = open(state, "ab", buffering=0)  # noqa: SIM115 - `close` does
        except OSError as error:
            raise OutTrouble(f"{error.filename} can't be used: {error.strerror}") from None
        if not self.resumed:
            self._note({"run": self.run, **self._about})

    def key(self, index: int) -> str:
        """Return what makes the submit of an input one that can be repeated, by us or by whoever goes on after us."""
        return f"{self.run}/{index}/{self.times.get(index, 0)}"

    def sent(self, indexes: Sequence[int], task_ids: Sequence[str]) -> None:
        """Note that these inputs are these tasks."""
        self._note({"at": list(indexes), "ids": list(task_ids)})

    def ended(self, lines: Iterable[Mapping[str, Any]], cancelled: Sequence[int], cursor: str | None) -> None:
        """Write results, then note what was cancelled and how far the stream of results was read."""
        if self._out is not None:
            data = b"".join(json.dumps(line).encode() + b"\n" for line in lines)
            if data:
                _write(self._out, data)
        noted: dict[str, Any] = {}
        if cancelled:
            noted["cancelled"] = list(cancelled)
            for index in cancelled:
                self.times[index] = self.times.get(index, 0) + 1
        if cursor is not None and cursor != self.cursor:
            noted["cursor"] = self.cursor = cursor
        if noted:
            self._note(noted)

    def close(self) -> None:
        """Close the files. Idempotent."""
        for file in (self._out, self._state):
            if file is not None:
                file.close()

    def _note(self, entry: Mapping[str, Any]) -> None:
        if self._state is not None:
            _write(self._state, json.dumps(entry, separators=(",", ":")).encode() + b"\n")

    # ── going on ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def _recall(self, out: Path, state: Path) -> None:
        for line in _whole_lines(out):
            index, status = line.get("index"), line.get("status")
            if not isinstance(index, int) or index < 0 or status not in HAS_RESULT:
                raise OutTrouble(f"{out} holds something else than results of a map", hint="name another file: --out")
            self.failed += self.done.add(index) and status == "FAILED"
        entries = iter(_whole_lines(state))
        head = next(entries, None)
        if head is None:
            if self.done.count:
                raise OutTrouble(
                    f"{state}, which belongs to {out}, is gone: nobody knows which inputs these are results of",
                    hint="name another file: --out",
                )
            return
        for name, value in self._about.items():
            if head.get(name) != value:
                raise OutTrouble(
                    f"{out} has results of other work: {name} was {head.get(name)!r}, and is {value!r}",
                    hint="name another file: --out; or give the same inputs and function to go on",
                )
        self.run, self.resumed = head["run"], True
        for entry in entries:
            self._replay(entry)

    def _replay(self, entry: Mapping[str, Any]) -> None:
        for index, task_id in zip(entry.get("at", ()), entry.get("ids", ()), strict=True):
            if index not in self.done:
                self.waiting[task_id] = index
        cancelled = set(entry.get("cancelled", ()))
        if cancelled:
            for index in cancelled:
                self.times[index] = self.times.get(index, 0) + 1
            self.waiting = {task: index for task, index in self.waiting.items() if index not in cancelled}
        self.cursor = entry.get("cursor", self.cursor)


def _write(file: BinaryIO, data: bytes) -> None:
    """Write all of it. Raises OutTrouble when the disk is full, or the like."""
    view = memoryview(data)
    try:
        while view:
            view = view[file.write(view) :]
    except OSError as error:
        raise OutTrouble(f"{file.name} can't be written: {error.strerror}", hint="make room, and --resume") from None


def _whole_lines(path: Path) -> Iterable[dict[str, Any]]:
    """Yield the objects in a file of lines; cut off a last line that is torn. Raises OutTrouble."""
    if not path.exists():
        return
    end = 0
    with open(path, "rb") as file:
        for line in file:
            if not line.endswith(b"\n"):
                break
            end += len(line)
            try:
                found = json.loads(line)
            except ValueError:
                found = None
            if not isinstance(found, dict):
                raise OutTrouble(f"{path} holds something else than results of a map", hint="name another file: --out")
            yield found
    if end < path.stat().st_size:
        os.truncate(path, end)
