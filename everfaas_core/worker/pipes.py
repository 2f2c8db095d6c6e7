"""How full slots are fed, and how much a worker asks for: by the pace of what has run. Pure.

A slot that gets its tasks one at a time waits for the worker between two of them, and a worker that asks for one task a
slot waits for the dispatcher. For quick tasks that is most of the time, so they travel many at a time; a task that is
not known to be quick travels alone, and nobody waits behind it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from everfaas_core.dispatch.pace import Pace
from everfaas_core.wire.messages import TaskItem
from everfaas_core.worker.slot_state import Phase, SlotState

PIPE_MAX: Final = 16
"""Tasks that a slot is fed ahead, the current one included, when they are quick."""

PIPE_S: Final = 0.002
"""How much work may be in a slot's pipe, by the pace of its functions; a function is fed alone until that is known."""

PIPED_BYTES_MAX: Final = 64 * 1024
"""A task with a larger payload goes to idle slots only: from a pipe it may be taken back, and is sent in vain then. So
a pipe holds PIPE_MAX times as much at the most, and one payload of any size."""

RECALL_S: Final = 0.01
"""A task that runs for so long loses those behind it to other slots: they were not to wait for it."""

AHEAD_MAX: Final = 128
AHEAD_S: Final = 0.06
"""How many tasks, and how much work, a worker asks for beyond one task a slot, for each slot."""


class Pipes:
    """Chooses slots for tasks, among `slots`, and says how many tasks to ask for."""

    def __init__(self, slots: Sequence[SlotState]) -> None:
        self._slots = slots
        self.pace = Pace()

    def choose(self, now: float, item: TaskItem) -> SlotState | None:
        """Return an idle slot, if there is one that holds the function, that; else the least filled pipe with room.

        An idle slot that had not begun what was taken back from it comes last: perhaps it is stopped, or starved.
        """
        function_id = item.function_id
        pace_s = self.pace.of(function_id) if len(item.payload) <= PIPED_BYTES_MAX else None
        idle: SlotState | None = None
        piped: SlotState | None = None
        silent: SlotState | None = None
        for slot in self._slots:
            if slot.phase is not Phase.LIVE:
                continue
            ahead = len(slot.queue)
            if not ahead and slot.recalled:
                silent = silent or slot
            elif not ahead:
                if function_id in slot.functions:
                    return slot
                idle = idle or slot
            elif pace_s is not None and ahead < PIPE_MAX and (piped is None or ahead < len(piped.queue)):
                quick = slot.each_s > 0.0 and ahead * slot.each_s + pace_s <= PIPE_S
                if quick and not slot.recalled and now < slot.current_at + RECALL_S:
                    piped = slot
        return idle or piped or silent

    def fill(self, slot: SlotState, item: TaskItem) -> None:
        """Add a task to a slot's pipe."""
        pace_s = self.pace.of(item.function_id)
        if not slot.queue:
            slot.each_s = pace_s or 0.0
        elif pace_s is not None:
            slot.each_s = max(slot.each_s, pace_s)
        slot.queue.append(item)

    def window(self, now: float) -> tuple[int, int]:
        """Return how many tasks the living slots want to have at hand in all, and how many they have been fed."""
        wanted = fed = 0
        for slot in self._slots:
            if slot.phase is Phase.LIVE:
                wanted += 1 + self._ahead(now, slot)
                fed += len(slot.queue)
        return wanted, fed

    def all_busy(self) -> bool:
        """Tell whether every living slot has something to do; slots that are about to live are not busy."""
        return all(slot.queue for slot in self._slots if slot.phase is not Phase.DOWN)

    def _ahead(self, now: float, slot: SlotState) -> int:
        """Return how many tasks to have at hand for a slot beyond its current one, by the pace of late."""
        each_s = self.pace.any_s
        if each_s is None:
            return 0
        if slot.queue:
            each_s = max(each_s, now - slot.current_at)
        return min(int(AHEAD_S / each_s), AHEAD_MAX)
