"""Placement `least-loaded`: the worker with the fewest tasks per slot. The default of push mode."""

from __future__ import annotations

from collections.abc import Iterable

from everfaas_core.dispatch.load import LoadIndex
from everfaas_core.hookspecs import StrategyProvider, hookimpl
from everfaas_core.model.ids import FunctionId, WorkerId
from everfaas_core.ports import WorkerView

EVERFAAS_API_VERSION = 1


class LeastLoaded:
    """Balances relative load, so that a worker of 16 slots gets four times the tasks of one of 4."""

    def __init__(self) -> None:
        self._index = LoadIndex()

    def update(self, worker: WorkerView) -> None:
        """Take note of a worker that joined or changed."""
        self._index.update(worker)

    def loaded(self, worker_id: WorkerId, function_id: FunctionId) -> None:
        """Ignore where code is."""

    def remove(self, worker_id: WorkerId) -> None:
        """Forget a worker."""
        self._index.remove(worker_id)

    def pick(self, function_id: FunctionId) -> WorkerId | None:
        """Return the least loaded worker that has credit."""
        return self._index.least()


@hookimpl
def everfaas_strategies() -> Iterable[StrategyProvider]:
    """Offer `least-loaded`."""
    return [
        StrategyProvider(
            name="least-loaded",
            summary="the worker with the fewest tasks per slot",
            factory=lambda options: LeastLoaded(),
        )
    ]
