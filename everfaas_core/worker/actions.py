"""What the worker's machine wants done. The host does it, in order, without blocking. Pure."""

from __future__ import annotations

from msgspec import Struct

from everfaas_core.model.ids import FunctionId
from everfaas_core.wire.messages import Outcome, TaskItem


class SpawnSlot(Struct, frozen=True):
    """Start a slot's process; answered by SlotUp or SlotDown."""

    slot: int


class KillSlot(Struct, frozen=True):
    """Kill a slot's process with all its descendants; answered by SlotDown."""

    slot: int


class Feed(Struct, frozen=True):
    """Write tasks to a slot, and before them the code of functions that it does not hold."""

    slot: int
    items: tuple[TaskItem, ...]
    functions: tuple[FunctionId, ...] = ()


class Recall(Struct, frozen=True):
    """Take back what waits in a slot's pipe and was not begun; answered by Recalled before any other event."""

    slot: int


class Report(Struct, frozen=True):
    """An attempt has ended."""

    outcome: Outcome


class Need(Struct, frozen=True):
    """Tasks wait for the code of these functions."""

    functions: tuple[FunctionId, ...]


Action = SpawnSlot | KillSlot | Feed | Recall | Report | Need
