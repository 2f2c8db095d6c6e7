"""What the worker's machine is told. Instants come with `step`; durations are seconds. Pure."""

from __future__ import annotations

from msgspec import Struct

from everfaas_core.model.ids import FunctionId
from everfaas_core.wire.messages import Held, Outcome, TaskItem


class Offered(Struct, frozen=True):
    """Tasks came in. Their payloads are passed through and never looked at."""

    items: tuple[TaskItem, ...]


class CodeArrived(Struct, frozen=True):
    """The worker now has the code of these functions."""

    functions: tuple[FunctionId, ...]


class CodeDropped(Struct, frozen=True):
    """The worker's cache of code was full: it has these no longer."""

    functions: tuple[FunctionId, ...]


class SlotUp(Struct, frozen=True):
    """A slot's process said that it waits for tasks."""

    slot: int


class SlotSaid(Struct, frozen=True):
    """A slot answered the task that it was fed first. GIVEN_BACK: it lacks the function's code."""

    slot: int
    outcome: Outcome


class Recalled(Struct, frozen=True):
    """The last `count` tasks that a slot was fed were taken back: it never began them, and never will.

    This is told before anything that happened after the Recall.
    """

    slot: int
    count: int


class SlotDown(Struct, frozen=True):
    """A slot's process is dead, and all that it said before has been told. `begun` counts the tasks it had begun.

    `begun` is None when nobody knows (its nursery died as well).
    """

    slot: int
    reason: str
    begun: int | None = None


class KillAsked(Struct, frozen=True):
    """These attempts are to stop."""

    items: tuple[Held, ...]


class Drained(Struct, frozen=True):
    """Begin nothing more; what runs may finish."""


Event = Offered | CodeArrived | CodeDropped | SlotUp | SlotSaid | Recalled | SlotDown | KillAsked | Drained
