"""What happened, as a digest of everything and, on request, as lines for a reader."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any, Final

BATCH: Final = 4096


class Trace:
    """Every event of a world goes through `note`; two runs are the same when their digests are."""

    def __init__(self, *, written: bool = False) -> None:
        self.written = written
        self.lines: list[str] = []
        self.events = 0
        self._hash = hashlib.blake2b(digest_size=16)
        self._batch: list[str] = []

    def note(self, now: float, who: str, what: str) -> None:
        """Add an event to the digest."""
        self._batch.append(f"{now!r} {who} {what}\n")
        if len(self._batch) >= BATCH:
            self._flush()

    def tell(self, now: float, who: str, text: str | Callable[[], str]) -> None:
        """Add a line to the transcript, if there is to be one; and to the digest if it is ready-made."""
        if isinstance(text, str):
            self.note(now, who, text)
            if self.written:
                self.lines.append(f"{now:9.3f}  {who:<10}  {text}")
        elif self.written:
            self.lines.append(f"{now:9.3f}  {who:<10}  {text()}")

    def _flush(self) -> None:
        self.events += len(self._batch)
        self._hash.update("".join(self._batch).encode())
        self._batch.clear()

    def digest(self) -> str:
        """Return the digest of all that was noted so far."""
        self._flush()
        return self._hash.hexdigest()


def keys(items: Any) -> str:
    """Return attempts as a reader knows them: `t7.1 t8.1`."""
    return " ".join(f"{task_id}.{attempt}" for task_id, attempt in items)
