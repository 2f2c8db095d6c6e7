"""The typed ports that plugins implement. Factories (see `hookspecs`) make them; the core calls them.

Every port says who calls it, from which thread, and what it may raise. `everfaas_core.testing` has a contract suite for
each.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from msgspec import Struct

from everfaas_core.dispatch.events import LinkEvent
from everfaas_core.dispatch.strategy import Strategy, WorkerView
from everfaas_core.model.ids import DispatcherId, FunctionId, TaskId, WorkerId
from everfaas_core.model.output import LogPage
from everfaas_core.model.records import (
    FleetReport,
    FunctionRecord,
    GroupPage,
    ResultRecord,
    TaskFilter,
    TaskPage,
    TaskRecord,
    TaskSpec,
    Turn,
    TurnReply,
)
from everfaas_core.wire.messages import Held, Outcome, Said, Tasks, ToDispatcher, ToWorker

__all__ = [
    "Link",
    "LinkContext",
    "LinkEvent",
    "Notice",
    "Selector",
    "SlotHost",
    "Store",
    "StoreHealth",
    "Strategy",
    "Submit",
    "TaskSource",
    "Uplink",
    "UplinkContext",
    "Watch",
    "WorkerView",
]


# ── stores ───────────────────────────────────────────────────────────────────────────────────────────────────────────


class Notice(Struct, frozen=True):
    """What a watch heard: ids of tasks that have ended ("ended"), or that a dispatcher should look ("work")."""

    ended: tuple[TaskId, ...] = ()
    printed: tuple[TaskId, ...] = ()  # tasks whose log has become longer
    told: ResultRecord | None = None  # of the only one in `ended`, if the store likes: then it need not be read
    groups: tuple[str, ...] = ()  # groups in which tasks have ended, perhaps in a notice of their own
    bell: bool = False  # there is something to claim, or to cancel
    lost: bool = False  # notices may have been missed: read the store again


class Watch(Protocol):
    """A live subscription. Used by one thread."""

    def fileno(self) -> int:
        """Return the descriptor that becomes readable when `read` has something. It may change after a `lost`."""

    def read(self) -> Sequence[Notice]:
        """Return what has come in since the last call, at once, perhaps nothing.

        A lost connection is re-made by this call (at most one try a call) and answered with a notice that says
        `lost`. Raises StoreUnavailable while it can't be re-made.
        """

    def close(self) -> None:
        """Unsubscribe and close. Idempotent."""


class StoreHealth(Struct, frozen=True):
    """What a store says of itself. `dispatchers` and `slots` count only those whose lease is valid."""

    kind: str  # "valkey 9.1.2", "memory"
    queued: int  # tasks that wait, delayed ones too
    ready: int  # of these, tasks that could be claimed now
    dispatchers: int
    slots: int
    ended: int = 0  # tasks that have ended since the store is there: what is new of it in a second is the throughput


class Store(Protocol):
    """The owner of the truth. Every method is atomic, is safe to repeat after a failure, and is called from any thread.

    Every method raises StoreUnavailable within the store's timeout when the store does not answer; then the caller
    can't know whether the change was made, and may repeat it: repeating changes nothing.
    """

    def prepare(self) -> None:
        """Connect and check fitness (version, eviction policy, scripts). Raises StoreRefused or StoreUnavailable."""

    def secret(self) -> bytes:
        """Return the SECRET_BYTES that mark this store's task ids; made once, kept with the data."""

    # functions
    def put_function(self, record: FunctionRecord) -> bool:
        """Store a function; return False if the same one was there already (then nothing changes)."""

    def functions(self, ids: Sequence[FunctionId]) -> Sequence[FunctionRecord | None]:
        """Return the functions, in order; None for an unknown one."""

    def list_functions(self, cursor: str | None, limit: int) -> tuple[Sequence[FunctionRecord], str | None]:
        """Return up to `limit` functions, newest first, and the cursor of the next page (None: the last one).

        May raise ValueError for a cursor that is none of its own; so may `list_tasks`.
        """

    # tasks, seen by clients
    def submit(self, specs: Sequence[TaskSpec], queue_max: int) -> Sequence[TaskId]:
        """Store and enqueue all, or none. Returns the ids, in order.

        A spec whose `task_id` is stored already is left as it is. One whose `idempotency_key` is known answers with
        the id it got first. Fills defaults in from the function's options. Rings the bell of waiting dispatchers.
        Raises UnknownFunction (its message names the id), QueueFull when more than `queue_max` would be queued, or
        IdempotencyConflict when a key stands for a task with another function or payload.
        """

    def tasks(self, ids: Sequence[TaskId]) -> Sequence[TaskRecord | None]:
        """Return whole records, in order; None for unknown or expired ones."""

    def results(self, ids: Sequence[TaskId]) -> Sequence[ResultRecord | None]:
        """Return status and result of each, in order, cheaper than `tasks`; None for unknown or expired ones."""

    def statuses(self, ids: Sequence[TaskId]) -> Sequence[str | None]:
        """Return the status of each, in order, without reading results; None for unknown or expired ones."""

    def list_tasks(self, where: TaskFilter, cursor: str | None, limit: int) -> TaskPage:
        """Return up to `limit` tasks that match, newest first. A page may be short and still have a cursor."""

    def group_results(
        self, group: str, cursor: str | None, limit: int, *, bytes_max: int, with_results: bool = True
    ) -> GroupPage:
        """Return up to `limit` tasks of a group that ended after `cursor` (None: all), in the order of their ends.

        Page after page gives each once, whatever ends meanwhile; a task that ends later comes later, also when the
        group was empty or expired before, or the store was restarted or flushed. A page stops when its results reach
        `bytes_max`, and has one at least. Without `with_results` they are b"". Raises ValueError for a cursor that is
        none of its own.
        """

    def task_log(
        self, task_id: TaskId, cursor: str | None, *, bytes_max: int, attempt: int | None = None
    ) -> LogPage | None:
        """Return what is kept of a task's output behind `cursor` (None: all), oldest first; None for an unknown task.

        A page stops when its text reaches `bytes_max`, and has a piece at least if there is one. With `attempt` it has
        the output of that attempt only. What was printed before a task has ended is there as soon as its status says
        that it has. Raises ValueError for a cursor that is none of its own.
        """

    def cancel(self, ids: Sequence[TaskId], *, running: bool = True) -> Sequence[str | None]:
        """Cancel queued tasks at once; mark RUNNING ones and ring the bell. Returns each status after the call.

        Without `running`, a task with a live attempt is left alone.

        Idempotent, a task that has ended stays as it is, None for an unknown one. A RUNNING task becomes CANCELLED
        when its slot is dead, or keeps its outcome if it ended first. The mark survives restarts.
        """

    def retry(self, task_id: TaskId, new_id: TaskId) -> TaskId | None:
        """Submit the call of a task that has ended FAILED or CANCELLED once more, as a new task `new_id`.

        A terminal record never changes, so a retry is a task of its own: same function, payload and options, no delay,
        deadline, or idempotency key, and `retry_of` names the old one. Returns None if the task is unknown or expired,
        its own id if it has not ended so, else `new_id`. Repeating the call with the same `new_id` changes nothing.
        """

    def drain_worker(self, worker_id: WorkerId) -> bool:
        """Ask a worker to leave: its dispatcher learns of it with its next report. Returns False for an unknown one.

        The mark is kept as long as the worker is in a report, and a while longer. Idempotent.
        """

    def fleet(self) -> Sequence[FleetReport]:
        """Return the reports of all dispatchers whose lease is valid."""

    def health(self) -> StoreHealth:
        """Ask the store how it is; one short round trip."""

    # dispatchers
    def exchange(self, turn: Turn) -> TurnReply:
        """Apply one turn of a dispatcher in one round trip. See `Turn` and `TurnReply` for the rules of each part."""

    def resign(self, dispatcher_id: DispatcherId) -> None:
        """Give up the lease and put back what is claimed and was not started. Called once, at the end."""

    # wake-ups
    def watch(self, topic: str) -> Watch:
        """Subscribe to "work" (a dispatcher) or "ended" (an API process)."""

    def close(self) -> None:
        """Close all connections. Idempotent."""


# ── task sources ─────────────────────────────────────────────────────────────────────────────────────────────────────

Submit = Callable[[Sequence[TaskSpec]], Sequence[TaskId]]


class TaskSource(Protocol):
    """Something besides the API that submits tasks: a schedule, a spool folder, a queue of another system.

    Runs in a thread of its own beside a dispatcher.
    """

    def run(self, submit: Submit, stopped: Callable[[float], bool]) -> None:
        """Submit tasks until told to stop.

        `submit` stores tasks as the API does, makes ids for those whose `task_id` is "", and may raise
        StoreUnavailable (try again) or UnknownFunction. `stopped(seconds)` waits that long at most and tells whether
        to return.
        """


# ── transports, dispatcher's side ────────────────────────────────────────────────────────────────────────────────────


class Selector(Protocol):
    """What the loop waits on. A link registers its descriptors while it is open."""

    def register(self, fd: int, *, write: bool = False) -> None:
        """Wake the loop when `fd` is readable (with `write`: or writable). Registering again changes the interest."""

    def unregister(self, fd: int) -> None:
        """Stop watching `fd`; unknown ones are ignored."""


@runtime_checkable
class SlotHost(Protocol):
    """Slots in this process's care: what a worker is made of. The core implements it; local links and agents use it."""

    @property
    def slots(self) -> int:
        """How many slots there are."""

    @property
    def granted(self) -> int:
        """Cumulative credit: tasks accepted so far plus tasks that could be accepted now."""

    @property
    def window(self) -> int:
        """Tasks that it wants to have at hand now: one a slot, and more while tasks are quick. May fall."""

    def start(self, selector: Selector) -> None:
        """Start the slots' processes and register their descriptors."""

    def ready(self) -> bool:
        """Tell whether at least one slot would run a task at once."""

    def offer(self, tasks: Tasks) -> Sequence[FunctionId]:
        """Accept tasks to run; returns functions whose code is missing (their tasks wait for it)."""

    def fence(self, fence_s: float | None, until: float | None = None) -> None:
        """Have all slots killed whenever this process shows no life for so long, or past `until`; None: never.

        `until` is a monotonic instant, and counts whatever this process does; the next call replaces it.
        """

    def kill(self, attempts: Sequence[Held]) -> None:
        """Stop these attempts; each is reported as CANCELLED (or as it ended, if that came first)."""

    def running(self) -> Sequence[Held]:
        """Return all attempts accepted and not yet reported."""

    def turn(self, now: float, ready_fds: Collection[int]) -> Sequence[Outcome]:
        """Do what is due without blocking, and return what has ended. `now` is monotonic seconds."""

    def said(self, now: float) -> Said | None:
        """Return what attempts have printed and how far they are, if that is due; to be told before what has ended.

        It is returned once. While nobody asks, the newest of it is kept, within bounds.
        """

    def said_timer(self) -> float | None:
        """Return the monotonic instant from which on `said` has something, or None."""

    def next_timer(self) -> float | None:
        """Return the monotonic instant at which `turn` has to be called at the latest, or None."""

    def close(self) -> None:
        """Kill all slots with all their descendants, and reap them. Idempotent."""


class LinkContext(Struct, frozen=True, kw_only=True):
    """What a dispatch mode gets to build its link from."""

    dispatcher_id: DispatcherId
    mode: str
    host: str  # address to listen on
    worker_port: int  # 0: any free one
    slots: int  # for modes that run slots themselves
    heartbeat_s: float
    liveness_s: float
    options: Mapping[str, Any]  # the plugin's own options, validated by its schema
    make_slots: Callable[[int], SlotHost]


class Link(Protocol):
    """A dispatcher's connection to executing capacity. Called by the loop's thread only; never blocks.

    The link owns sockets and frames; it decides nothing. It turns what it hears into events and sends what it is told.
    """

    credit: str  # "granted": workers ask for what they can run now; "capacity": announced at join, kept by us
    bound: bool  # True: its workers die with this process

    @property
    def address(self) -> str:
        """Where workers connect to, such as "tcp://127.0.0.1:5555", or "" when there is no such place."""

    def open(self, selector: Selector) -> None:
        """Listen, start, register descriptors. Raises PortInUse or ConfigError with a remedy."""

    def receive(self, now: float, ready_fds: Collection[int]) -> Sequence[LinkEvent]:
        """Return what has happened since the last call. Called every turn, with the descriptors that are ready."""

    def send(self, worker_id: WorkerId, message: ToWorker) -> None:
        """Send to a worker, or drop the message if it is unknown: its liveness will tell."""

    def fence(self, fence_s: float, until: float | None) -> None:
        """Bound links: have the slots killed when this process shows no life for so long, or at `until` in any case.

        Called with each renewal of the lease; `until` is None while nobody else could take over. Others do nothing.
        """

    def next_timer(self) -> float | None:
        """Return the monotonic instant at which `receive` has to be called at the latest, or None."""

    def close(self) -> None:
        """Close everything; for a bound link, kill and reap its slots. Idempotent."""


# ── transports, worker's side ────────────────────────────────────────────────────────────────────────────────────────


class UplinkContext(Struct, frozen=True, kw_only=True):
    """What a worker transport gets to build its uplink from."""

    url: str
    options: Mapping[str, Any]


class Uplink(Protocol):
    """A worker's connection to its dispatcher. Called by the agent's thread only; never blocks."""

    def open(self, selector: Selector) -> None:
        """Start connecting (there need not be anybody yet). Raises ConfigError for a bad url."""

    def receive(self) -> Sequence[ToWorker]:
        """Return the messages that have come in. Malformed ones are counted and dropped."""

    def pending(self) -> bool:
        """Tell whether `receive` has something that the descriptors will not tell of (again): do not wait then."""

    def send(self, message: ToDispatcher) -> None:
        """Queue a message for the dispatcher; while not connected it may be dropped: the session repeats itself."""

    def reconnect(self, url: str | None = None) -> None:
        """Begin anew with a fresh connection and identity, to `url` if given: whatever was queued is forgotten."""

    def absent(self, url: str) -> bool:
        """Tell whether it is certain that nobody listens at `url` (a connection is refused). Takes ≤ 0.1 s.

        False when in doubt: a silent network is no proof.
        """

    def close(self) -> None:
        """Close everything. What was sent just before (a Bye) still gets up to a second to leave. Idempotent."""
