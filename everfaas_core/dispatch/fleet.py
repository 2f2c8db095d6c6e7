"""The workers that are joined: their credit, their load, and when they were last heard of."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from typing import Final, Literal

from msgspec import Struct, field

from everfaas_core.dispatch.events import Joined
from everfaas_core.dispatch.strategy import Strategy, WorkerView
from everfaas_core.model.ids import FunctionId, TaskId, WorkerId
from everfaas_core.wire.messages import Held

AHEAD_BYTES_MAX: Final = 32 * 1024 * 1024
"""Bytes of large payloads that a worker is sent before its slots are free for them. A free slot is given any."""

COUNTED_BYTES: Final = 64 * 1024
"""Smaller payloads are not counted: the number of tasks bounds them."""

CreditRule = Literal["granted", "capacity"]


class Worker(Struct):
    """A worker since its last Hello: each begins a new incarnation, told apart by its `epoch`.

    `attempts` maps each task it holds to the attempt's token.
    """

    worker_id: WorkerId
    slots: int
    granted: int
    joined_at: float
    last_seen: float
    window: int = 0  # tasks that it wants to have at hand; its slots, until it says otherwise
    sent: int = 0  # tasks assigned since it (last) said Hello; `granted` counts from there too
    epoch: int = 0  # of its last Hello
    draining: bool = False
    welcomed: bool = False  # since its last Hello; before that it would ignore tasks
    confirmed: bool = False  # it was heard of since it was welcomed: it counts on us, and on nobody else
    unanswered: set[Held] = field(default_factory=set)  # presented, and the store has not said whose they are
    presented: dict[TaskId, int] = field(default_factory=dict)  # by its last Hello
    unwanted: list[Held] = field(default_factory=list)  # presented and stale: to be killed when it is welcomed
    reachable: bool = True  # False from a failed send until it is heard of again
    attempts: dict[TaskId, int] = field(default_factory=dict)
    sizes: dict[TaskId, int] = field(default_factory=dict)  # bytes of the large payloads among them
    functions: set[FunctionId] = field(default_factory=set)  # whose code it has been sent
    host: str = ""
    pid: int = 0
    python: str = ""
    dill: str = ""

    @property
    def load(self) -> int:
        """Tasks assigned and not ended."""
        return len(self.attempts)


class Fleet:
    """All joined workers. Tells the strategy of every change, and keeps the sum of all credit.

    The credit rule is the whole difference between pull and push: "granted" hands out what workers have asked for,
    "capacity" what they have announced, at join and since, and do not hold yet.
    """

    def __init__(self, strategy: Strategy, rule: CreditRule) -> None:
        self._strategy = strategy
        self._rule = rule
        self._workers: OrderedDict[WorkerId, Worker] = OrderedDict()  # longest unheard first
        self._credit: dict[WorkerId, int] = {}
        self.credit = 0
        self._held_bytes = 0  # of large payloads
        self.ahead = False  # tasks are sent to wait in workers, because they are quick

    def __len__(self) -> int:
        return len(self._workers)

    def __iter__(self) -> Iterator[Worker]:
        return iter(self._workers.values())

    def get(self, worker_id: WorkerId) -> Worker | None:
        """Return a joined worker, or None."""
        return self._workers.get(worker_id)

    def credit_of(self, worker: Worker) -> int:
        """Return how many tasks this worker will still accept."""
        if worker.draining or not worker.reachable or not worker.welcomed:
            return 0
        credit = worker.granted - worker.sent if self._rule == "granted" else worker.window - worker.load
        return max(credit if self.ahead else min(credit, worker.slots - worker.load), 0)

    def look_ahead(self, ahead: bool) -> None:
        """Use all of the credit from now on, or only as much as there are free slots.

        What waits in a worker is RUNNING for all the world: only what is quick may be sent to wait there.
        """
        if ahead != self.ahead:
            self.ahead = ahead
            for worker in self._workers.values():
                self._changed(worker)

    def join(self, now: float, event: Joined, presented: dict[TaskId, int]) -> Worker:
        """Add a worker, or begin a joined one's counts anew after a repeated Hello."""
        worker = self._workers.get(event.worker_id)
        if worker is None:
            worker = Worker(event.worker_id, event.slots, event.granted, now, now)
            self._workers[event.worker_id] = worker
        worker.slots, worker.granted, worker.sent = event.slots, event.granted, 0
        worker.window = event.slots
        worker.host, worker.pid, worker.python, worker.dill = event.host, event.pid, event.python, event.dill
        worker.epoch, worker.presented = event.epoch, presented
        worker.welcomed = worker.confirmed = False
        worker.unanswered.clear()
        worker.functions.clear()
        self.seen(now, worker)
        self._changed(worker)
        return worker

    def welcome(self, worker: Worker) -> None:
        """From now on a worker takes tasks."""
        worker.welcomed = True
        self._changed(worker)

    def seen(self, now: float, worker: Worker) -> None:
        """Note that a worker lives."""
        worker.last_seen = now
        self._workers.move_to_end(worker.worker_id)
        if not worker.reachable:
            worker.reachable = True
            self._changed(worker)

    def unreachable(self, worker: Worker) -> None:
        """Give a worker nothing more until it is heard of again."""
        worker.reachable = False
        self._changed(worker)

    def grant(self, worker: Worker, granted: int, window: int = 0) -> None:
        """Raise a worker's cumulative credit; a lower (reordered, repeated) figure changes nothing. Set its window."""
        if granted > worker.granted or (window and window != worker.window):
            worker.granted = max(granted, worker.granted)
            worker.window = window or worker.window
            self._changed(worker)

    def room_bytes(self) -> int:
        """Return how many bytes of large payloads may be sent ahead; less than none when it is too many already."""
        return AHEAD_BYTES_MAX * len(self._workers) - self._held_bytes

    def free_slots(self) -> int:
        """Return how many slots have nothing to do, as far as there is credit for them."""
        return sum(min(self.credit_of(one), max(one.slots - one.load, 0)) for one in self._workers.values())

    def assign(self, worker: Worker, task_id: TaskId, attempt: int, size_bytes: int = 0) -> None:
        """Use one credit of a worker for an attempt with a payload of so many bytes."""
        if size_bytes >= COUNTED_BYTES:
            worker.sizes[task_id] = size_bytes
            self._held_bytes += size_bytes
        worker.sent += 1
        worker.attempts[task_id] = attempt
        self._changed(worker)

    def hold(self, worker: Worker, task_id: TaskId, attempt: int) -> None:
        """Note that a worker runs an attempt already; costs no credit of what it has granted since."""
        worker.attempts[task_id] = attempt
        self._changed(worker)

    def release(self, worker_id: WorkerId, task_id: TaskId, attempt: int, *, unsent: bool = False) -> None:
        """Note that a worker holds an attempt no longer; with `unsent` it gets its credit back as well."""
        worker = self._workers.get(worker_id)
        if worker is None or worker.attempts.get(task_id) != attempt:
            return
        del worker.attempts[task_id]
        if worker.sizes:
            self._held_bytes -= worker.sizes.pop(task_id, 0)
        if unsent:
            worker.sent -= 1
        self._changed(worker)

    def drain(self, worker: Worker) -> None:
        """Give a worker nothing more."""
        worker.draining = True
        self._changed(worker)

    def remove(self, worker: Worker) -> None:
        """Forget a worker."""
        del self._workers[worker.worker_id]
        self._held_bytes -= sum(worker.sizes.values())
        self.credit -= self._credit.pop(worker.worker_id, 0)
        self._strategy.remove(worker.worker_id)

    def pick(self, function_id: FunctionId) -> Worker | None:
        """Ask the strategy for the worker of a task of this function; None when nobody has credit."""
        if self.credit <= 0:
            return None
        worker_id = self._strategy.pick(function_id)
        return None if worker_id is None else self._workers.get(worker_id)

    def code_sent(self, worker: Worker, function_id: FunctionId) -> bool:
        """Note that a worker is sent code; return False if it had been sent before."""
        if function_id in worker.functions:
            return False
        worker.functions.add(function_id)
        self._strategy.loaded(worker.worker_id, function_id)
        return True

    def silent(self, since: float) -> list[Worker]:
        """Return the workers that were last seen before `since`."""
        lost = []
        for worker in self._workers.values():
            if worker.last_seen >= since:
                break
            lost.append(worker)
        return lost

    def longest_silent(self) -> float | None:
        """Return when the longest unheard worker was last seen."""
        worker = next(iter(self._workers.values()), None)
        return None if worker is None else worker.last_seen

    def _changed(self, worker: Worker) -> None:
        credit = self.credit_of(worker)
        self.credit += credit - self._credit.get(worker.worker_id, 0)
        self._credit[worker.worker_id] = credit
        self._strategy.update(WorkerView(worker.worker_id, worker.slots, credit, worker.load))
