"""A large piece of an answer on its way to a client: sent from where it is, without copies and temporary files.

waitress collects what is written in buffers that are copied into a temporary file from 1 MiB on, and read out of it in
pieces again. But for file wrappers, which it asks for one piece after the other: so this is one.
"""

from __future__ import annotations

from waitress.buffers import ReadOnlyFileBasedBuffer


class OutgoingBytes(ReadOnlyFileBasedBuffer):  # type: ignore[misc]  # waitress ships no types
    """Bytes that are sent as they are. What is left of them is `remain`, as waitress calls it."""

    def __init__(self, data: bytes) -> None:
        self._left = memoryview(data)
        self.remain = len(data)

    def get(self, numbytes: int = -1, skip: bool = False) -> memoryview:
        """Return the next bytes, as a view."""
        piece = self._left if numbytes < 0 else self._left[:numbytes]
        if skip:
            self.skip(len(piece))
        return piece

    def skip(self, numbytes: int, allow_prune: bool = False) -> None:
        """Note that so many were sent."""
        self._left = self._left[numbytes:]
        self.remain = len(self._left)

    def close(self) -> None:
        """Let go of the bytes."""
        self._left = memoryview(b"")
        self.remain = 0
