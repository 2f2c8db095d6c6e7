"""What a placement strategy is: it is told of every change of a worker, and asked for one worker at a time.

Being told of changes, not handed the whole fleet per task, is what keeps the cost of placing a task independent of
the number of workers.
"""

from __future__ import annotations

from typing import Protocol

from msgspec import Struct

from everfaas_core.model.ids import FunctionId, WorkerId


class WorkerView(Struct, frozen=True):
    """A worker as a strategy sees it."""

    worker_id: WorkerId
    slots: int
    credit: int  # tasks that it will still accept; never asked for when 0
    load: int  # tasks assigned and not ended


class Strategy(Protocol):
    """Chooses the worker of the next task. Called only by the machine, from one thread; must not do I/O.

    Example: see `everfaas_plugins.round_robin`, 40 lines.
    """

    def update(self, worker: WorkerView) -> None:
        """Take note of a worker that joined or whose credit or load changed."""

    def loaded(self, worker_id: WorkerId, function_id: FunctionId) -> None:
        """Take note that a worker has been sent this function's code."""

    def remove(self, worker_id: WorkerId) -> None:
        """Forget a worker."""

    def pick(self, function_id: FunctionId) -> WorkerId | None:
        """Return a worker that has credit, or None when none has."""
