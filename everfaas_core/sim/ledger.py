"""The independent ledger: what clients asked, what slots truly did, what the store wrote; and what must never happen.

It reads no field of the machines. It is told by the simulated slots when a function begins and ends, by the simulated
store when an attempt or an end is written, and by the simulated wire what a worker granted and what it was sent.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from enum import StrEnum
from typing import Final

from everfaas_core.model.ids import FunctionId, TaskId
from everfaas_core.model.states import RETRIED, Cause, Status

SHOWN_MAX: Final = 8
"""Tasks that a complaint lists."""


class Violation(AssertionError):
    """The promise was broken. The text says which part of it, when, and for whom."""


class Deed(StrEnum):
    """What a task's function does."""

    RETURNS = "returns"
    RAISES = "raises"
    EXITS = "exits"  # kills its slot, each time
    HANGS = "hangs"  # never ends: only its timeout or a cancel ends it


class Plan:
    """One task: what its function will do, and all that was seen of it. Times are virtual seconds."""

    __slots__ = (
        "attempt", "begun", "cancelled", "deed", "function_id", "live", "run_s", "said", "status", "task_id",
        "timeout_s",
    )  # fmt: skip

    def __init__(
        self, task_id: TaskId, function_id: FunctionId, deed: Deed, run_s: float, timeout_s: float | None
    ) -> None:
        self.task_id = task_id
        self.function_id = function_id
        self.deed = deed
        self.run_s = run_s
        self.timeout_s = timeout_s
        self.attempt = 0  # the last token that the store has written
        self.begun = 0  # the last token that began in a slot
        self.live: tuple[Execution, ...] = ()
        self.said: dict[int, tuple[Cause, bytes]] | None = None  # attempt → how it truly ended in its slot
        self.status: Status | None = None
        self.cancelled = False


class Execution:
    """A function that runs in a slot. `worker` names the machine it runs on, whatever its incarnation."""

    __slots__ = ("attempt", "began_at", "plan", "worker")

    def __init__(self, plan: Plan, attempt: int, worker: str, began_at: float) -> None:
        self.plan = plan
        self.attempt = attempt
        self.worker = worker
        self.began_at = began_at

    def __str__(self) -> str:
        return f"{self.plan.task_id}.{self.attempt} on {self.worker} since {self.began_at:.3f}"


class Ledger:
    """See the module."""

    def __init__(self, max_attempts: int) -> None:
        self.plans: dict[TaskId, Plan] = {}
        self.running = 0  # functions that run in slots now
        self.attempts = 0  # that have begun
        self.ended: Counter[Status] = Counter()
        self.unfinished = 0
        self._max_attempts = max_attempts

    # ── clients ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def accepted(self, plan: Plan) -> None:
        """A client has its 201: from now on the task must not be lost."""
        self.plans[plan.task_id] = plan
        self.unfinished += 1

    # ── slots ────────────────────────────────────────────────────────────────────────────────────────────────────────

    def begins(self, run: Execution) -> None:
        """A slot calls the function."""
        plan = run.plan
        if run.attempt > plan.attempt:
            raise Violation(f"{run} began before the store had it as RUNNING (it knows attempt {plan.attempt})")
        if run.attempt <= plan.begun and run.attempt == plan.attempt:
            raise Violation(f"{run} began a second time")
        if plan.live:
            raise Violation(f"{run} overlaps with {plan.live[0]}")
        plan.begun = max(plan.begun, run.attempt)
        plan.live = (*plan.live, run)
        self.running += 1
        self.attempts += 1

    def ends(self, run: Execution, cause: Cause, result: bytes) -> None:
        """The function returned or raised, or its slot is dead (then there is no result)."""
        plan = run.plan
        plan.live = tuple(one for one in plan.live if one is not run)
        self.running -= 1
        if plan.status is None:
            if plan.said is None:
                plan.said = {}
            plan.said[run.attempt] = cause, result

    # ── the store ────────────────────────────────────────────────────────────────────────────────────────────────────

    def started(self, task_id: TaskId, attempt: int) -> None:
        """The store has written an attempt as RUNNING."""
        plan = self.plans[task_id]
        if plan.status is not None:
            raise Violation(f"{task_id}.{attempt} was started, though the task had ended as {plan.status}")
        if attempt != plan.attempt + 1:
            raise Violation(f"{task_id}.{attempt} was started after attempt {plan.attempt}: tokens must not repeat")
        plan.attempt = attempt

    def concluded(self, task_id: TaskId, attempt: int, status: Status, cause: Cause, result: bytes) -> None:
        """The store has written a terminal record."""
        plan = self.plans[task_id]
        if plan.status is not None:
            raise Violation(f"{task_id} ended as {plan.status}, and again as {status}")
        what = f"{task_id}.{attempt} ended as {status} ({cause})"
        if attempt != plan.attempt:
            raise Violation(f"{what}, a stale attempt: the store's last is {plan.attempt}")
        said = (plan.said or {}).get(attempt)
        if cause in (Cause.OK, Cause.RAISED) and said != (cause, result):
            raise Violation(f"{what} with {result!r}, but its slot said {said}")
        if cause is Cause.CANCELLED and not plan.cancelled:
            raise Violation(f"{what}, and nobody cancelled it")
        if cause is Cause.DEADLINE and plan.timeout_s is None:
            raise Violation(f"{what}, and it had none")
        if cause in RETRIED and plan.attempt < self._max_attempts:
            raise Violation(f"{what} after {plan.attempt} attempts of {self._max_attempts}")
        plan.status, plan.said = status, None
        self.ended[status] += 1
        self.unfinished -= 1

    # ── the end ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def lost(self) -> list[Plan]:
        """Return some of the tasks that have not ended."""
        found: list[Plan] = []
        for plan in self.plans.values():
            if plan.status is None:
                found.append(plan)
                if len(found) >= SHOWN_MAX:
                    break
        return found

    def demand_all_ended(self, healed_s: float) -> None:
        """Complain unless every task has ended."""
        if self.unfinished:
            some = ", ".join(f"{plan.task_id} (attempt {plan.attempt})" for plan in self.lost())
            raise Violation(f"{self.unfinished} tasks have not ended {healed_s:g} s after the world was healed: {some}")


class Grants:
    """What one incarnation of a worker may be sent: by what it said on the wire, and what came."""

    __slots__ = ("_came", "_epoch", "_granted", "_held", "_rule", "_slots", "_who", "_window")

    def __init__(self, who: str, slots: int, rule: str) -> None:
        self._who = who
        self._slots = self._window = slots
        self._rule = rule
        self._epoch = 0
        self._granted = 0
        self._came = 0
        self._held: set[tuple[TaskId, int]] = set()

    def hello(self, epoch: int, granted: int, held: Iterable[tuple[TaskId, int]]) -> None:
        """The worker said Hello: counting begins anew."""
        self._epoch, self._granted, self._came = epoch, granted, 0
        self._window = self._slots
        self._held = set(held) & self._held

    def granted(self, granted: int, window: int) -> None:
        """The worker said so in a Beat or with outcomes. A window that shrinks may be heard too late."""
        self._granted = max(self._granted, granted)
        self._window = max(self._window, window)

    def reported(self, items: Iterable[tuple[TaskId, int]]) -> None:
        """The worker said that these attempts have ended."""
        self._held.difference_update(items)

    def sent(self, epoch: int, items: Iterable[tuple[TaskId, int]]) -> None:
        """Tasks arrived at the worker."""
        if epoch != self._epoch:
            return  # not for it any more
        for item in items:
            self._came += 1
            self._held.add(item)
        if self._rule == "granted" and self._came > self._granted:
            raise Violation(f"{self._who} was sent {self._came} tasks and had granted {self._granted}")
        if self._rule == "capacity" and len(self._held) > self._window:
            raise Violation(f"{self._who} holds {len(self._held)} tasks, and {self._window} was its widest window")
