"""The one machine that decides: `step(now, events) -> actions`.

It holds the tasks that this dispatcher has claimed and the workers that have joined it, and nothing else: no clock, no
I/O, no payloads. The runtime carries its actions out, the store's part of a step in one round trip and before anything
is sent, and feeds the answers back as events. Local, pull, push and every engine mode run this same code.

A task's way: Claim → Claimed → StartAttempt → Started → Run → Ended → FinishAttempt → Settled → Acknowledge.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from everfaas_core.dispatch import actions as do
from everfaas_core.dispatch import events as ev
from everfaas_core.dispatch.adoption import Presented
from everfaas_core.dispatch.entries import Entry, Phase, entry_of
from everfaas_core.dispatch.fleet import Worker
from everfaas_core.dispatch.holding import QUICK_CLAIMS, Holding, MachineConfig
from everfaas_core.dispatch.strategy import Strategy
from everfaas_core.model.ids import TaskId, WorkerId
from everfaas_core.model.records import CLAIM_BYTES_MAX, ClaimedTask
from everfaas_core.model.states import Cause
from everfaas_core.wire.messages import Held

__all__ = ["CLAIM_MAX", "Machine", "MachineConfig"]

CLAIM_MAX: Final = 512


class Machine(Holding):
    """See the module. One instance, one thread; `now` is monotonic seconds and never goes back."""

    def __init__(self, config: MachineConfig, strategy: Strategy) -> None:
        super().__init__(config, strategy)
        self._claiming = False
        self._due_at: float | None = None  # when a delayed task becomes due

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
            case ev.Beaten(worker_id, granted, window):
                worker = self._heard(now, worker_id)
                if worker is not None:
                    self.fleet.grant(worker, granted, window)
                    if worker.welcomed:
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
                    self._remove(worker, set(returned))
            case ev.Told(worker_id):
                self._heard(now, worker_id)
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
                    self._on_adopted(now, adopted.task, adopted.worker, adopted.epoch)
            case ev.Answered(held, worker_id, epoch, task):
                self._on_answered(now, held, worker_id, epoch, task)
            case ev.Evicted():
                self._on_evicted()
            case ev.Company(others):
                self._company = others
                for worker in list(self.fleet):
                    self._welcome(worker)
            case ev.Drained():
                self.draining = True
            case ev.WorkerDrained(worker_id):
                worker = self.fleet.get(worker_id)
                if worker is not None:
                    self.fleet.drain(worker)
                    self._out.append(do.QuitWorker(worker_id))

    def _heard(self, now: float, worker_id: WorkerId) -> Worker | None:
        """Return the joined worker that spoke; answer one that is not joined (any more), and return None."""
        worker = self.fleet.get(worker_id)
        if worker is None:
            self._out.append(do.AskedAgain(worker_id))
            return None
        self.fleet.seen(now, worker)
        if worker.welcomed and not worker.confirmed:
            worker.confirmed = True
            self._resume_presented(worker)
        return worker

    # ── workers come and go ──────────────────────────────────────────────────────────────────────────────────────────

    def _on_joined(self, now: float, event: ev.Joined) -> None:
        if event.rejected is not None:
            self._out.append(do.Refused(event.worker_id, "handshake", event.rejected))
            return
        held: dict[TaskId, int] = {}  # it may hold an older attempt of a task as well, whose end it could not tell yet
        for task_id, attempt in event.held:
            held[task_id] = max(attempt, held.get(task_id, 0))
        known = self.fleet.get(event.worker_id)
        if known is not None:  # what we sent and it does not hold was lost on the way, and never began
            for task_id, attempt in list(known.attempts.items()):
                if held.get(task_id) != attempt:
                    self._lose(known.worker_id, task_id, attempt, began=False)
        worker = self.fleet.join(now, event, held)
        for task_id in self._adoption.awaited():
            self._miss(worker, self.entries[task_id])
        worker.unwanted = [one for one in event.held if held[one[0]] != one[1] or not self._present(worker, one)]
        self._welcome(worker)

    def _welcome(self, worker: Worker) -> None:
        """Welcome a worker, once the store has said of each attempt that it presented whose it is now.

        A worker trusts whoever has welcomed it to decide about its attempts. Welcomed by a dispatcher that does not
        hold their claims (yet), for it can't reach the store, it would go on with what the holder of the claims gives
        to others. Where there is no other dispatcher, there is no such holder, and no need to wait.
        """
        if worker.welcomed or (worker.unanswered and self._company):
            return
        self.fleet.welcome(worker)
        self._out.append(do.Welcomed(worker.worker_id))
        if worker.unwanted:
            self._out.append(do.KillAttempts(worker.worker_id, tuple(worker.unwanted)))
            worker.unwanted = []

    def _miss(self, worker: Worker, entry: Entry) -> None:
        """Give back what was to be sent to a worker before its last Hello, which did not list it: it never began.

        The dispatcher before us died between storing the attempt as RUNNING and sending it.
        """
        ours = entry.phase is Phase.ADOPTED and entry.worker_id == worker.worker_id
        if ours and entry.epoch < worker.epoch and worker.presented.get(entry.task_id) != entry.attempt:
            self._resolve(entry, Cause.GIVEN_BACK, "never began")

    def _present(self, worker: Worker, held: Held) -> bool:
        """Take note that a worker holds an attempt; return False if it is stale."""
        task_id, attempt = held
        entry = self.entries.get(task_id)
        if entry is None:
            self._adoption.presented[held] = Presented(worker.worker_id)
        elif entry.attempt != attempt or entry.worker_id != worker.worker_id:
            return False
        elif entry.phase is Phase.SETTLING and not entry.ended:
            return False  # we have given it up: its requeue is on the way to the store
        self.fleet.hold(worker, task_id, attempt)
        if entry is None or entry.phase in (Phase.ADOPTED, Phase.RUNNING):
            # Even if it is ours: another dispatcher may still be about to adopt it, from an earlier Hello, and the
            # store has to know of this one.
            worker.unanswered.add(held)
            self._out.append(do.AdoptAttempt(task_id, attempt, worker.worker_id, worker.epoch))
        return True

    def _on_adopted(self, now: float, task: ClaimedTask, worker_id: WorkerId, epoch: int) -> None:
        """Take over a claim. Its worker was last with the dispatcher that had it, whatever we knew of it before."""
        entry = self.entries.get(task.task_id)
        if entry is not None:
            if entry.phase is Phase.SETTLING and entry.attempt == task.attempt:
                return
            self._forget(entry)
        entry = entry_of(now, task, Phase.ADOPTED, self.config.default_timeout_s)
        entry.worker_id, entry.epoch = worker_id, epoch
        self.entries[task.task_id] = entry
        self._adoption.await_worker(now, task.task_id)
        worker = self.fleet.get(worker_id)
        if worker is not None:
            self._miss(worker, entry)
            if worker.confirmed:
                self._resume_presented(worker)

    def _is_outdated(self, entry: Entry, task: ClaimedTask) -> bool:
        """Tell whether the store gives us a task whose entry we have from before others had its claim."""
        if entry.phase in (Phase.ADOPTED, Phase.RUNNING):
            return True  # it gives out what nobody runs
        return entry.phase is Phase.SETTLING and entry.attempt < task.attempt

    def _forget(self, entry: Entry) -> None:
        """Let go of a task whose claim was taken from us without our knowing."""
        held = (entry.task_id, entry.attempt)
        self._adoption.found(entry.task_id)
        if entry.worker_id is not None:
            if entry.phase is Phase.RUNNING:
                self._out.append(do.KillAttempts(entry.worker_id, (held,)))
            if entry.phase is Phase.SETTLING and entry.ended:
                self._foreign[held] = entry.worker_id
            self.fleet.release(entry.worker_id, *held)
        del self.entries[entry.task_id]

    def _on_answered(self, now: float, held: Held, worker_id: WorkerId, epoch: int, task: ClaimedTask | None) -> None:
        """Go on with a presented attempt that is ours now, or have it killed."""
        presented = self._adoption.presented.pop(held, None)
        worker = self.fleet.get(worker_id)
        if worker is not None and worker.epoch == epoch:
            worker.unanswered.discard(held)
            if task is None and presented is not None:
                worker.unwanted.append(held)
            self._welcome(worker)
        if task is not None:
            self._on_ours(now, task, worker_id, presented)

    def _on_ours(self, now: float, task: ClaimedTask, worker_id: WorkerId, presented: Presented | None) -> None:
        """Wait for word of the worker, which may have left us since, perhaps for another dispatcher."""
        entry = self.entries.get(task.task_id)
        if entry is None:
            entry = entry_of(now, task, Phase.ADOPTED, self.config.default_timeout_s)
            entry.worker_id = worker_id
            self.entries[task.task_id] = entry
        elif entry.phase is not Phase.ADOPTED or entry.attempt != task.attempt:
            return
        self._adoption.await_worker(now, task.task_id)
        worker = self.fleet.get(worker_id)
        if worker is not None and worker.confirmed:
            self._resume_presented(worker)
        if presented is not None and presented.cause is not None:
            entry.ended = True
            self._resolve(entry, presented.cause, presented.reason)

    def _resume_presented(self, worker: Worker) -> None:
        """Go on with what a worker has presented: it has our Welcome, and counts on us from there on."""
        for task_id, attempt in worker.attempts.items():
            entry = self.entries.get(task_id)
            if entry is None or entry.phase is not Phase.ADOPTED:
                continue
            if (entry.attempt, entry.worker_id) == (attempt, worker.worker_id):
                self._resume(entry)

    def _remove(self, worker: Worker, returned: set[Held], *, silent: bool = False) -> None:
        for task_id, attempt in list(worker.attempts.items()):
            began = (task_id, attempt) not in returned
            self._lose(worker.worker_id, task_id, attempt, began=began, silent=silent)
        self._foreign = {held: owner for held, owner in self._foreign.items() if owner != worker.worker_id}
        self.fleet.remove(worker)

    def _on_undelivered(self, worker_id: WorkerId, items: Iterable[Held]) -> None:
        worker = self.fleet.get(worker_id)
        if worker is not None:
            self.fleet.unreachable(worker)
        for task_id, attempt in items:
            self._lose(worker_id, task_id, attempt, began=False)

    # ── the store answers ────────────────────────────────────────────────────────────────────────────────────────────

    def _on_claimed(self, now: float, asked: int, tasks: Iterable[ClaimedTask], next_due_s: float | None) -> None:
        self._claiming = False
        count = 0
        for task in tasks:
            count += 1
            entry = self.entries.get(task.task_id)
            if entry is not None and self._is_outdated(entry, task):
                self._forget(entry)
                entry = None
            if entry is None:
                self._place(now, task)
        if count:
            self._quick_claims += 1
            self.fleet.look_ahead(self._quick_claims >= QUICK_CLAIMS)
        if count and count >= asked:
            self._look = True
        self._due_at = None if next_due_s is None else now + next_due_s

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
            return  # kept by the worker: it presents them with its Hello
        for outcome in event.items:
            self._on_outcome(worker, outcome)
        self.fleet.grant(worker, event.granted, event.window)

    # ── cancel, time, claim ──────────────────────────────────────────────────────────────────────────────────────────

    def _pass_time(self, now: float) -> None:
        if not self.config.bound:
            for worker in self.fleet.silent(now - self.config.liveness_s):
                self._remove(worker, set(), silent=True)
        if self._due_at is not None and now >= self._due_at:
            self._due_at, self._look = None, True
        for task_id in self._adoption.abandoned(now):
            entry = self.entries.get(task_id)
            if entry is not None and entry.phase is Phase.ADOPTED:
                self._resolve(entry, Cause.WORKER_LOST, f"worker {entry.worker_id} did not come back")

    def _claim(self) -> None:
        if not self._look or self._claiming or self.draining or self.fleet.credit <= 0:
            return
        count, bytes_max = min(self.fleet.credit, CLAIM_MAX), self.fleet.room_bytes()
        if bytes_max <= 0:  # enough large payloads wait in workers: from here on only what can run at once
            count, bytes_max = min(count, self.fleet.free_slots()), CLAIM_BYTES_MAX
        if count > 0:
            self._look = False
            self._claiming = True
            self._out.append(do.Claim(count, min(bytes_max, CLAIM_BYTES_MAX)))
