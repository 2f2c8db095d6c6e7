"""Memory that a worker, its nursery and its slots share: a few numbers for each slot, read and written without a call.

The worker makes it; the nursery is started with its descriptor, and slots inherit it. Each slot has a cell:

    BEGUN, ENDED   tasks that this life of the slot has begun, and ended; written by the slot
    MARKS          how often it has marked its output (see `marks`); written by the slot
    READS          goes up before and after each read of the slot's output: odd while one is under way; by the worker
    OUT, ERR       bytes of its stdout and stderr that have been read; by the worker
    NONCE          16 bytes that begin each mark; by the worker, before the slot is forked
"""

from __future__ import annotations

import mmap
import os
import tempfile
from typing import Final

BEGUN: Final = 0
ENDED: Final = 1
MARKS: Final = 2
READS: Final = 3
OUT: Final = 4
ERR: Final = 5
NONCE: Final = 6
WORDS: Final = 8
"""Of 8 bytes each: a cell is a cache line."""

NONCE_BYTES: Final = 16


def make_memory(cells: int) -> int:
    """Return a descriptor of new memory for so many cells, all zero. Raises OSError."""
    if hasattr(os, "memfd_create"):
        fd = os.memfd_create("everfaas-cells")
    else:  # macOS
        with tempfile.TemporaryFile() as file:
            fd = os.dup(file.fileno())
    os.truncate(fd, 8 * WORDS * max(cells, 1))
    return fd


class Cells:
    """The memory behind a descriptor, mapped. The descriptor may be closed afterwards."""

    def __init__(self, fd: int) -> None:
        self._memory = mmap.mmap(fd, 0)
        self._words = memoryview(self._memory).cast("Q")

    def cell(self, index: int) -> memoryview:
        """Return the words of one cell."""
        return self._words[WORDS * index : WORDS * (index + 1)]

    def clear(self, index: int, nonce: bytes) -> None:
        """Make a cell ready for a new life of its slot."""
        cell = self.cell(index)
        for word in range(NONCE):
            cell[word] = 0
        cell.cast("B")[8 * NONCE :] = nonce


def nonce_of(cell: memoryview) -> bytes:
    """Return what begins the marks of a slot."""
    return bytes(cell.cast("B")[8 * NONCE :])
