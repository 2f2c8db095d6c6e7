"""Placement `code-affinity`: prefer workers that hold the function's code, so that big functions are loaded seldom."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from itertools import islice
from typing import Final

from everfaas_core.dispatch.load import LoadIndex
from everfaas_core.hookspecs import StrategyProvider, hookimpl
from everfaas_core.model.ids import FunctionId, WorkerId
from everfaas_core.ports import WorkerView

EVERFAAS_API_VERSION = 1

PROBES: Final = 8
"""How many holders of a function are looked at per task: what keeps the cost independent of the fleet's size."""

FUNCTIONS_MAX: Final = 10_000
"""Functions whose holders are remembered; the one used longest ago is forgotten first."""


class CodeAffinity:
    """Among a few workers that hold the code and have credit, the least loaded; else the least loaded of all."""

    def __init__(self) -> None:
        self._index = LoadIndex()
        self._holders: OrderedDict[FunctionId, OrderedDict[WorkerId, None]] = OrderedDict()

    def update(self, worker: WorkerView) -> None:
        """Take note of a worker that joined or changed."""
        self._index.update(worker)

    def loaded(self, worker_id: WorkerId, function_id: FunctionId) -> None:
        """Remember that a worker holds the code."""
        self._holders.setdefault(function_id, OrderedDict())[worker_id] = None
        self._holders.move_to_end(function_id)
        if len(self._holders) > FUNCTIONS_MAX:
            self._holders.popitem(last=False)

    def remove(self, worker_id: WorkerId) -> None:
        """Forget a worker. Holders that are gone are dropped when they are met."""
        self._index.remove(worker_id)

    def pick(self, function_id: FunctionId) -> WorkerId | None:
        """Return a holder of the code that has credit, or else the least loaded worker that has."""
        holders = self._holders.get(function_id)
        if holders is None:
            return self._index.least()
        self._holders.move_to_end(function_id)
        best: WorkerView | None = None
        for worker_id in list(islice(holders, PROBES)):
            holders.move_to_end(worker_id)
            worker = self._index.get(worker_id)
            if worker is None:
                del holders[worker_id]
            elif worker.credit > 0 and (best is None or worker.load * best.slots < best.load * worker.slots):
                best = worker
        return self._index.least() if best is None else best.worker_id


@hookimpl
def everfaas_strategies() -> Iterable[StrategyProvider]:
    """Offer `code-affinity`."""
    return [
        StrategyProvider(
            name="code-affinity",
            summary="workers that hold the function's code, then the least loaded",
            factory=lambda options: CodeAffinity(),
        )
    ]
