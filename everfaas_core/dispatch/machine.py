"""The one machine that decides: `step(now, events) -> actions`.

It holds the tasks that this dispatcher has claimed and the workers that have joined it, and nothing else: no clock, no
I/O, no payloads. The runtime carries its actions out, the store's part of a step in one round trip and before anything
is sent, and feeds the answers back as events. Local, pull, push and every engine mode run this same code.

A task's way: Claim → Claimed → StartAttempt → Started → Run → Ended → FinishAttempt → Settled → Acknowledge.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from msgspec import Struct

from everfaas_core.dispatch import actions as do
from everfaas_core.dispatch import events as ev
from everfaas_core.dispatch.adoption import Adoption
from everfaas_core.dispatch.entries import Entry, Phase, entry_of
from everfaas_core.dispatch.fleet import CreditRule, Fleet, Worker
from everfaas_core.dispatch.retries import verdict
from everfaas_core.dispatch.strategy import Strategy
from everfaas_core.model.ids import TaskId, WorkerId
from everfaas_core.model.records import ClaimedTask
from everfaas_core.model.states import ENDS_AS, RETRIED, Cause
from everfaas_core.wire.messages import Held, Outcome

CLAIM_MAX: Final = 512


class MachineConfig(Struct, frozen=True, kw_only=True):
    rule: CreditRule = "granted"
    bound: bool = False  # the workers live in our process: no heartbeats, and they die with us
    liveness_s: float = 2.0  # silence after which a worker is lost
    adoption_s: float = 5.0  # how long a dead dispatcher's attempts may take to be presented by their workers
    default_timeout_s: float | None = None  # for tasks and functions that name none


class Machine:
    """See the module. One instance, one thread; `now` is monotonic seconds and never goes back."""

    def __init__(self, config: MachineConfig, strategy: Strategy) -> None:
        self.config = config
        self.fleet = Fleet(strategy, config.rule)
        self.entries: dict[TaskId, Entry] = {}
        self.draining = False
        self._adoption = Adoption(config.adoption_s)
        self._foreign: dict[Held, WorkerId] = {}  # outcomes being stored whose claims we never held
        self._claiming = False
        self._look = True  # the store may have something to claim
        self._due_at: float | None = None  # when a delayed task becomes due
        self._out: list[do.Action] = []

    def step(self, now: float, events: Iterable[ev.Event]) -> list[do.Action]:
        """Take in what has happened, and return what is to be done, in order."""
        for event in events:
            self._take(now, event)
        self._pass_time(now)
        self._claim()
        out, self._out = self._out, []
        return out

    def next_timer(self) -> float | None:
        """Return the instant at which `step` has to be called at the latest, or None."""
        times = []
        adoption = self._adoption.next_timer()
        if adoption is not None:
            times.append(adoption)
        if self._due_at is not None and self.fleet.credit and not self.draining:
            times.append(self._due_at)
        silent = self.fleet.longest_silent()
        if silent is not None and not self.config.bound:
            times.append(silent + self.config.liveness_s)
        return min(times, default=None)

    def idle(self) -> bool:
        """Tell whether no claimed task is held and nothing is on its way to the store."""
        return not self.entries and not self._foreign and not self._claiming

    # ── events ───────────────────────────────────────────────────────────────────────────────────────────────────────

    def _take(self, now: float, event: ev.Event) -> None:
        match event:
            case ev.Ended():
                self._on_ended(now, event)
            case ev.Settled(items):
                for held in items:
                    self._on_settled(held)
            case ev.Started(accepted, refused):
                for held in accepted:
                    self._on_accepted(now, held)
                for held in refused:
                    self._on_refused(held)
            case ev.Claimed(asked, tasks, next_due_s):
                self._on_claimed(now, asked, tasks, next_due_s)
            case ev.Beaten(worker_id, granted):
                worker = self._heard(now, worker_id)
                if worker is not None:
                    self.fleet.grant(worker, granted)
                    self._out.append(do.Pulsed(worker_id))
            case ev.Draining(worker_id):
                worker = self._heard(now, worker_id)
                if worker is not None:
                    self.fleet.drain(worker)
            case ev.Rung():
                self._look = True
            case ev.Joined():
                self._on_joined(now, event)
            case ev.Left(worker_id, returned):
                if (worker := self.fleet.get(worker_id)) is not None:
                    self._remove(worker, set(returned), expelled=False)
            case ev.Undelivered(worker_id, items):
                self._on_undelivered(worker_id, items)
            case ev.CodeMissing(worker_id, functions):
                if self._heard(now, worker_id) is not None:
                    self._out.append(do.SendCode(worker_id, functions))
            case ev.CancelAsked(tasks):
                for task_id in tasks:
                    self._on_cancel(task_id)
            case ev.Adopted(tasks):
                for adopted in tasks:
                    self._on_adopted(now, adopted.task, adopted.worker)
            case ev.Evicted():
                self._on_evicted()
            case ev.Drained():
                self.draining = True
            case ev.WorkerDrained(worker_id):
                worker = self.fleet.get(worker_id)
                if worker is not None:
                    self.fleet.drain(worker)
                    self._out.append(do.QuitWorker(worker_id))

    def _heard(self, now: float, worker_id: WorkerId) -> Worker | None:
        """Return the joined worker that spoke; answer one that is not joined, and return None."""
        worker = self.fleet.get(worker_id)
        if worker is not None:
            self.fleet.seen(now, worker)
        elif self.fleet.is_expelled(worker_id):
            self._refuse_expelled(worker_id)
        else:
            self._out.append(do.AskedAgain(worker_id))
        return worker

    def _refuse_expelled(self, worker_id: WorkerId) -> None:
        reason = f"silent for longer than {self.config.liveness_s:g} s; its tasks were given to others"
        self._out.append(do.Refused(worker_id, "expired", reason, True))

    # ── workers come and go ──────────────────────────────────────────────────────────────────────────────────────────

    def _on_joined(self, now: float, event: ev.Joined) -> None:
        if event.rejected is not None:
            self._out.append(do.Refused(event.worker_id, "handshake", event.rejected, False))
            return
        if self.fleet.is_expelled(event.worker_id):
            self._refuse_expelled(event.worker_id)
            return
        held = dict(event.held)
        known = self.fleet.get(event.worker_id)
        if known is not None:  # what we sent and it does not hold was lost on the way, and never began
            for task_id, attempt in list(known.attempts.items()):
                if held.get(task_id) != attempt:
                    self._lose(known.worker_id, task_id, attempt, began=False)
        worker = self.fleet.join(now, event)
        self._out.append(do.Welcomed(worker.worker_id))
        stale = [one for one in event.held if not self._present(now, worker, one)]
        if stale:
            self._out.append(do.KillAttempts(worker.worker_id, tuple(stale)))

    def _present(self, now: float, worker: Worker, held: Held) -> bool:
        """Take note that a worker holds an attempt; return False if it is stale."""
        task_id, attempt = held
        entry = self.entries.get(task_id)
        if entry is None:
            self._adoption.present(now, held, worker.worker_id)
            self.fleet.hold(worker, task_id, attempt)
            return True
        if entry.attempt != attempt or entry.worker_id != worker.worker_id:
            return False
        if entry.phase is Phase.ADOPTED:
            self._resume(entry)
        self.fleet.hold(worker, task_id, attempt)
        return True

    def _on_adopted(self, now: float, task: ClaimedTask, worker_id: WorkerId) -> None:
        if task.task_id in self.entries:
            return
        entry = entry_of(now, task, Phase.ADOPTED, self.config.default_timeout_s)
        entry.worker_id = worker_id
        self.entries[task.task_id] = entry
        self._adoption.await_worker(now, task.task_id)
        if self._adoption.presenter((task.task_id, task.attempt)) == worker_id:
            self._resume(entry)

    def _resume(self, entry: Entry) -> None:
        entry.move(Phase.RUNNING)
        self._adoption.found(entry.task_id)
        if entry.cancelled:
            self._kill(entry)

    def _remove(self, worker: Worker, returned: set[Held], *, expelled: bool) -> None:
        for task_id, attempt in list(worker.attempts.items()):
            self._lose(worker.worker_id, task_id, attempt, began=(task_id, attempt) not in returned)
        self._foreign = {held: owner for held, owner in self._foreign.items() if owner != worker.worker_id}
        self.fleet.remove(worker, expelled=expelled)

    def _on_undelivered(self, worker_id: WorkerId, items: Iterable[Held]) -> None:
        worker = self.fleet.get(worker_id)
        if worker is not None:
            self.fleet.unreachable(worker)
        for task_id, attempt in items:
            self._lose(worker_id, task_id, attempt, began=False)

    def _lose(self, worker_id: WorkerId, task_id: TaskId, attempt: int, *, began: bool) -> None:
        """Deal with an attempt that a worker holds no longer, without an outcome."""
        self.fleet.release(worker_id, task_id, attempt, unsent=not began)
        self._adoption.presenter((task_id, attempt))
        entry = self.entries.get(task_id)
        if entry is None or entry.attempt != attempt or entry.worker_id != worker_id:
            return
        if entry.phase is Phase.RUNNING:
            cause = Cause.WORKER_LOST if began else Cause.GIVEN_BACK
            self._resolve(entry, cause, f"worker {worker_id} was lost" if began else "never began")
        # STARTING: the store's answer comes first, then `_on_accepted` finds the worker gone.
        # SETTLING: its end is on the way to the store already.

    # ── the store answers ────────────────────────────────────────────────────────────────────────────────────────────

    def _on_claimed(self, now: float, asked: int, tasks: Iterable[ClaimedTask], next_due_s: float | None) -> None:
        self._claiming = False
        count = 0
        for task in tasks:
            count += 1
            if task.task_id not in self.entries:
                self._place(now, task)
        if count and count >= asked:
            self._look = True
        self._due_at = None if next_due_s is None else now + next_due_s

    def _place(self, now: float, task: ClaimedTask) -> None:
        """Choose a worker, or give the task back if nobody has credit any more."""
        entry = entry_of(now, task, Phase.STARTING, self.config.default_timeout_s)
        self.entries[task.task_id] = entry
        limit_s = entry.limit_s(now)
        if limit_s is not None and limit_s <= 0:
            self._resolve(entry, Cause.DEADLINE, "exceeded deadline before it could start")
            return
        worker = None if self.draining else self.fleet.pick(task.function_id)
        if worker is None:
            self._resolve(entry, Cause.GIVEN_BACK, "no worker had room for it")
            return
        entry.attempt += 1
        entry.worker_id = worker.worker_id
        self.fleet.assign(worker, task.task_id, entry.attempt)
        self._out.append(do.StartAttempt(task.task_id, entry.attempt, worker.worker_id))

    def _on_accepted(self, now: float, held: Held) -> None:
        entry = self._entry(held, Phase.STARTING)
        if entry is None:
            return
        assert entry.worker_id is not None
        worker = self.fleet.get(entry.worker_id)
        if worker is None or worker.attempts.get(entry.task_id) != entry.attempt:
            entry.move(Phase.RUNNING)
            self._resolve(entry, Cause.GIVEN_BACK, "its worker left before it was sent")
            return
        if entry.cancelled:
            self.fleet.release(worker.worker_id, entry.task_id, entry.attempt, unsent=True)
            self._resolve(entry, Cause.CANCELLED, "cancelled")
            return
        entry.move(Phase.RUNNING)
        self._out.append(
            do.Run(
                worker.worker_id,
                worker.epoch,
                entry.task_id,
                entry.attempt,
                entry.function_id,
                entry.limit_s(now),
                self.fleet.code_sent(worker, entry.function_id),
            )
        )

    def _on_refused(self, held: Held) -> None:
        entry = self._entry(held, Phase.STARTING)
        if entry is None:
            return
        assert entry.worker_id is not None
        self.fleet.release(entry.worker_id, entry.task_id, entry.attempt, unsent=True)
        del self.entries[entry.task_id]
        self._look = True

    def _on_settled(self, held: Held) -> None:
        foreign = self._foreign.pop(held, None)
        if foreign is not None:
            self._out.append(do.Acknowledge(foreign, (held,)))
        entry = self._entry(held, Phase.SETTLING)
        if entry is None:
            return
        del self.entries[entry.task_id]
        if entry.ended and entry.worker_id is not None:
            self._out.append(do.Acknowledge(entry.worker_id, (held,)))

    def _entry(self, held: Held, phase: Phase) -> Entry | None:
        entry = self.entries.get(held[0])
        if entry is None or entry.attempt != held[1] or entry.phase is not phase:
            return None
        return entry

    def _on_evicted(self) -> None:
        """Others may hold our claims: let go of all of them, and stop what runs for us."""
        for worker in self.fleet:
            if worker.attempts:
                self._out.append(do.KillAttempts(worker.worker_id, tuple(worker.attempts.items())))
            worker.functions.clear()  # the store may have been flushed, and hold other code by now
            for task_id, attempt in list(worker.attempts.items()):
                self.fleet.release(worker.worker_id, task_id, attempt)
        self.entries.clear()
        self._adoption.clear()
        self._look = True

    # ── attempts end ─────────────────────────────────────────────────────────────────────────────────────────────────

    def _on_ended(self, now: float, event: ev.Ended) -> None:
        worker = self._heard(now, event.worker_id)
        if worker is None:
            return  # kept by the worker: it presents them with its Hello, or is expelled and fenced
        for outcome in event.items:
            self._on_outcome(worker, outcome)
        self.fleet.grant(worker, event.granted)

    def _on_outcome(self, worker: Worker, outcome: Outcome) -> None:
        held = (outcome.task_id, outcome.attempt)
        self.fleet.release(worker.worker_id, *held)
        entry = self.entries.get(outcome.task_id)
        if entry is None:
            self._on_foreign(worker, outcome)
        elif entry.attempt != outcome.attempt or entry.worker_id != worker.worker_id:
            self._out.append(do.Acknowledge(worker.worker_id, (held,)))  # stale: nobody wants it
        elif entry.phase in (Phase.RUNNING, Phase.ADOPTED):
            if entry.phase is Phase.ADOPTED:
                self._resume(entry)
            entry.ended = True
            reason = outcome.error or f"ended as {outcome.cause}"
            self._resolve(entry, outcome.cause, reason, has_result=bool(outcome.result))
        # SETTLING: a repeated outcome; it is acknowledged once it is stored.

    def _on_foreign(self, worker: Worker, outcome: Outcome) -> None:
        """Store an outcome whose claim we do not hold (yet): the store's fence decides whether it counts."""
        held = (outcome.task_id, outcome.attempt)
        self._adoption.presenter(held)
        if outcome.cause in RETRIED or outcome.cause in (Cause.GIVEN_BACK, Cause.CANCELLED):
            # Only a claim's holder may requeue or cancel; the sweep finds it. There is no result to lose.
            self._out.append(do.Acknowledge(worker.worker_id, (held,)))
            return
        if held not in self._foreign:
            self._foreign[held] = worker.worker_id
            reason = None if outcome.result else outcome.error or f"ended as {outcome.cause}"
            self._out.append(do.FinishAttempt(*held, ENDS_AS[outcome.cause], outcome.cause, reason))

    def _resolve(self, entry: Entry, cause: Cause, reason: str, *, has_result: bool = False) -> None:
        entry.move(Phase.SETTLING)
        self._out.append(verdict(entry, cause, reason, has_result=has_result))

    # ── cancel, time, claim ──────────────────────────────────────────────────────────────────────────────────────────

    def _on_cancel(self, task_id: TaskId) -> None:
        """Stop a task. Asked again by the store until the task is settled, so a lost Kill is repeated."""
        entry = self.entries.get(task_id)
        if entry is None:
            return
        entry.cancelled = True
        if entry.phase is Phase.RUNNING:
            self._kill(entry)

    def _kill(self, entry: Entry) -> None:
        assert entry.worker_id is not None
        self._out.append(do.KillAttempts(entry.worker_id, ((entry.task_id, entry.attempt),)))

    def _pass_time(self, now: float) -> None:
        if not self.config.bound:
            for worker in self.fleet.silent(now - self.config.liveness_s):
                self._remove(worker, set(), expelled=True)
        if self._due_at is not None and now >= self._due_at:
            self._due_at, self._look = None, True
        for task_id in self._adoption.abandoned(now):
            entry = self.entries.get(task_id)
            if entry is not None and entry.phase is Phase.ADOPTED:
                self._resolve(entry, Cause.WORKER_LOST, f"worker {entry.worker_id} did not come back")
        for worker_id, held in self._adoption.unclaimed(now):
            self._out.append(do.KillAttempts(worker_id, (held,)))

    def _claim(self) -> None:
        if self._look and not self._claiming and not self.draining and self.fleet.credit > 0:
            self._look = False
            self._claiming = True
            self._out.append(do.Claim(min(self.fleet.credit, CLAIM_MAX)))
