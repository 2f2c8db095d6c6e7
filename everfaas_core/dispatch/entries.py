"""A claimed task as the machine holds it: metadata and phase, never payload bytes."""

from __future__ import annotations

from enum import Enum, auto
from typing import Final

from msgspec import Struct

from everfaas_core.model.ids import FunctionId, TaskId, WorkerId
from everfaas_core.model.records import ClaimedTask


class Phase(Enum):
    """Where a claimed task is. Anything that is not in a phase below is not held at all."""

    STARTING = auto()  # a worker is chosen; its RUNNING is on the way to the store
    RUNNING = auto()  # stored as RUNNING and sent
    SETTLING = auto()  # its finish or requeue is on the way to the store
    ADOPTED = auto()  # RUNNING on a worker of a dead dispatcher, which has not presented it yet


PHASES: Final[dict[Phase | None, frozenset[Phase | None]]] = {
    None: frozenset({Phase.STARTING, Phase.SETTLING, Phase.ADOPTED, Phase.RUNNING}),
    Phase.STARTING: frozenset({Phase.RUNNING, Phase.SETTLING, None}),
    Phase.RUNNING: frozenset({Phase.SETTLING, None}),
    Phase.SETTLING: frozenset({None}),
    Phase.ADOPTED: frozenset({Phase.RUNNING, Phase.SETTLING, None}),
}
"""The transition table of a claimed task; None is "not held". None → RUNNING: adopted, and presented before."""


class Entry(Struct):
    task_id: TaskId
    function_id: FunctionId
    phase: Phase
    attempt: int  # the token of the attempt that is live, or was last
    charged: int
    max_attempts: int
    retry_backoff_s: float
    retry_on: tuple[str, ...]
    timeout_s: float | None
    deadline_at: float | None  # by the machine's clock
    worker_id: WorkerId | None = None
    epoch: int = 0  # ADOPTED: of the worker's Hello under which the attempt was sent, or presented last
    cancelled: bool = False  # a client asked for it
    ended: bool = False  # SETTLING because the worker reported it: it is waiting for our acknowledgement

    def move(self, phase: Phase) -> None:
        """Change phase by the table."""
        assert phase in PHASES[self.phase], f"{self.task_id}: {self.phase} → {phase}"
        self.phase = phase

    def limit_s(self, now: float) -> float | None:
        """Return how long an attempt that starts now may run, or None for ever. May be ≤ 0: too late."""
        limits = [] if self.timeout_s is None else [self.timeout_s]
        if self.deadline_at is not None:
            limits.append(self.deadline_at - now)
        return min(limits, default=None)


def entry_of(now: float, task: ClaimedTask, phase: Phase, default_timeout_s: float | None) -> Entry:
    """Make the entry of a claimed task. Its own timeout comes before the dispatcher's default."""
    return Entry(
        task_id=task.task_id,
        function_id=task.function_id,
        phase=phase,
        attempt=task.attempt,
        charged=task.charged,
        max_attempts=task.max_attempts,
        retry_backoff_s=task.retry_backoff_s,
        retry_on=task.retry_on,
        timeout_s=default_timeout_s if task.timeout_s is None else task.timeout_s,
        deadline_at=None if task.remaining_s is None else now + task.remaining_s,
    )
