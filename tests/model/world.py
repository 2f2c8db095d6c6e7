"""A shadow world for the dispatch machine: its own store, workers and network, with its own ledger of what is true.

Nothing here reads the machine's fields. The world carries out the machine's actions, keeps count of what it may do,
and raises `Broken` as soon as it does something that the promise forbids.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from everfaas_core.dispatch import actions as do
from everfaas_core.dispatch import events as ev
from everfaas_core.dispatch.machine import Machine, MachineConfig
from everfaas_core.model.records import AdoptedTask, ClaimedTask
from everfaas_core.model.states import Cause, Status
from everfaas_core.wire.messages import Held, Outcome
from everfaas_plugins.least_loaded import LeastLoaded
from everfaas_plugins.round_robin import RoundRobin

LIVENESS_S = 2.0
FENCE_S = 1.5  # silence after which a worker mistrusts what it was sent: less than LIVENESS_S
HELLO_S = 1.0  # without a Welcome for so long a worker says Hello again, on a new connection
ADOPTION_S = 5.0
MAX_ATTEMPTS = 3


class Broken(AssertionError):
    """The machine did what it must never do."""


@dataclass
class Task:
    """The store's truth of a task."""

    task_id: str
    where: str = "queue"  # queue | claimed | running | ended
    attempt: int = 0
    charged: int = 0
    worker: str = ""
    owner: int = 0  # the dispatcher that holds the claim, by number
    cancel: bool = False
    status: Status | None = None
    reported: dict[int, Cause] = field(default_factory=dict)  # attempt → what its worker truly reported


@dataclass
class Worker:
    worker_id: str
    slots: int
    running: dict[str, int] = field(default_factory=dict)
    unacknowledged: dict[Held, Cause] = field(default_factory=dict)
    granted: int = 0
    received: int = 0
    inbox: list[do.Action] = field(default_factory=list)
    outbox: list[ev.LinkEvent] = field(default_factory=list)
    hung: bool = False
    hung_at: float = 0.0
    away: bool = False  # its connection broke, and the dispatcher has not heard its Hello over the new one
    epoch: int = 0
    welcomed: bool = False  # since its last Hello
    hello_at: float = 0.0
    said: list[ev.Ended] = field(default_factory=list)
    fenced: dict[str, int] = field(default_factory=dict)  # what ran when it fell silent


class World:
    def __init__(self, rule: str = "granted", machine_class: type[Machine] = Machine, *, company: bool = True) -> None:
        self.rule = rule
        self.machine_class = machine_class
        self.company = company  # whether the dispatcher knows of others
        self.now = 0.0
        self.tasks: dict[str, Task] = {}
        self.queue: list[str] = []
        self.workers: dict[str, Worker] = {}
        self.asked: list[do.Action] = []  # of the store, not answered yet
        self.orphans: list[str] = []  # RUNNING claims of dead dispatchers, until the sweep hands them over
        self.born = 0
        self.dispatcher = 0
        self.ran = 0
        self.begin_dispatcher()

    # ── commands ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def begin_dispatcher(self) -> None:
        """Start a dispatcher; the one before, if any, died with all it knew."""
        for task in self.tasks.values():
            if task.where == "claimed":
                self._enqueue(task, head=True)
            elif task.where == "running" and task.task_id not in self.orphans:
                self.orphans.append(task.task_id)
        self.dispatcher += 1
        self.asked.clear()
        for worker in self.workers.values():
            worker.inbox.clear()
            worker.outbox.clear()
        strategy = RoundRobin() if self.rule == "granted" else LeastLoaded()
        config = MachineConfig(rule=self.rule, liveness_s=LIVENESS_S, adoption_s=ADOPTION_S)
        self.machine = self.machine_class(config, strategy)
        self.step(ev.Company(self.company), ev.Rung())

    def submit(self, count: int = 1) -> None:
        for _ in range(count):
            task = Task(f"task-{len(self.tasks)}")
            self.tasks[task.task_id] = task
            self.queue.append(task.task_id)
        self.step(ev.Rung())

    def join(self, slots: int) -> None:
        worker = Worker(f"worker-{self.born}", slots)
        self.born += 1
        self.workers[worker.worker_id] = worker
        self._hello(worker)

    def finish(self, worker: Worker, task_id: str, cause: Cause) -> None:
        """An attempt ends on a worker, which reports it at once."""
        attempt = worker.running.pop(task_id)
        worker.granted += 1
        worker.unacknowledged[task_id, attempt] = cause
        self.tasks[task_id].reported[attempt] = cause
        if worker.welcomed:
            self._report(worker, [(task_id, attempt)])

    def echo(self, worker: Worker, which: int) -> None:
        """Something the worker reported before is heard a second time, late."""
        self.step(worker.said[which % len(worker.said)])

    def hang(self, worker: Worker) -> None:
        """A worker falls silent; its slots fence themselves, as real ones do."""
        if not worker.hung:
            worker.hung, worker.hung_at = True, self.now
            worker.fenced, worker.running = worker.running, {}

    def wake(self, worker: Worker) -> None:
        """It finds its slots dead, and reports that.

        One that has noticed a long silence of its own runs nothing of what was sent before: it says Hello first.
        """
        if not worker.hung:
            return
        worker.hung = False
        worker.running, worker.fenced = worker.fenced, {}
        overslept = self.now - worker.hung_at >= FENCE_S
        worker.welcomed = worker.welcomed and not overslept
        for task_id in list(worker.running):
            self.finish(worker, task_id, Cause.SLOT_CRASHED)
        if overslept:
            self._hello(worker)

    def break_connection(self, worker: Worker) -> None:
        """What was on the way, either way, is lost; the worker says Hello again with what it holds."""
        worker.inbox.clear()
        worker.outbox.clear()
        worker.away = True
        self._hello(worker)

    def leave(self, worker: Worker) -> None:
        """A worker drains: what runs is finished first, and all it sent before arrives before its Bye."""
        for task_id in list(worker.running):
            self.finish(worker, task_id, Cause.OK)
        worker.outbox.append(ev.Left(worker.worker_id))
        self.hear(worker)
        del self.workers[worker.worker_id]

    def cancel(self, task_id: str) -> None:
        task = self.tasks[task_id]
        if task.where == "queue" and task.attempt == 0:
            self.queue.remove(task_id)
            self._end(task, Status.CANCELLED)
        elif task.where != "ended":
            task.cancel = True
            self.step(ev.CancelAsked((task_id,)))

    def advance(self, seconds: float) -> None:
        """Time passes; everyone who is not hung beats twice a second."""
        for _ in range(int(seconds * 2)):
            self.now += 0.5
            for worker in list(self.workers.values()):
                if not worker.hung:
                    if worker.welcomed:
                        worker.outbox.append(ev.Beaten(worker.worker_id, worker.granted))
                    elif self.now - worker.hello_at >= HELLO_S:
                        self.break_connection(worker)
                    self.hear(worker)
            self.step()
            self.deliver_all()

    def sweep(self) -> None:
        """The dead dispatcher's lease has run out: its RUNNING claims are handed over."""
        adopted = []
        for task_id in self.orphans:
            task = self.tasks[task_id]
            if task.where == "running" and task.owner != self.dispatcher:
                task.owner = self.dispatcher
                adopted.append(AdoptedTask(task=self._claimed(task), worker=task.worker))
        self.orphans.clear()
        if adopted:
            self.step(ev.Adopted(tuple(adopted)))

    def hear(self, worker: Worker) -> None:
        """The dispatcher takes in what a worker has sent."""
        sent, worker.outbox = worker.outbox, []
        if sent:
            worker.away = False
            self.step(*sent)

    def deliver_all(self) -> None:
        for worker in list(self.workers.values()):
            self.deliver(worker)

    def answer(self) -> None:
        """The store answers all it was asked, in its own order, in one exchange."""
        asked, self.asked = self.asked, []
        events: list[ev.Event] = []
        settled: list[Held] = []
        for action in asked:
            if isinstance(action, do.FinishAttempt):
                self._store_finish(action)
                settled.append((action.task_id, action.attempt))
        for action in asked:
            if isinstance(action, do.RequeueAttempt):
                self._store_requeue(action)
                settled.append((action.task_id, action.attempt))
        if settled:
            events.append(ev.Settled(tuple(settled)))
        accepted: list[Held] = []
        refused: list[Held] = []
        for action in asked:
            if isinstance(action, do.StartAttempt):
                (accepted if self._store_start(action) else refused).append((action.task_id, action.attempt))
        if accepted or refused:
            events.append(ev.Started(tuple(accepted), tuple(refused)))
        for action in asked:
            if isinstance(action, do.AdoptAttempt):
                task = self._store_adopt(action)
                events.append(ev.Answered((action.task_id, action.attempt), action.worker_id, action.epoch, task))
        for action in asked:
            if isinstance(action, do.Claim):
                events.append(self._store_claim(action.count))
        if events:
            self.step(*events)

    # ── the store ────────────────────────────────────────────────────────────────────────────────────────────────────

    def _claimed(self, task: Task) -> ClaimedTask:
        return ClaimedTask(
            task_id=task.task_id,
            function_id="f",
            payload=b"",
            attempt=task.attempt,
            charged=task.charged,
            max_attempts=MAX_ATTEMPTS,
        )

    def _store_claim(self, count: int) -> ev.Claimed:
        if count < 1:
            raise Broken(f"a claim of {count}")
        taken, self.queue = self.queue[:count], self.queue[count:]
        for task_id in taken:
            self.tasks[task_id].where = "claimed"
        return ev.Claimed(count, tuple(self._claimed(self.tasks[task_id]) for task_id in taken))

    def _store_adopt(self, action: do.AdoptAttempt) -> ClaimedTask | None:
        task = self.tasks[action.task_id]
        if (task.where, task.attempt, task.worker) != ("running", action.attempt, action.worker_id):
            return None
        task.owner = self.dispatcher
        return self._claimed(task)

    def _store_start(self, action: do.StartAttempt) -> bool:
        task = self.tasks[action.task_id]
        if action.attempt != task.attempt + 1 or task.where != "claimed":
            raise Broken(f"start of {action} while the store has {task}")
        if task.cancel:
            self._end(task, Status.CANCELLED)
            return False
        task.where, task.attempt, task.worker = "running", action.attempt, action.worker_id
        task.owner = self.dispatcher
        return True

    def _store_finish(self, action: do.FinishAttempt) -> None:
        task = self.tasks[action.task_id]
        if action.reason is None and action.attempt not in task.reported:
            raise Broken(f"{action}: no worker ever reported this attempt, whose result is this?")
        if task.where == "ended" or task.attempt != action.attempt:
            return  # the fence
        if task.where == "queue":
            return  # not a claim of anybody: requeued, and its old attempt comes too late
        if action.status is Status.CANCELLED and not task.cancel:
            raise Broken(f"{action}: nobody cancelled it")
        if action.status is Status.COMPLETED and task.reported.get(action.attempt) is not Cause.OK:
            raise Broken(f"{action}: its worker said {task.reported.get(action.attempt)}")
        self._end(task, action.status)

    def _store_requeue(self, action: do.RequeueAttempt) -> None:
        task = self.tasks[action.task_id]
        if task.where not in ("claimed", "running") or task.attempt != action.attempt:
            return
        if task.where == "running" and task.owner != self.dispatcher:
            return
        task.charged += action.charged
        if task.charged >= MAX_ATTEMPTS:
            raise Broken(f"{action}: its attempts were used up")
        if task.cancel:
            self._end(task, Status.CANCELLED)
        else:
            self._enqueue(task, head=True)

    def _enqueue(self, task: Task, *, head: bool) -> None:
        task.where = "queue"
        self.queue.insert(0 if head else len(self.queue), task.task_id)

    def _end(self, task: Task, status: Status) -> None:
        if task.status is not None:
            raise Broken(f"{task} ended twice")
        task.where, task.status = "ended", status

    # ── the workers ──────────────────────────────────────────────────────────────────────────────────────────────────

    def _hello(self, worker: Worker) -> None:
        held = [*worker.running.items(), *worker.unacknowledged]
        worker.granted = worker.slots - len(worker.running)
        worker.received = 0
        worker.epoch += 1
        worker.welcomed, worker.hello_at = False, self.now
        worker.said.clear()  # one connection keeps order: nothing said before a Hello is heard after it
        worker.outbox.append(
            ev.Joined(worker.worker_id, worker.slots, worker.granted, held=tuple(held), epoch=worker.epoch)
        )

    def _report(self, worker: Worker, helds: list[Held]) -> None:
        worker.said.append(self._ended(worker, helds))
        worker.outbox.append(worker.said[-1])

    def _welcomed(self, worker: Worker) -> None:
        """It beats at once, and reports all that was not acknowledged."""
        if worker.welcomed:
            return
        worker.welcomed = True
        worker.outbox.append(ev.Beaten(worker.worker_id, worker.granted))
        if worker.unacknowledged:
            self._report(worker, list(worker.unacknowledged))

    def _ended(self, worker: Worker, helds: list[Held]) -> ev.Ended:
        items = []
        for held in helds:
            cause = worker.unacknowledged[held]
            has_result = cause in (Cause.OK, Cause.RAISED)
            items.append(Outcome(*held, cause, b"result" if has_result else b"", None if has_result else "why"))
        return ev.Ended(worker.worker_id, tuple(items), worker.granted)

    def deliver(self, worker: Worker) -> None:
        """A worker takes in what was sent to it."""
        if worker.hung:
            return
        inbox, worker.inbox = worker.inbox, []
        for action in inbox:
            match action:
                case do.Welcomed():
                    self._welcomed(worker)
                case do.Run():
                    self._run(worker, action)
                case do.Acknowledge(_, items):
                    for held in items:
                        worker.unacknowledged.pop(held, None)
                case do.KillAttempts(_, items) if worker.welcomed:
                    for task_id, attempt in items:
                        if worker.running.get(task_id) == attempt:
                            self.finish(worker, task_id, Cause.CANCELLED)
                case do.AskedAgain():
                    self._hello(worker)

    def _run(self, worker: Worker, action: do.Run) -> None:
        if action.epoch != worker.epoch:
            return
        if not worker.welcomed:
            raise Broken(f"{worker} was sent {action} before it was welcomed")
        task = self.tasks[action.task_id]
        self.ran += 1
        worker.received += 1
        if self.rule == "granted" and worker.received > worker.granted:
            raise Broken(f"{worker} was sent more than it granted")
        if len(worker.running) >= worker.slots:
            raise Broken(f"{worker} was sent {action} though all its slots are busy")
        if task.where == "running" and task.attempt == action.attempt and task.worker != worker.worker_id:
            raise Broken(f"{action} was stored for {task.worker}")
        if task.attempt < action.attempt:
            raise Broken(f"{action} was sent before it was stored")
        for other in self.workers.values():
            if action.task_id in other.running:
                raise Broken(f"{action} overlaps with an attempt on {other}")
        worker.running[action.task_id] = action.attempt

    # ── the machine ──────────────────────────────────────────────────────────────────────────────────────────────────

    def step(self, *events: ev.Event) -> None:
        for action in self.machine.step(self.now, list(events)):
            match action:
                case do.StartAttempt() | do.AdoptAttempt() | do.FinishAttempt() | do.RequeueAttempt() | do.Claim():
                    self.asked.append(action)
                case _:
                    worker = self.workers.get(action.worker_id)
                    if worker is not None and not worker.away:
                        worker.inbox.append(action)

    def settle(self) -> None:
        """Let everything that can happen happen, all for the best, and demand that every task has ended."""
        for worker in list(self.workers.values()):
            self.wake(worker)
        self.sweep()
        if not self.workers:
            self.join(1)
        for _ in range(60 + 4 * len(self.tasks)):
            for worker in list(self.workers.values()):
                for task_id in list(worker.running):
                    self.finish(worker, task_id, Cause.OK)
            self.advance(1.0)
            self.step(ev.Rung(), *[ev.CancelAsked((t.task_id,)) for t in self.tasks.values() if t.cancel])
            while self.asked:
                self.answer()
            self.deliver_all()
            if all(task.status is not None for task in self.tasks.values()) and self.machine.idle():
                return
        stuck = [task for task in self.tasks.values() if task.status is None]
        raise Broken(f"never ended: {stuck}; queue {self.queue}; idle {self.machine.idle()}")
