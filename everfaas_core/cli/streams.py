"""What a task writes, as it comes: its stdout to ours, its stderr to ours."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final, TextIO

from everfaas_core.cli.outcomes import RETRY_S, Patience
from everfaas_core.cli.shown import shown, size

if TYPE_CHECKING:
    from everfaas_core.client.http import Api

REOPENED: Final = frozenset({"time", "drain", "limit"})
"""Ends of a stream behind which there may be more: another one goes on there."""

_COLOUR: Final = re.compile(r"(\x1b\[[0-9;:]{0,40}m)")
_BEGUN: Final = re.compile(r"\x1b(\[[0-9;:]{0,40})?\Z")
_RESET: Final = "\x1b[0m"
_KEPT: Final = frozenset("\n\t\r\b")


def pieces(api: Api, task_id: str, *, follow: bool, attempt: int | None = None) -> Iterator[dict[str, Any]]:
    """Yield what a task has written, `{stream, text, attempt, at_ms, cursor}`, and with `follow` what it will write.

    Goes on behind the last piece when the API was away for a while. Raises ApiFailed.
    """
    from everfaas_core.client.errors import ApiFailed, ApiUnreachable

    cursor: str | None = None
    patient = Patience()
    while True:
        query = {"follow": follow, "cursor": cursor, "attempt": attempt}
        opened = patient(lambda: api.stream(f"/v1/tasks/{task_id}/logs", query))  # noqa: B023 - called at once
        try:
            with opened as stream:
                for piece in stream:
                    if piece is None:
                        continue
                    cursor = piece.get("cursor", cursor)
                    if "end" not in piece:
                        yield piece
                    elif piece["end"] == "error":
                        raise ApiFailed("the API can't read the rest of the log", hint="its own log says why")
                    elif piece["end"] in REOPENED and follow:
                        break
                    else:
                        return
        except ApiUnreachable:  # cut in the middle; opening it again tells whether somebody is there
            time.sleep(RETRY_S)


class Terminal:
    """Writes pieces to stdout and stderr. Where a person looks, a task can colour its text and nothing else."""

    def __init__(self, out: TextIO | None = None, err: TextIO | None = None, *, times: bool = False) -> None:
        self._files = {"stdout": out or sys.stdout, "stderr": err or sys.stderr}
        self._rest = {"stdout": "", "stderr": ""}
        self._in_line = {"stdout": False, "stderr": False}
        self._coloured = {"stdout": False, "stderr": False}
        self._times = times
        self._attempt = 1

    def write(self, piece: dict[str, Any]) -> None:
        """Write one piece at once."""
        name = "stderr" if piece["stream"] == "stderr" else "stdout"
        file = self._files[name]
        if piece.get("attempt", 1) > self._attempt:
            self._attempt = piece["attempt"]
            self._note(f"[attempt {self._attempt}]")
        if piece.get("left_out_bytes"):
            self._note(f"[{size(piece['left_out_bytes'])} of its output were not kept]")
        text = piece["text"]
        if isinstance(text, bytes):
            text = text.decode(errors="replace")
        if file.isatty():
            text = self._tamed(name, text)
        if self._times:
            text = self._stamped(name, text, piece.get("at_ms"))
        if text:
            self._in_line[name] = not text.endswith("\n")
            file.write(text)
            file.flush()

    def close(self) -> None:
        """End colours, and a line that was begun, so that what comes next begins one of its own."""
        for name, file in self._files.items():
            if file.isatty():
                end = (_RESET if self._coloured[name] else "") + ("\n" if self._in_line[name] else "")
                if end:
                    file.write(end)
                    file.flush()
                    self._in_line[name] = self._coloured[name] = False

    def _note(self, text: str) -> None:
        """Say on stderr what no task has written."""
        self.close()
        self._files["stderr"].write(text + "\n")
        self._files["stderr"].flush()

    def _tamed(self, name: str, text: str) -> str:
        text = self._rest[name] + text
        begun = _BEGUN.search(text)
        self._rest[name] = begun[0] if begun else ""
        if begun:
            text = text[: begun.start()]
        parts = _COLOUR.split(text)
        self._coloured[name] = self._coloured[name] or len(parts) > 1
        return "".join(part if number % 2 else _plain(part) for number, part in enumerate(parts))

    def _stamped(self, name: str, text: str, at_ms: float | None) -> str:
        clock = "" if at_ms is None else time.strftime("%H:%M:%S ", time.localtime(at_ms / 1000))
        lines = text.splitlines(keepends=True)
        return "".join(
            line if number == 0 and self._in_line[name] else clock + line for number, line in enumerate(lines)
        )


def _plain(text: str) -> str:
    return "".join(one if one in _KEPT else shown(one) for one in text) if not text.isprintable() else text
