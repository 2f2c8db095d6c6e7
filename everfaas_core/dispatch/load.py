"""An index of workers by relative load, for strategies that want the least loaded one."""

from __future__ import annotations

import heapq
from typing import Final

from everfaas_core.dispatch.strategy import WorkerView
from everfaas_core.model.ids import WorkerId

_SLACK: Final = 64


class LoadIndex:
    """Answers "who is least loaded and has credit" in O(log n): a heap whose outdated entries are skipped.

    Workers of equal relative load (tasks per slot) take turns.
    """

    def __init__(self) -> None:
        self._workers: dict[WorkerId, tuple[WorkerView, int]] = {}
        self._heap: list[tuple[float, int, WorkerId]] = []
        self._stamp = 0

    def get(self, worker_id: WorkerId) -> WorkerView | None:
        """Return what is known of a worker."""
        found = self._workers.get(worker_id)
        return None if found is None else found[0]

    def update(self, worker: WorkerView) -> None:
        """Take note of a worker's credit and load."""
        self._stamp += 1
        self._workers[worker.worker_id] = worker, self._stamp
        if worker.credit > 0:
            heapq.heappush(self._heap, (self._relative(worker), self._stamp, worker.worker_id))
            if len(self._heap) > 4 * len(self._workers) + _SLACK:
                self._compact()

    def remove(self, worker_id: WorkerId) -> None:
        """Forget a worker."""
        self._workers.pop(worker_id, None)

    def least(self) -> WorkerId | None:
        """Return the least loaded worker that has credit, or None."""
        while self._heap:
            _, stamp, worker_id = self._heap[0]
            found = self._workers.get(worker_id)
            if found is not None and found[1] == stamp:
                return worker_id
            heapq.heappop(self._heap)
        return None

    def _compact(self) -> None:
        self._heap = [
            (self._relative(worker), stamp, worker_id)
            for worker_id, (worker, stamp) in self._workers.items()
            if worker.credit > 0
        ]
        heapq.heapify(self._heap)

    @staticmethod
    def _relative(worker: WorkerView) -> float:
        return worker.load / max(worker.slots, 1)
