"""One slot as the worker's machine sees it: the table of its phases, and when a dead one is started again. Pure."""

from __future__ import annotations

from collections import OrderedDict, deque
from enum import StrEnum
from typing import Final

from msgspec import Struct, field

from everfaas_core.model.ids import FunctionId
from everfaas_core.model.states import Cause
from everfaas_core.wire.messages import Held, TaskItem

FUNCTIONS_MAX: Final = 256
"""Functions whose code a slot keeps loaded; beyond it the one used longest ago is sent again when needed."""

START_S_MAX: Final = 30.0
"""A slot that has not said that it is up after so long is killed and started again."""

QUICK_DEATH_S: Final = 1.0
"""A slot that dies within this time of its start without having begun a task counts as a failed start."""

RESPAWN_S_FIRST: Final = 0.1
RESPAWN_S_MAX: Final = 5.0
"""The first failed start is repeated at once, the next ones after waits that double between these two."""

BROKEN_STARTS: Final = 3
"""After so many failed starts in a row a slot is not counted on: see `Machine._return_if_broken`."""


def held(item: TaskItem) -> Held:
    """Return the key of an attempt."""
    return item.task_id, item.attempt


class Phase(StrEnum):
    """Where a slot's process is."""

    DOWN = "down"  # there is none; `due` is when to start one (None: never)
    STARTING = "starting"  # `due` is when to give up on it
    LIVE = "live"  # `due` is the deadline of its current task, if that has one
    DYING = "dying"  # killed, and not yet seen dead


TRANSITIONS: Final[dict[Phase, frozenset[Phase]]] = {
    Phase.DOWN: frozenset({Phase.STARTING}),
    Phase.STARTING: frozenset({Phase.LIVE, Phase.DYING, Phase.DOWN}),
    Phase.LIVE: frozenset({Phase.DYING, Phase.DOWN}),
    Phase.DYING: frozenset({Phase.DOWN}),
}


class SlotState(Struct):
    """`queue` holds what was fed and has not ended; its first is the current task, the others wait in the pipe."""

    index: int
    phase: Phase = Phase.DOWN
    due: float | None = 0.0
    queue: deque[TaskItem] = field(default_factory=deque)
    functions: OrderedDict[FunctionId, None] = field(default_factory=OrderedDict)
    doom: Cause | None = None  # why we killed it: what its current task ends as, or GIVEN_BACK
    started_at: float = 0.0
    current_at: float = 0.0  # when its current task became that, as far as is known here
    each_s: float = 0.0  # how long a task of the queue is thought to take, at the most
    recalled: bool = False  # since it last answered: it is fed nothing behind another task until it does
    ended: int = 0  # tasks that this process has answered
    failed_starts: int = 0

    @property
    def keeps_waiting(self) -> bool:
        """Whether tasks wait behind the current one that might be taken back."""
        return self.phase is Phase.LIVE and len(self.queue) > 1 and not self.recalled

    def move(self, phase: Phase) -> None:
        """Change phase; anything that the table does not allow is a bug."""
        assert phase in TRANSITIONS[self.phase], f"slot {self.index}: {self.phase} → {phase}"
        self.phase = phase

    def start(self, now: float) -> None:
        """Note that a process is being started."""
        self.move(Phase.STARTING)
        self.started_at, self.due = now, now + START_S_MAX
        self.functions.clear()
        self.doom, self.ended, self.recalled = None, 0, False

    def begun(self, number: int) -> Held | None:
        """Return which attempt is the number-th that this process has begun; None: it is known to have ended."""
        index = number - self.ended - 1
        return held(self.queue[index]) if 0 <= index < len(self.queue) else None

    def begin_current(self, now: float) -> None:
        """Note that the first task of the queue is the one that runs from now on: its time counts."""
        self.current_at = now
        timeout_s = self.queue[0].timeout_s if self.queue else None
        self.due = None if timeout_s is None else now + timeout_s

    def hold(self, function_id: FunctionId) -> bool:
        """Note that the slot is about to use a function; return False if it does not hold its code yet."""
        held = function_id in self.functions
        self.functions[function_id] = None
        self.functions.move_to_end(function_id)
        if len(self.functions) > FUNCTIONS_MAX:
            self.functions.popitem(last=False)
        return held

    def bury(self, now: float, *, began: bool) -> list[TaskItem]:
        """Note that the process is dead and plan the next start; return what was in its queue.

        `began`: it had begun a task at least, so its end is a task's doing and not a failed start.
        """
        self.move(Phase.DOWN)
        if not began and self.doom is None and now - self.started_at < QUICK_DEATH_S:
            self.failed_starts += 1
        else:
            self.failed_starts = 0
        wait_s = 0.0
        if self.failed_starts > 1:
            wait_s = min(RESPAWN_S_FIRST * 2.0 ** min(self.failed_starts - 2, 30), RESPAWN_S_MAX)
        self.due = now + wait_s
        queue = list(self.queue)
        self.queue.clear()
        return queue
