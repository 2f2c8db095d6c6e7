"""A recording of a terminal as a file: asciicast, version 2.

The first line is an object that describes the recording, each further line an event `[seconds, kind, text]`. Kinds:
`o` what the terminal was sent, `i` what was typed, `m` a mark. https://docs.asciinema.org/manual/asciicast/v2/
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass
class Cast:
    """A recording: its size in cells, the longest pause that is played, its events in order of time."""

    columns: int
    rows: int
    idle_s: float
    title: str
    events: list[tuple[float, str, str]] = field(default_factory=list)

    def write(self, path: Path) -> None:
        """Write it to a file."""
        head = {
            "version": 2,
            "width": self.columns,
            "height": self.rows,
            "idle_time_limit": self.idle_s,
            "title": self.title,
        }
        lines: list[Any] = [head, *([round(at_s, 3), kind, text] for at_s, kind, text in self.events)]
        path.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), encoding="utf-8")

    @classmethod
    def read(cls, path: Path) -> Cast:
        """Read a file. Raises ValueError if it is no cast of version 2."""
        head, *lines = path.read_text(encoding="utf-8").splitlines()
        about = json.loads(head)
        if about.get("version") != 2:
            raise ValueError(f"{path} is no asciicast of version 2")
        events = [(float(at_s), str(kind), str(text)) for at_s, kind, text in map(json.loads, lines)]
        return cls(about["width"], about["height"], about["idle_time_limit"], about.get("title", ""), events)

    def played(self) -> Iterator[tuple[float, str, str]]:
        """Yield the events at the times at which they are played: no pause is longer than `idle_s`."""
        before_s = at_s = 0.0
        for real_s, kind, text in self.events:
            at_s += min(real_s - before_s, self.idle_s)
            before_s = real_s
            yield at_s, kind, text
