"""Placement `round-robin`: workers that have credit take turns, first come, first served. The default of pull mode."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable

from everfaas_core.hookspecs import StrategyProvider, hookimpl
from everfaas_core.model.ids import FunctionId, WorkerId
from everfaas_core.ports import WorkerView

EVERFAAS_API_VERSION = 1


class RoundRobin:
    """A queue of the workers that have credit: whoever has waited longest is served next, and goes to the end."""

    def __init__(self) -> None:
        self._waiting: OrderedDict[WorkerId, None] = OrderedDict()

    def update(self, worker: WorkerView) -> None:
        """Queue a worker that has got credit; take one out that has none."""
        if worker.credit <= 0:
            self._waiting.pop(worker.worker_id, None)
        elif worker.worker_id not in self._waiting:
            self._waiting[worker.worker_id] = None

    def loaded(self, worker_id: WorkerId, function_id: FunctionId) -> None:
        """Ignore where code is."""

    def remove(self, worker_id: WorkerId) -> None:
        """Forget a worker."""
        self._waiting.pop(worker_id, None)

    def pick(self, function_id: FunctionId) -> WorkerId | None:
        """Return the worker at the head, and send it to the end."""
        worker_id = next(iter(self._waiting), None)
        if worker_id is not None:
            self._waiting.move_to_end(worker_id)
        return worker_id


@hookimpl
def everfaas_strategies() -> Iterable[StrategyProvider]:
    """Offer `round-robin`."""
    return [
        StrategyProvider(
            name="round-robin",
            summary="workers take turns, whoever has waited longest first",
            factory=lambda options: RoundRobin(),
        )
    ]
