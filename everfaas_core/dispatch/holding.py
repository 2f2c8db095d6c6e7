"""What becomes of one claimed task: placed, started, ended, settled; or lost with its worker, or cancelled.

The half of the machine that looks at tasks; `machine` adds events, workers, time and claims.
"""

from __future__ import annotations

from typing import Final

from msgspec import Struct

from everfaas_core.dispatch import actions as do
from everfaas_core.dispatch.adoption import Adoption
from everfaas_core.dispatch.entries import Entry, Phase, entry_of
from everfaas_core.dispatch.fleet import CreditRule, Fleet, Worker
from everfaas_core.dispatch.pace import Pace
from everfaas_core.dispatch.retries import verdict
from everfaas_core.dispatch.strategy import Strategy
from everfaas_core.model.ids import TaskId, WorkerId
from everfaas_core.model.records import ClaimedTask
from everfaas_core.model.states import ENDS_AS, RETRIED, Cause
from everfaas_core.wire.messages import Held, Outcome

QUICK_S: Final = 0.025
QUICK_CLAIMS: Final = 2
"""Tasks are sent ahead of free slots when so many claims in a row had only functions that are known to be as quick."""


class MachineConfig(Struct, frozen=True, kw_only=True):
    rule: CreditRule = "granted"
    bound: bool = False  # the workers live in our process: no heartbeats, and they die with us
    liveness_s: float = 2.5  # silence after which a worker is lost
    adoption_s: float = 5.0  # how long a dead dispatcher's attempts may take to be presented by their workers
    default_timeout_s: float | None = None  # for tasks and functions that name none


class Holding:
    """The claimed tasks, by id, and the fleet that runs them."""

    def __init__(self, config: MachineConfig, strategy: Strategy) -> None:
        self.config = config
        self.fleet = Fleet(strategy, config.rule)
        self.entries: dict[TaskId, Entry] = {}
        self.draining = False
        self._adoption = Adoption(config.adoption_s)
        self._foreign: dict[Held, WorkerId] = {}  # outcomes being stored whose claims we never held
        self._pace = Pace()
        self._quick_claims = 0
        self._look = True  # the store may have something to claim
        self._company = True  # there may be other dispatchers on the store
        self._out: list[do.Action] = []

    # ── begin ────────────────────────────────────────────────────────────────────────────────────────────────────────

    def _place(self, now: float, task: ClaimedTask) -> None:
        """Choose a worker, or give the task back if nobody has credit any more."""
        pace_s = self._pace.of(task.function_id)
        if pace_s is None or pace_s > QUICK_S:
            self._quick_claims = -1
            self.fleet.look_ahead(False)
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
        self.fleet.assign(worker, task.task_id, entry.attempt, len(task.payload))
        self._out.append(do.StartAttempt(task.task_id, entry.attempt, worker.worker_id, worker.epoch))

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

    # ── end ──────────────────────────────────────────────────────────────────────────────────────────────────────────

    def _on_outcome(self, worker: Worker, outcome: Outcome) -> None:
        held = (outcome.task_id, outcome.attempt)
        self.fleet.release(worker.worker_id, *held)
        entry = self.entries.get(outcome.task_id)
        if entry is None:
            self._on_foreign(worker, outcome)
        elif entry.attempt != outcome.attempt or entry.worker_id != worker.worker_id:
            self._out.append(do.Acknowledge(worker.worker_id, (held,)))  # stale: nobody wants it
        elif entry.phase in (Phase.RUNNING, Phase.ADOPTED):
            if outcome.run_s is not None:
                self._pace.ran(entry.function_id, outcome.run_s)
            if entry.phase is Phase.ADOPTED:
                self._resume(entry)
            entry.ended = True
            reason = outcome.error or f"ended as {outcome.cause}"
            self._resolve(entry, outcome.cause, reason, has_result=bool(outcome.result), raised=outcome.raised)
        # SETTLING: a repeated outcome; it is acknowledged once it is stored.

    def _on_foreign(self, worker: Worker, outcome: Outcome) -> None:
        """Store an outcome whose claim we do not hold (yet): the store's fence decides whether it counts."""
        held = (outcome.task_id, outcome.attempt)
        presented = self._adoption.presented.get(held)
        if outcome.cause in RETRIED or outcome.cause in (Cause.GIVEN_BACK, Cause.CANCELLED):
            # Only a claim's holder may requeue or cancel: wait for the claim. There is no result to lose.
            if presented is None:
                self._out.append(do.Acknowledge(worker.worker_id, (held,)))
            else:
                presented.cause, presented.reason = outcome.cause, outcome.error or f"ended as {outcome.cause}"
            return
        self._adoption.presented.pop(held, None)
        if held not in self._foreign:
            self._foreign[held] = worker.worker_id
            reason = None if outcome.result else outcome.error or f"ended as {outcome.cause}"
            self._out.append(do.FinishAttempt(*held, ENDS_AS[outcome.cause], outcome.cause, reason))

    def _resolve(
        self, entry: Entry, cause: Cause, reason: str, *, has_result: bool = False, raised: tuple[str, ...] = ()
    ) -> None:
        entry.move(Phase.SETTLING)
        self._adoption.found(entry.task_id)
        self._out.append(verdict(entry, cause, reason, has_result=has_result, raised=raised))

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

    # ── in between ───────────────────────────────────────────────────────────────────────────────────────────────────

    def _lose(self, worker_id: WorkerId, task_id: TaskId, attempt: int, *, began: bool, silent: bool = False) -> None:
        """Deal with an attempt that a worker holds no longer, or that a silent worker may still hold."""
        self.fleet.release(worker_id, task_id, attempt, unsent=not began)
        self._adoption.presented.pop((task_id, attempt), None)
        entry = self.entries.get(task_id)
        if entry is None or entry.attempt != attempt or entry.worker_id != worker_id:
            return
        if entry.phase is Phase.RUNNING or (entry.phase is Phase.ADOPTED and not silent):
            cause = Cause.WORKER_LOST if began else Cause.GIVEN_BACK
            self._resolve(entry, cause, f"worker {worker_id} was lost" if began else "never began")
        # ADOPTED, from a worker that has never counted on us: it gets its time to turn up, here or elsewhere.
        # STARTING: the store's answer comes first, then `_on_accepted` finds the worker gone.
        # SETTLING: its end is on the way to the store already.

    def _resume(self, entry: Entry) -> None:
        entry.move(Phase.RUNNING)
        self._adoption.found(entry.task_id)
        if entry.cancelled:
            self._kill(entry)

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

    def _entry(self, held: Held, phase: Phase) -> Entry | None:
        entry = self.entries.get(held[0])
        if entry is None or entry.attempt != held[1] or entry.phase is not phase:
            return None
        return entry
