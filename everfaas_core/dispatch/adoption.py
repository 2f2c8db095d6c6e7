"""Attempts that outlived their dispatcher: two lists that wait for each other, each for a bounded time.

A worker *presents* what it runs when it says Hello to a new dispatcher; the store's sweep hands over the dead one's
claims for *adoption* once its lease has run out. Whichever comes first waits here for the other.
"""

from __future__ import annotations

from everfaas_core.model.ids import TaskId, WorkerId
from everfaas_core.wire.messages import Held


class Adoption:
    """Both lists. `grace_s` bounds how long either side waits."""

    def __init__(self, grace_s: float) -> None:
        self._grace_s = grace_s
        self._presented: dict[Held, tuple[WorkerId, float]] = {}
        self._orphans: dict[TaskId, float] = {}

    def present(self, now: float, held: Held, worker_id: WorkerId) -> None:
        """A worker holds an attempt whose claim we do not have (yet)."""
        self._presented[held] = worker_id, now + self._grace_s

    def presenter(self, held: Held) -> WorkerId | None:
        """Return, and forget, the worker that presented this attempt."""
        found = self._presented.pop(held, None)
        return None if found is None else found[0]

    def await_worker(self, now: float, task_id: TaskId) -> None:
        """A claim was adopted whose worker has not presented it (yet)."""
        self._orphans[task_id] = now + self._grace_s

    def found(self, task_id: TaskId) -> None:
        """An adopted claim needs to wait no longer."""
        self._orphans.pop(task_id, None)

    def unclaimed(self, now: float) -> list[tuple[WorkerId, Held]]:
        """Return, and forget, what was presented and is nobody's claim: it ended, or was given to others."""
        late = [(worker_id, held) for held, (worker_id, at) in self._presented.items() if at <= now]
        for _, held in late:
            del self._presented[held]
        return late

    def abandoned(self, now: float) -> list[TaskId]:
        """Return, and forget, the adopted tasks whose workers did not come."""
        late = [task_id for task_id, at in self._orphans.items() if at <= now]
        for task_id in late:
            del self._orphans[task_id]
        return late

    def clear(self) -> None:
        """Forget both lists."""
        self._presented.clear()
        self._orphans.clear()

    def next_timer(self) -> float | None:
        """Return when the next of either list runs out. Each list is in order of time, so this looks at two."""
        heads = [at for _, at in list(self._presented.values())[:1]] + list(self._orphans.values())[:1]
        return min(heads, default=None)
