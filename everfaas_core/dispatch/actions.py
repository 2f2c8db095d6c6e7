"""What the dispatch machine wants done. The runtime does it: store first, then send, all of a turn in one batch."""

from __future__ import annotations

from msgspec import Struct

from everfaas_core.model.ids import FunctionId, TaskId, WorkerId
from everfaas_core.model.records import CLAIM_BYTES_MAX
from everfaas_core.model.states import Cause, Status
from everfaas_core.wire.messages import Held

# ── for the store ────────────────────────────────────────────────────────────────────────────────────────────────────


class Claim(Struct, frozen=True):
    """Ask the store for up to `count` tasks, with payloads of about `bytes_max`. At most one is under way."""

    count: int
    bytes_max: int = CLAIM_BYTES_MAX


class StartAttempt(Struct, frozen=True):
    """Store an attempt as RUNNING; answered by Started. `epoch` is that of the worker's last Hello."""

    task_id: TaskId
    attempt: int
    worker_id: WorkerId
    epoch: int = 0


class AdoptAttempt(Struct, frozen=True):
    """Take over the claim of an attempt that a worker has presented; answered by Answered."""

    task_id: TaskId
    attempt: int
    worker_id: WorkerId
    epoch: int = 0


class FinishAttempt(Struct, frozen=True):
    """Store a terminal record; answered by Settled.

    The result's bytes are with the runtime, under (task, attempt); when `reason` is set there are none, and the runtime
    makes a WorkerFailure of it.
    """

    task_id: TaskId
    attempt: int
    status: Status
    cause: Cause
    reason: str | None = None


class RequeueAttempt(Struct, frozen=True):
    """Give a task back to the store; answered by Settled."""

    task_id: TaskId
    attempt: int
    cause: Cause
    charged: bool
    delay_s: float
    reason: str


# ── for links ────────────────────────────────────────────────────────────────────────────────────────────────────────


class Run(Struct, frozen=True):
    """Send an attempt that the store has accepted. Payload and code are with the runtime."""

    worker_id: WorkerId
    epoch: int
    task_id: TaskId
    attempt: int
    function_id: FunctionId
    timeout_s: float | None
    with_code: bool  # the worker has not been sent this function's code yet


class SendCode(Struct, frozen=True):
    """Send code again to a worker that lost it."""

    worker_id: WorkerId
    functions: tuple[FunctionId, ...]


class Welcomed(Struct, frozen=True):
    """Answer a Hello."""

    worker_id: WorkerId


class AskedAgain(Struct, frozen=True):
    """Ask a worker that we do not know to say Hello again."""

    worker_id: WorkerId


class Pulsed(Struct, frozen=True):
    """Answer a heartbeat."""

    worker_id: WorkerId


class Refused(Struct, frozen=True):
    """Tell a worker that it can't join, and why."""

    worker_id: WorkerId
    code: str
    reason: str


class Acknowledge(Struct, frozen=True):
    """Tell a worker that these outcomes need no longer be kept."""

    worker_id: WorkerId
    items: tuple[Held, ...]


class KillAttempts(Struct, frozen=True):
    """Tell a worker to stop these attempts."""

    worker_id: WorkerId
    items: tuple[Held, ...]


class QuitWorker(Struct, frozen=True):
    """Tell a worker to drain and leave."""

    worker_id: WorkerId


Action = (
    Claim
    | StartAttempt
    | AdoptAttempt
    | FinishAttempt
    | RequeueAttempt
    | Run
    | SendCode
    | Welcomed
    | AskedAgain
    | Pulsed
    | Refused
    | Acknowledge
    | KillAttempts
    | QuitWorker
)
