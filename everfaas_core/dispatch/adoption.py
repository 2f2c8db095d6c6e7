"""Attempts that outlived their dispatcher, on their way to the one that carries on with them.

There are two ways, and both may be under way for the same attempt. A worker *presents* what it runs when it says Hello
to another dispatcher, which asks the store to move the claim to it. And the store's sweep hands over the claims of a
dead dispatcher; those whose worker has not presented itself wait here for it, for a bounded time.
"""

from __future__ import annotations

from msgspec import Struct

from everfaas_core.model.ids import TaskId, WorkerId
from everfaas_core.model.states import Cause
from everfaas_core.wire.messages import Held


class Presented(Struct):
    """A presented attempt whose claim the store has not moved yet, and how it ended, if it has since."""

    worker_id: WorkerId
    cause: Cause | None = None
    reason: str = ""


class Adoption:
    """Both lists. `grace_s` bounds how long a claim without a worker waits."""

    def __init__(self, grace_s: float) -> None:
        self._grace_s = grace_s
        self.presented: dict[Held, Presented] = {}
        self._orphans: dict[TaskId, float] = {}  # in order of time

    def await_worker(self, now: float, task_id: TaskId) -> None:
        """A claim was handed over whose worker has not presented it, or does not count on us (yet)."""
        self._orphans.pop(task_id, None)
        self._orphans[task_id] = now + self._grace_s

    def awaited(self) -> list[TaskId]:
        """Return the claims that wait."""
        return list(self._orphans)

    def found(self, task_id: TaskId) -> None:
        """A claim needs to wait no longer."""
        self._orphans.pop(task_id, None)

    def abandoned(self, now: float) -> list[TaskId]:
        """Return, and forget, the claims whose workers did not come."""
        late = [task_id for task_id, at in self._orphans.items() if at <= now]
        for task_id in late:
            del self._orphans[task_id]
        return late

    def clear(self) -> None:
        """Forget everything."""
        self.presented.clear()
        self._orphans.clear()

    def next_timer(self) -> float | None:
        """Return when the next claim has waited long enough."""
        return next(iter(self._orphans.values()), None)
