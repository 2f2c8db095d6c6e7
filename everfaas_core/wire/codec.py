"""Messages to frames and back.

The first frame is `b"EF"`, the protocol version as one byte, and the msgpack body. Payloads of BLOB_BYTES and more
are lifted out of the body into frames of their own, so that they are never copied on their way: the field then holds
`b"\\x00EF-blob"` and the next frame, in order, is its value.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final, TypeVar

import msgspec

from everfaas_core.model.errors import WireError
from everfaas_core.wire.messages import (
    PROTOCOL_VERSION,
    FunctionItem,
    Message,
    Outcome,
    Outcomes,
    TaskItem,
    Tasks,
    ToDispatcher,
    ToWorker,
)

BLOB_BYTES: Final = 32 * 1024
BODY_BYTES_MAX: Final = 64 * 1024 * 1024
FRAMES_MAX: Final = 100_001

_PREFIX: Final = b"EF" + bytes([PROTOCOL_VERSION])
_LIFTED: Final = b"\x00EF-blob"

Frame = bytes | memoryview
T = TypeVar("T", ToDispatcher, ToWorker)

_encoder: Final = msgspec.msgpack.Encoder()
_decode_to_dispatcher: Final[msgspec.msgpack.Decoder[ToDispatcher]] = msgspec.msgpack.Decoder(ToDispatcher)
_decode_to_worker: Final[msgspec.msgpack.Decoder[ToWorker]] = msgspec.msgpack.Decoder(ToWorker)


def encode(message: Message) -> list[Frame]:
    """Return the frames of a message; the first is the body."""
    blobs: list[Frame] = []
    if isinstance(message, Tasks):
        message = Tasks(
            tuple(_lift_task(item, blobs) for item in message.items),
            tuple(_lift_function(item, blobs) for item in message.functions),
            message.epoch,
        )
    elif isinstance(message, Outcomes):
        message = Outcomes(tuple(_lift_outcome(item, blobs) for item in message.items), message.granted, message.window)
    return [_PREFIX + _encoder.encode(message), *blobs]


def decode_to_dispatcher(frames: Sequence[Frame]) -> ToDispatcher:
    """Decode what a worker sent. Raises WireError for anything malformed or of another version."""
    message = _decode(frames, _decode_to_dispatcher)
    if isinstance(message, Outcomes):
        blobs = iter(frames[1:])
        message = Outcomes(
            tuple(_lower_outcome(item, blobs) for item in message.items), message.granted, message.window
        )
        _exhausted(blobs)
    return message


def decode_to_worker(frames: Sequence[Frame]) -> ToWorker:
    """Decode what a dispatcher sent. Raises WireError for anything malformed or of another version."""
    message = _decode(frames, _decode_to_worker)
    if isinstance(message, Tasks):
        blobs = iter(frames[1:])
        items = tuple(_lower_task(item, blobs) for item in message.items)
        functions = tuple(_lower_function(item, blobs) for item in message.functions)
        _exhausted(blobs)
        message = Tasks(items, functions, message.epoch)
    return message


def _decode(frames: Sequence[Frame], decoder: msgspec.msgpack.Decoder[T]) -> T:
    if not frames or len(frames) > FRAMES_MAX:
        raise WireError(f"a message has {len(frames)} frames; 1 to {FRAMES_MAX} are allowed")
    body = memoryview(frames[0])
    if body[:2] != b"EF" or len(body) < 3:
        raise WireError("a frame does not begin with the everfaas prefix")
    if body[2] != PROTOCOL_VERSION:
        raise WireError(
            f"a peer speaks protocol version {body[2]}, this one speaks {PROTOCOL_VERSION}",
            hint="install the same version of everfaas on both sides",
        )
    if len(body) > BODY_BYTES_MAX:
        raise WireError(f"a message body of {len(body)} bytes is over the limit of {BODY_BYTES_MAX}")
    try:
        message: T = decoder.decode(body[3:])
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise WireError(f"a message does not decode: {error}") from error
    return message


def _lift(payload: bytes, blobs: list[Frame]) -> bytes:
    if len(payload) < BLOB_BYTES and payload != _LIFTED:
        return payload
    blobs.append(payload)
    return _LIFTED


def _lower(payload: bytes, blobs: Iterator[Frame]) -> bytes:
    if payload != _LIFTED:
        return payload
    blob = next(blobs, None)
    if blob is None:
        raise WireError("a message lacks a frame that its body refers to")
    return blob if isinstance(blob, bytes) else bytes(blob)


def _exhausted(blobs: Iterator[Frame]) -> None:
    if next(blobs, None) is not None:
        raise WireError("a message has a frame that its body does not refer to")


def _lift_task(item: TaskItem, blobs: list[Frame]) -> TaskItem:
    payload = _lift(item.payload, blobs)
    if payload is item.payload:
        return item
    return TaskItem(item.task_id, item.attempt, item.function_id, payload, item.timeout_s)


def _lower_task(item: TaskItem, blobs: Iterator[Frame]) -> TaskItem:
    payload = _lower(item.payload, blobs)
    if payload is item.payload:
        return item
    return TaskItem(item.task_id, item.attempt, item.function_id, payload, item.timeout_s)


def _lift_function(item: FunctionItem, blobs: list[Frame]) -> FunctionItem:
    payload = _lift(item.payload, blobs)
    return item if payload is item.payload else FunctionItem(item.function_id, item.name, payload, item.python)


def _lower_function(item: FunctionItem, blobs: Iterator[Frame]) -> FunctionItem:
    payload = _lower(item.payload, blobs)
    return item if payload is item.payload else FunctionItem(item.function_id, item.name, payload, item.python)


def _lift_outcome(item: Outcome, blobs: list[Frame]) -> Outcome:
    result = _lift(item.result, blobs)
    if result is item.result:
        return item
    return Outcome(item.task_id, item.attempt, item.cause, result, item.error, item.run_s, item.raised)


def _lower_outcome(item: Outcome, blobs: Iterator[Frame]) -> Outcome:
    result = _lower(item.result, blobs)
    if result is item.result:
        return item
    return Outcome(item.task_id, item.attempt, item.cause, result, item.error, item.run_s, item.raised)
