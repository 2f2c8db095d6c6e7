"""Ids: time-ordered task ids that their store can recognize, and content-hashed function ids.

A task id is an RFC 9562 UUID of version 8: 48 bits of milliseconds, 42 random bits, and a 32-bit check made with
the store's secret. Sorting ids sorts tasks by submission; the check tells an id that this store once issued
(its record has expired: 410) from one that it never did (404), without keeping a tombstone for each.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import uuid
from typing import Final, NewType

TaskId = NewType("TaskId", str)
FunctionId = NewType("FunctionId", str)
WorkerId = NewType("WorkerId", str)  # a worker process; each of its Hellos begins an incarnation, by number
DispatcherId = NewType("DispatcherId", str)

RANDOM_BYTES: Final = 6  # what `task_id` wants as `entropy`
SECRET_BYTES: Final = 16

_UUID: Final = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", re.IGNORECASE)


def is_id(text: str) -> bool:
    """Tell whether `text` matches the grammar of ids (a hyphenated UUID), before it may become a key."""
    return _UUID.fullmatch(text) is not None


def task_id(now_ms: int, entropy: bytes, secret: bytes) -> TaskId:
    """Make the id of a task submitted at `now_ms` (milliseconds since 1970), from RANDOM_BYTES of entropy."""
    value = (now_ms & 0xFFFF_FFFF_FFFF) << 80 | 0x8 << 76 | 0b10 << 62
    noise = int.from_bytes(entropy[:RANDOM_BYTES], "big")
    value |= (noise & 0xFFF) << 64 | (noise >> 12 & 0x3FFF_FFFF) << 32
    return TaskId(str(uuid.UUID(int=value | _check(value, secret))))


def submitted_ms(text: str) -> int:
    """Return when the task of an id was submitted, in ms since 1970, by the clock of who made the id."""
    return int(text[:8] + text[9:13], 16)


def issued_here(text: str, secret: bytes) -> bool:
    """Tell whether the store that owns `secret` issued this task id (wrongly true once in 2^32 ids)."""
    if not is_id(text):
        return False
    value = uuid.UUID(text).int
    return value & 0xFFFF_FFFF == _check(value & ~0xFFFF_FFFF, secret)


def _check(value: int, secret: bytes) -> int:
    digest = hmac.digest(secret, value.to_bytes(16, "big"), "sha256")
    return int.from_bytes(digest[:4], "big")


def function_id(name: str, payload: bytes, options: bytes) -> FunctionId:
    """Make the id of a function from its content: the same name, code and options give the same id."""
    digest = hashlib.sha256()
    for part in (name.encode(), payload, options):
        digest.update(len(part).to_bytes(8, "big"))
        digest.update(part)
    value = int.from_bytes(digest.digest()[:16], "big")
    value = value & ~(0xF << 76) & ~(0x3 << 62) | 0x8 << 76 | 0b10 << 62
    return FunctionId(str(uuid.UUID(int=value)))
