"""What is stored, claimed, started, finished: plain records that travel between api, store and dispatcher.

Instants are milliseconds since 1970 by the store's clock (`_ms`); durations are seconds (`_s`). Payloads and results
are opaque bytes: only slots and clients ever load them.
"""

from __future__ import annotations

from typing import Final

from msgspec import Struct

from everfaas_core.model.ids import DispatcherId, FunctionId, TaskId, WorkerId
from everfaas_core.model.output import Printed, Progress, Progressed
from everfaas_core.model.states import Cause, Status

PRIORITIES: Final = 10  # 0 … 9, 9 is the most urgent
DEFAULT_PRIORITY: Final = 4
DEFAULT_MAX_ATTEMPTS: Final = 3
DEFAULT_RESULT_TTL_S: Final = 24 * 3600.0


class FunctionOptions(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a function's tasks inherit unless they say otherwise. Part of the function's identity."""

    timeout_s: float | None = None  # longest run of one attempt
    max_attempts: int | None = None  # attempts that system failures may use up
    retry_backoff_s: float = 0.0  # wait before the second attempt; doubles with each further one
    retry_on: tuple[str, ...] = ()  # names of exceptions that are tried again too: "ConnectionError", "mod.Busy"
    priority: int | None = None
    result_ttl_s: float | None = None  # how long a terminal record is kept
    python: str | None = None  # "3.12": the minor version whose bytecode the payload holds


class FunctionRecord(Struct, frozen=True, kw_only=True):
    function_id: FunctionId
    name: str
    payload: bytes
    options: FunctionOptions
    created_ms: int = 0  # set by the store


class TaskSpec(Struct, frozen=True, kw_only=True):
    """A task as submitted, defaults not yet filled in from its function."""

    task_id: TaskId
    function_id: FunctionId
    payload: bytes
    priority: int | None = None
    delay_s: float = 0.0
    timeout_s: float | None = None
    deadline_s: float | None = None  # from submission: by then it must have ended
    max_attempts: int | None = None
    retry_backoff_s: float | None = None
    retry_on: tuple[str, ...] | None = None
    result_ttl_s: float | None = None
    retry_of: TaskId | None = None  # the task whose call this one repeats
    idempotency_key: str | None = None
    group: str | None = None
    tags: tuple[str, ...] = ()


class TaskDefaults(Struct, frozen=True, kw_only=True):
    """What holds for a task when neither it nor its function says. The operator's settings, applied by the store."""

    priority: int = DEFAULT_PRIORITY
    max_attempts: int = DEFAULT_MAX_ATTEMPTS
    result_ttl_s: float = DEFAULT_RESULT_TTL_S


class AttemptRecord(Struct, frozen=True, kw_only=True):
    """One try of a task. `ended_ms` and `cause` are None while it is live."""

    attempt: int
    worker: WorkerId
    leased_ms: int  # a dispatcher claimed the task
    started_ms: int  # stored as RUNNING, just before it was sent to the worker
    ended_ms: int | None = None
    cause: Cause | None = None
    run_s: float | None = None  # measured in the slot


class TaskRecord(Struct, frozen=True, kw_only=True):
    """Everything the store knows of a task, but its payload."""

    task_id: TaskId
    function_id: FunctionId
    function_name: str
    status: Status
    submitted_ms: int
    priority: int
    max_attempts: int
    payload_size_bytes: int
    not_before_ms: int | None = None
    deadline_ms: int | None = None
    timeout_s: float | None = None
    group: str | None = None
    tags: tuple[str, ...] = ()
    attempts: tuple[AttemptRecord, ...] = ()
    ended_ms: int | None = None
    expires_ms: int | None = None
    cause: Cause | None = None
    error: str | None = None  # traceback or reason as text
    result_size_bytes: int = 0
    cancel_requested: bool = False
    retry_of: TaskId | None = None
    progress: Progress | None = None  # of the latest attempt


class ResultRecord(Struct, frozen=True, kw_only=True):
    """What a client who waits for a task wants to know. `result` is b"" until the task has ended."""

    task_id: TaskId
    status: Status
    result: bytes = b""


class GroupResult(Struct, frozen=True, kw_only=True):
    """A task of a group that has ended; `cursor` asks for those that ended after it."""

    task_id: TaskId
    status: Status
    result: bytes
    cursor: str
    tags: tuple[str, ...] = ()


class GroupPage(Struct, frozen=True, kw_only=True):
    """Ended tasks of a group, in the order of their ends, and how many there are while their records are kept."""

    ended: tuple[GroupResult, ...]
    cursor: str  # pass it on for what ends later; it stays valid, also over restarts
    tasks: int
    pending: int  # of these, tasks that have not ended
    more: bool  # there are more than fit into this page


class TaskFilter(Struct, frozen=True, kw_only=True):
    status: Status | None = None
    cause: Cause | None = None  # of its end; the dead letters are FAILED tasks with one of RETRIED
    function_id: FunctionId | None = None
    group: str | None = None
    tag: str | None = None


class TaskPage(Struct, frozen=True, kw_only=True):
    tasks: tuple[TaskRecord, ...]
    cursor: str | None  # pass it on for the next page; None: there is none


# ── what a dispatcher exchanges with the store, once per turn ────────────────────────────────────────────────────────


class ClaimedTask(Struct, frozen=True, kw_only=True):
    """A task that the store has given to this dispatcher. `attempt` is the last attempt's token (0: none yet)."""

    task_id: TaskId
    function_id: FunctionId
    payload: bytes
    attempt: int = 0
    charged: int = 0  # attempts used up by system failures
    priority: int = DEFAULT_PRIORITY
    max_attempts: int = DEFAULT_MAX_ATTEMPTS
    retry_backoff_s: float = 0.0
    retry_on: tuple[str, ...] = ()
    timeout_s: float | None = None
    remaining_s: float | None = None  # until its deadline, when it was claimed


class AdoptedTask(Struct, frozen=True, kw_only=True):
    """A RUNNING task of a dead dispatcher, now ours: `worker` may still run `task.attempt`, and will present it.

    `epoch` is that of the worker's Hello under which the attempt was sent, or presented last.
    """

    task: ClaimedTask
    worker: WorkerId
    epoch: int = 0


class Start(Struct, frozen=True, kw_only=True):
    """Store `attempt` (the last token + 1) as RUNNING on `worker`, if the task is still ours and not cancelled."""

    task_id: TaskId
    attempt: int
    worker: WorkerId
    bound: bool = False  # the worker dies with this dispatcher: nobody will present the attempt
    epoch: int = 0  # of the worker's Hello: it will be sent under that one, or never


class Adopt(Struct, frozen=True, kw_only=True):
    """Take over the claim of an attempt that `worker` itself has presented to us, whoever holds it now.

    Unless it has been adopted under a later `epoch` of that worker's Hellos: then the worker has moved on since.
    """

    task_id: TaskId
    attempt: int
    worker: WorkerId
    epoch: int = 0


class Finish(Struct, frozen=True, kw_only=True):
    """Write the terminal record, unless `attempt` is stale. attempt 0 ends a task that never started."""

    task_id: TaskId
    attempt: int
    status: Status
    cause: Cause
    result: bytes
    error: str | None = None
    run_s: float | None = None


class Requeue(Struct, frozen=True, kw_only=True):
    """Put a claimed task back at the head of its queue (or delay it), unless `attempt` is stale."""

    task_id: TaskId
    attempt: int
    cause: Cause
    charged: bool
    delay_s: float = 0.0
    error: str | None = None


class WorkerInfo(Struct, frozen=True, kw_only=True):
    """One worker as its dispatcher sees it; what `GET /v1/workers` lists."""

    worker_id: WorkerId
    host: str
    pid: int
    slots: int
    busy: int
    draining: bool
    python: str
    dill: str
    joined_ms: int


class FleetReport(Struct, frozen=True, kw_only=True):
    """A dispatcher's proof of life and the picture of its fleet, stored with its lease."""

    dispatcher_id: DispatcherId
    mode: str
    host: str
    pid: int
    started_ms: int
    workers: tuple[WorkerInfo, ...] = ()
    address: str = ""  # where workers connect to; "" where they can't
    machine: str = ""  # the kernel and process namespace that `pid` belongs to


CLAIM_BYTES_MAX: Final = 32 * 1024 * 1024
"""Payload bytes of one claim."""


class Turn(Struct, frozen=True, kw_only=True):
    """All that one turn of a dispatcher's loop asks of the store: one round trip, whatever it holds.

    The store applies it in this order: printed, progress, finishes, requeues, starts, adopts, lease, sweep, functions,
    claim.
    """

    dispatcher_id: DispatcherId
    printed: tuple[Printed, ...] = ()  # kept of attempts that run only; what is kept already is not kept twice
    progress: tuple[Progressed, ...] = ()  # of attempts that run only
    finishes: tuple[Finish, ...] = ()
    requeues: tuple[Requeue, ...] = ()
    starts: tuple[Start, ...] = ()
    adopts: tuple[Adopt, ...] = ()
    report: FleetReport | None = None  # renew the lease, and store this with it
    lease_s: float = 3.0
    sweep: bool = False  # promote due tasks, expire old records, take over the claims of dead dispatchers
    dead: tuple[DispatcherId, ...] = ()  # known to be dead: sweep their claims now, whatever is left of their lease
    functions: tuple[FunctionId, ...] = ()
    claim: int = 0  # at most so many tasks; when fewer come, the store rings the bell at the next submit
    claim_bytes: int = CLAIM_BYTES_MAX  # of payloads: the task that comes to so many is the last one of this claim


class TurnReply(Struct, frozen=True, kw_only=True):
    """The store's answer; each tuple is as long, and in the order, of what was asked."""

    finished: tuple[bool, ...] = ()  # False: stale attempt or gone; either way there is nothing left to store
    started: tuple[bool, ...] = ()  # False: cancelled, expired or no longer ours; drop it
    adoptions: tuple[ClaimedTask | None, ...] = ()  # None: that attempt is not live on that worker; kill it there
    functions: tuple[FunctionRecord | None, ...] = ()
    claimed: tuple[ClaimedTask, ...] = ()  # may be more than asked for after a failed exchange, whose claim it repeats
    adopted: tuple[AdoptedTask, ...] = ()
    cancels: tuple[TaskId, ...] = ()  # RUNNING tasks of ours that a client has cancelled (with report, claim or sweep)
    next_due_s: float | None = None  # until the earliest delayed task is due (with claim or sweep); 0: ask again
    drains: tuple[WorkerId, ...] = ()  # workers of our report that were asked to leave (with report only)
    evicted: bool = False  # our lease had run out, others took our claims (with report, claim or sweep)
