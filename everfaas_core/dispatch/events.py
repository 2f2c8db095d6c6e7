"""What the dispatch machine is told. Instants come with `step`; durations are seconds."""

from __future__ import annotations

from msgspec import Struct

from everfaas_core.model.ids import FunctionId, TaskId, WorkerId
from everfaas_core.model.records import AdoptedTask, ClaimedTask
from everfaas_core.wire.messages import Held, Outcome, Said

# ── from links ───────────────────────────────────────────────────────────────────────────────────────────────────────


class Joined(Struct, frozen=True):
    """A worker said Hello, for the first time or again. `held` is what it runs or has outcomes of."""

    worker_id: WorkerId
    slots: int
    granted: int
    host: str = ""
    pid: int = 0
    python: str = ""
    dill: str = ""
    held: tuple[Held, ...] = ()
    epoch: int = 0  # of the worker's Hellos
    rejected: str | None = None  # the link found the handshake wrong: refuse, for this reason


class Beaten(Struct, frozen=True):
    """A worker lives, has granted so much credit in total, and wants to have so many tasks at hand (0: as before)."""

    worker_id: WorkerId
    granted: int
    window: int = 0


class Ended(Struct, frozen=True):
    """Attempts ended on a worker, which lives and has granted so much credit in total."""

    worker_id: WorkerId
    items: tuple[Outcome, ...]
    granted: int
    window: int = 0


class CodeMissing(Struct, frozen=True):
    """A worker lacks the code of functions whose tasks it was sent."""

    worker_id: WorkerId
    functions: tuple[FunctionId, ...]


class Draining(Struct, frozen=True):
    """A worker was asked to leave: it finishes what it runs."""

    worker_id: WorkerId


class Left(Struct, frozen=True):
    """A worker said Bye. What it still held and did not list as `returned` is lost with it."""

    worker_id: WorkerId
    returned: tuple[Held, ...] = ()


class Undelivered(Struct, frozen=True):
    """These attempts could not be sent: the worker never saw them."""

    worker_id: WorkerId
    items: tuple[Held, ...]


class Told(Struct, frozen=True):
    """What a worker's attempts have printed, and how far they are. Nothing is decided by it: it goes to the store."""

    worker_id: WorkerId
    said: Said


LinkEvent = Told | Joined | Beaten | Ended | CodeMissing | Draining | Left | Undelivered

# ── from the store ───────────────────────────────────────────────────────────────────────────────────────────────────


class Rung(Struct, frozen=True):
    """The bell rang, or enough time has passed to look without it: there may be something to claim."""


class Claimed(Struct, frozen=True):
    """The store answered a Claim of `asked` tasks."""

    asked: int
    tasks: tuple[ClaimedTask, ...]
    next_due_s: float | None = None


class Adopted(Struct, frozen=True):
    """Claims of a dead dispatcher whose workers may present them within the grace."""

    tasks: tuple[AdoptedTask, ...]


class Answered(Struct, frozen=True):
    """The store's answer to an AdoptAttempt: the task, now ours, or None if that attempt is not live there."""

    held: Held
    worker_id: WorkerId
    epoch: int  # of the Hello that presented it
    task: ClaimedTask | None


class Started(Struct, frozen=True):
    """The store has answered Starts: `accepted` are RUNNING in the store; `refused` are not ours to run."""

    accepted: tuple[Held, ...]
    refused: tuple[Held, ...]


class Settled(Struct, frozen=True):
    """Finishes and Requeues are stored, or found stale; there is nothing left to do for these attempts."""

    items: tuple[Held, ...]


class CancelAsked(Struct, frozen=True):
    """A client wants these tasks stopped."""

    tasks: tuple[TaskId, ...]


class Evicted(Struct, frozen=True):
    """Our lease had run out: others may hold our claims. Forget all of them, kill what runs."""


class Company(Struct, frozen=True):
    """Whether there are other dispatchers on the store; until it is known, there may be."""

    others: bool


StoreEvent = Rung | Claimed | Adopted | Answered | Started | Settled | CancelAsked | Evicted | Company

# ── from the operator ────────────────────────────────────────────────────────────────────────────────────────────────


class Drained(Struct, frozen=True):
    """Claim no more; finish what runs."""


class WorkerDrained(Struct, frozen=True):
    """Ask one worker to finish what runs and leave."""

    worker_id: WorkerId


Event = LinkEvent | StoreEvent | Drained | WorkerDrained

__all__ = [
    "Adopted",
    "Answered",
    "Beaten",
    "CancelAsked",
    "Claimed",
    "CodeMissing",
    "Company",
    "Drained",
    "Draining",
    "Ended",
    "Event",
    "Evicted",
    "Joined",
    "Left",
    "LinkEvent",
    "Rung",
    "Settled",
    "Started",
    "StoreEvent",
    "Told",
    "Undelivered",
    "WorkerDrained",
]
