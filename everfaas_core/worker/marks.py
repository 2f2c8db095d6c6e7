"""Marks among what a slot prints: whose it was, and how far a task is. Pure.

A slot's stdout and stderr are pipes to its worker. Whatever a task does (Python, C, a child process) writes to them
as it likes. When a task has ended and anything was written meanwhile, the slot writes a mark: what stands before it,
back to the mark before, is that task's. A mark is so short that the kernel never mixes it with what others write.

    nonce (16 bytes, known to this slot and its worker only) · kind (1) · length of the rest (2) · the rest (msgpack)
"""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import Final

import msgspec
from msgspec import Struct

from everfaas_core.model.ids import TaskId
from everfaas_core.model.output import Progressed
from everfaas_core.wire.messages import Held

_HEAD: Final = struct.Struct("<BH")
MARK_BYTES_MAX: Final = 2048  # below PIPE_BUF: written in one piece

_encode: Final = msgspec.msgpack.Encoder().encode
_decode_held: Final = msgspec.msgpack.Decoder(tuple[TaskId, int]).decode
_decode_progress: Final = msgspec.msgpack.Decoder(Progressed).decode


class Kind(IntEnum):
    ENDED = 1  # what stands before it is of this attempt, which has ended
    LATE = 2  # what stands before it came when no task ran: it is nobody's
    PROGRESS = 3  # says nothing about what stands before it


class Text(Struct, frozen=True):
    """Bytes between two marks. `held`: whose; None: nobody's."""

    data: bytes
    held: Held | None


def mark_ended(nonce: bytes, held: Held) -> bytes:
    """Return the mark behind the output of an attempt."""
    return _mark(nonce, Kind.ENDED, _encode(held))


def mark_late(nonce: bytes) -> bytes:
    """Return the mark behind what came when no task ran."""
    return _mark(nonce, Kind.LATE, b"")


def mark_progress(nonce: bytes, progress: Progressed) -> bytes:
    """Return the mark that tells of progress."""
    return _mark(nonce, Kind.PROGRESS, _encode(progress))


def _mark(nonce: bytes, kind: Kind, rest: bytes) -> bytes:
    return nonce + _HEAD.pack(kind, len(rest)) + rest


class Parser:
    """Takes one stream of a slot apart. What follows the last mark is `open`, until a mark or the reader says whose."""

    def __init__(self, nonce: bytes) -> None:
        self._nonce = nonce
        self.open = bytearray()

    def feed(self, data: bytes) -> list[Text | Progressed]:
        """Take in what was read; return what it completes, in order. A mark that can't be read is dropped."""
        found: list[Text | Progressed] = []
        self.open += data
        kept = 0  # text before a mark that does not end it
        while (at := self.open.find(self._nonce, kept)) >= 0:
            head = at + len(self._nonce)
            body = head + _HEAD.size
            if len(self.open) < body:
                break
            kind, length = _HEAD.unpack_from(self.open, head)
            if len(self.open) < body + length:
                break
            rest = bytes(self.open[body : body + length])
            try:
                if kind == Kind.PROGRESS:
                    found.append(_decode_progress(rest))
                    del self.open[at : body + length]
                    kept = at
                    continue
                held = _decode_held(rest) if kind == Kind.ENDED else None
            except msgspec.MsgspecError:
                held = None
            if at:
                found.append(Text(bytes(self.open[:at]), held))
            del self.open[: body + length]
            kept = 0
        return found

    def take(self, *, whole: bool) -> bytes:
        """Return what is open and take it out. Not `whole`: at its end a mark may have begun; that stays."""
        end = len(self.open)
        if not whole:
            at = self.open.find(self._nonce)
            if at < 0:
                first = self._nonce[:1]
                at = self.open.find(first, max(end - len(self._nonce) + 1, 0))
                while at >= 0 and not self._nonce.startswith(self.open[at:]):
                    at = self.open.find(first, at + 1)
            end = end if at < 0 else at
        taken = bytes(self.open[:end])
        del self.open[:end]
        return taken
