"""Objects that come one behind the other in one answer, as msgpack: where does each end?

`msgspec` decodes one object and wants to know its length. The walk below knows the widths of msgpack's types
(https://github.com/msgpack/msgpack/blob/master/spec.md) and decodes nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import msgspec

OBJECT_BYTES_MAX: Final = 2 * 1024**3
"""A longer object is no answer of this API; results are limited far below it."""

_decode: Final = msgspec.msgpack.Decoder().decode
_FIXED: Final = {  # type → bytes behind it
    0xC0: 0, 0xC2: 0, 0xC3: 0, 0xCA: 4, 0xCB: 8, 0xCC: 1, 0xCD: 2, 0xCE: 4, 0xCF: 8,
    0xD0: 1, 0xD1: 2, 0xD2: 4, 0xD3: 8, 0xD4: 2, 0xD5: 3, 0xD6: 5, 0xD7: 9, 0xD8: 17,
}  # fmt: skip
_SIZED: Final = {0xC4: (1, 0), 0xC5: (2, 0), 0xC6: (4, 0), 0xC7: (1, 1), 0xC8: (2, 1), 0xC9: (4, 1)}
_SIZED_TEXT: Final = {0xD9: (1, 0), 0xDA: (2, 0), 0xDB: (4, 0)}
_NESTED: Final = {0xDC: (2, 1), 0xDD: (4, 1), 0xDE: (2, 2), 0xDF: (4, 2)}
_LENGTHS: Final = {**_SIZED, **_SIZED_TEXT}


class Frames:
    """Takes what comes in, gives whole objects. Raises ValueError for what is no msgpack."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._wanted = 1  # bytes of the buffer without which there is no use in looking

    def feed(self, data: bytes) -> Iterator[Any]:
        """Add bytes; return the objects that are whole now."""
        self._buffer += data
        if len(self._buffer) < self._wanted:
            return iter(())
        return self._objects()

    def _objects(self) -> Iterator[Any]:
        view, at = bytes(self._buffer), 0
        found: list[Any] = []
        while at < len(view):
            end = _end(view, at)
            if end > len(view):
                if end - at > OBJECT_BYTES_MAX:
                    raise ValueError(f"an object claims to have {end - at} bytes")
                break
            found.append(_decode(view[at:end]))
            at = end
        self._wanted = max(1, (end - at) if at < len(view) else 1)
        del self._buffer[:at]
        return iter(found)


def _end(view: bytes, at: int) -> int:
    """Return where the object at `at` ends; something beyond the view's end if it is not whole."""
    left = 1
    size = len(view)
    while left:
        if at >= size:
            return at + 1
        kind = view[at]
        at += 1
        left -= 1
        if kind < 0x80 or kind >= 0xE0:
            continue
        if kind >= 0xA0 and kind < 0xC0:
            at += kind & 0x1F
        elif kind < 0x90:
            left += 2 * (kind & 0x0F)
        elif kind < 0xA0:
            left += kind & 0x0F
        elif (fixed := _FIXED.get(kind)) is not None:
            at += fixed
        elif (sized := _LENGTHS.get(kind)) is not None:
            width, more = sized
            if at + width > size:
                return at + width
            at += width + more + int.from_bytes(view[at : at + width], "big")
        elif (nested := _NESTED.get(kind)) is not None:
            width, each = nested
            if at + width > size:
                return at + width
            left += each * int.from_bytes(view[at : at + width], "big")
            at += width
        else:
            raise ValueError("a byte is no type of msgpack")
    return at
