"""The stream in which code travels: a pickle that holds nothing but a text about it and the packed bytes.

Whoever loads it has `open_function` or `open_call` called, which open the inner stream in a scene of its own. So the
API can scan it, and a worker can read what it is without loading anything.
"""

from __future__ import annotations

import pickle
import struct
from typing import Any, Final, NamedTuple

import cloudpickle

MODULE: Final = "everfaas_core.shipping.envelope"


def _head(opener: str) -> bytes:
    texts = (text.encode() for text in (MODULE, opener))
    return pickle.PROTO + b"\x04" + b"".join(_short(text) for text in texts) + pickle.STACK_GLOBAL


def _short(text: bytes) -> bytes:
    return pickle.SHORT_BINUNICODE + bytes([len(text)]) + text


FUNCTION_HEAD: Final = _head("open_function")
CALL_HEAD: Final = _head("open_call")


class Envelope(NamedTuple):
    """What is known of packed code before it is opened."""

    python: str  # "3.12"
    packer: str  # "cloudpickle 3.1.2"
    name: str
    packed: bytes


def packer() -> str:
    """Return what packs here, with its version."""
    return f"cloudpickle {cloudpickle.__version__}"


def seal(head: bytes, envelope: Envelope) -> bytes:
    """Write an envelope."""
    texts = b"".join(
        pickle.BINUNICODE + struct.pack("<I", len(one)) + one
        for one in (text.encode() for text in (envelope.python, envelope.packer, envelope.name))
    )
    packed = envelope.packed
    size = len(packed)
    data = pickle.BINBYTES + struct.pack("<I", size) if size < 1 << 32 else pickle.BINBYTES8 + struct.pack("<Q", size)
    return b"".join((head, pickle.MARK, texts, data, packed, pickle.TUPLE, pickle.REDUCE, pickle.STOP))


def unseal(payload: bytes) -> Envelope | None:
    """Read an envelope without loading anything; None if the payload is none."""
    for head in (FUNCTION_HEAD, CALL_HEAD):
        if payload.startswith(head):
            return _read(memoryview(payload), len(head) + 1)
    return None


def _read(data: memoryview, at: int) -> Envelope | None:
    texts: list[str] = []
    for _ in range(3):
        (size,) = struct.unpack_from("<I", data, at + 1)
        at += 5
        texts.append(str(data[at : at + size], "utf-8"))
        at += size
    width = 5 if bytes(data[at : at + 1]) == pickle.BINBYTES else 9
    packed = bytes(data[at + width : -3])
    return Envelope(texts[0], texts[1], texts[2], packed)


def open_function(python: str, packer: str, name: str, packed: bytes) -> Any:
    """Open a packed function; called by unpicklers that know of no envelopes. Raises ForeignCode."""
    from everfaas_core.shipping.opening import open_packed  # here, for whoever only seals does not open

    return open_packed(Envelope(python, packer, name, packed))[0]


def open_call(python: str, packer: str, name: str, packed: bytes) -> Any:
    """Open packed arguments; called by unpicklers that know of no envelopes. Raises ForeignCode."""
    return open_function(python, packer, name, packed)
