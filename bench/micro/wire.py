"""The wire codec: messages of tasks to a worker and of outcomes from it, to frames and back."""

from __future__ import annotations

import uuid
from typing import Any

from bench.micro.meter import Cost, Meter
from everfaas_core.model.ids import FunctionId, TaskId
from everfaas_core.model.states import Cause
from everfaas_core.wire.codec import decode_to_dispatcher, decode_to_worker, encode
from everfaas_core.wire.messages import Outcome, Outcomes, TaskItem, Tasks

TITLE = "wire"
SMALL_BYTES = 100
LARGE_BYTES = 1024 * 1024
SHAPES = ((1, SMALL_BYTES), (16, SMALL_BYTES), (256, SMALL_BYTES), (1, LARGE_BYTES), (16, LARGE_BYTES))
ITEMS = 20_000  # of one repetition, small ones
LARGE_ITEMS = 320


def measure(repeats: int) -> list[Cost]:
    """Return what encoding and decoding costs for one item, alone and among others."""
    meter = Meter()
    for _ in range(repeats):
        for count, size in SHAPES:
            times = (ITEMS if size == SMALL_BYTES else LARGE_ITEMS) // count
            shape = f"{count} of {size:,} bytes"
            _measure(meter, f"tasks, {shape}", _tasks(count, size), decode_to_worker, count, times)
            _measure(meter, f"outcomes, {shape}", _outcomes(count, size), decode_to_dispatcher, count, times)
    return meter.costs()


def _measure(meter: Meter, what: str, message: Tasks | Outcomes, decode: Any, count: int, times: int) -> None:
    with meter.phase(f"encode {what}", count * times):
        for _ in range(times):
            frames = encode(message)
    with meter.phase(f"decode {what}", count * times):
        for _ in range(times):
            decoded = decode(frames)
    if decoded != message:
        raise RuntimeError("what was decoded is not what was encoded")


def _tasks(count: int, size: int) -> Tasks:
    function = FunctionId(str(uuid.uuid4()))
    return Tasks(tuple(TaskItem(TaskId(str(uuid.uuid4())), 1, function, b"p" * size, 60.0) for _ in range(count)))


def _outcomes(count: int, size: int) -> Outcomes:
    items = (Outcome(TaskId(str(uuid.uuid4())), 1, Cause.OK, b"r" * size, None, 0.001) for _ in range(count))
    return Outcomes(tuple(items), 1_000)
