"""The messages of the worker protocol. Version 1; `Hello` carries the version, and both sides check it first.

A worker speaks first (`Hello`) and is answered `Welcome` or `Refuse`. From then on it sends outcomes together with new
credit, and the dispatcher sends tasks, acknowledges what it has stored, and kills what was cancelled. Credit is
cumulative: `granted` counts all tasks the worker has ever been ready to accept since it joined, so a repeated or
reordered message can't grant twice. Large payloads travel as frames of their own, see `codec`.
"""

from __future__ import annotations

from typing import Final

from msgspec import Struct

from everfaas_core.model.ids import DispatcherId, FunctionId, TaskId, WorkerId
from everfaas_core.model.output import Printed, Progressed
from everfaas_core.model.states import Cause

PROTOCOL_VERSION: Final = 1

EXCUSED_S_MAX: Final = 4.5
"""How long after its last answer a worker may go on with the tasks of a dispatcher that has died, if it has heirs.

These wait `adoption_s` (5 s) for the worker, counted from when they took over. So a dispatcher that may have been
taken over must not answer any more, from EXCUSED_S_MAX before that wait can end.
"""


class Message(Struct, frozen=True, array_like=True, tag=True):
    """Base of all messages: a msgpack array that begins with the class's name."""


# ── parts ────────────────────────────────────────────────────────────────────────────────────────────────────────────


class FunctionItem(Struct, frozen=True, array_like=True):
    """A function's code; sent to a worker before, or with, the first task that needs it."""

    function_id: FunctionId
    name: str
    payload: bytes
    python: str | None = None  # minor version whose bytecode it holds, if the client said so


class TaskItem(Struct, frozen=True, array_like=True):
    """One attempt to run. `timeout_s` counts from its start in the slot."""

    task_id: TaskId
    attempt: int
    function_id: FunctionId
    payload: bytes
    timeout_s: float | None = None


class Outcome(Struct, frozen=True, array_like=True):
    """How an attempt ended. `result` is the serialized value or exception; b"" where the dispatcher decides it."""

    task_id: TaskId
    attempt: int
    cause: Cause
    result: bytes
    error: str | None = None  # traceback or reason as text
    run_s: float | None = None
    raised: tuple[str, ...] = ()  # names of the exception's class and its bases, nearest first


Held = tuple[TaskId, int]  # (task, attempt)


# ── worker → dispatcher ──────────────────────────────────────────────────────────────────────────────────────────────


class Hello(Message, frozen=True, array_like=True, tag=True):
    """I am here (again). `held` lists the attempts that I run or whose outcomes are not acknowledged.

    `epoch` counts my Hellos: what I was sent for an earlier one and do not list here, I shall never run.
    """

    version: int
    worker_id: WorkerId
    mode: str
    host: str
    pid: int
    slots: int
    granted: int
    python: str
    dill: str
    held: tuple[Held, ...] = ()
    epoch: int = 0


class Beat(Message, frozen=True, array_like=True, tag=True):
    """I live. `window`: how many tasks I want to have at hand at once, by how quick they are of late (0: unchanged)."""

    granted: int
    window: int = 0


class Outcomes(Message, frozen=True, array_like=True, tag=True):
    """These attempts ended, and I can take more. Kept by the worker, and sent again on reconnect, until `Ack`."""

    items: tuple[Outcome, ...]
    granted: int
    window: int = 0


class Said(Message, frozen=True, array_like=True, tag=True):
    """What attempts have printed since I last said so, and how far they are. Comes before their Outcomes.

    Said once: if it is lost, it is lost. The store refuses what is not of an attempt that runs.
    """

    printed: tuple[Printed, ...] = ()
    progress: tuple[Progressed, ...] = ()


class Missing(Message, frozen=True, array_like=True, tag=True):
    """I was sent tasks of functions whose code I do not have (or no longer)."""

    functions: tuple[FunctionId, ...]


class Draining(Message, frozen=True, array_like=True, tag=True):
    """Send me nothing more; what I run I finish."""


class Bye(Message, frozen=True, array_like=True, tag=True):
    """I leave. Nothing of mine runs any more; `returned` never began."""

    returned: tuple[Held, ...] = ()


# ── dispatcher → worker ──────────────────────────────────────────────────────────────────────────────────────────────


class Welcome(Message, frozen=True, array_like=True, tag=True):
    """You are joined. Beat every `heartbeat_s`; silence for `liveness_s` means lost, to either side.

    `machine` and `pid` say which process I am, to workers on the same machine; `peers` are where else you could go.
    `heirs`: there are other dispatchers, of whatever mode, who will take over your tasks when I die.
    """

    dispatcher_id: DispatcherId
    heartbeat_s: float
    liveness_s: float
    machine: str = ""
    pid: int = 0
    peers: tuple[str, ...] = ()
    heirs: bool = False


class Peers(Message, frozen=True, array_like=True, tag=True):
    """Other dispatchers of the same mode on the same store, as far as I know now: go there when I am gone."""

    addresses: tuple[str, ...]
    heirs: bool = False


class Refuse(Message, frozen=True, array_like=True, tag=True):
    """You can't join: give up and say why."""

    code: str
    reason: str


class Tasks(Message, frozen=True, array_like=True, tag=True):
    """Run these; code comes first. Items of another `epoch` than that of your last Hello are not for you any more."""

    items: tuple[TaskItem, ...]
    functions: tuple[FunctionItem, ...] = ()
    epoch: int = 0


class Ack(Message, frozen=True, array_like=True, tag=True):
    """These outcomes are stored (or stale): forget them."""

    items: tuple[Held, ...]


class Kill(Message, frozen=True, array_like=True, tag=True):
    """Stop these attempts now, and report them as CANCELLED."""

    items: tuple[Held, ...]


class Pulse(Message, frozen=True, array_like=True, tag=True):
    """I live too."""


class Stranger(Message, frozen=True, array_like=True, tag=True):
    """I do not know you (I am new, or the connection was): say Hello again, with what you hold. Nothing is lost.

    Also made by an uplink itself when its connection broke and came back.
    """


class Quit(Message, frozen=True, array_like=True, tag=True):
    """Drain: accept no more, finish what runs, say Bye, exit."""


ToDispatcher = Hello | Beat | Outcomes | Said | Missing | Draining | Bye
ToWorker = Welcome | Peers | Refuse | Tasks | Ack | Kill | Pulse | Stranger | Quit
