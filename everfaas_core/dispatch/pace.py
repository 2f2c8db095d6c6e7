"""How long functions take, as far as has been seen: what a slot's pipe and a worker's credit are filled by. Pure.

Estimates jump up and come down slowly: to believe that a function is quick when it is not makes others wait behind it,
to believe that it is slow when it is not costs a little speed.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

from everfaas_core.model.ids import FunctionId

EASE: Final = 0.2  # of the way that an estimate comes down with each shorter run
FUNCTIONS_MAX: Final = 1_000  # whose estimates are kept; beyond it the one that ended longest ago is forgotten
LEAST_S: Final = 50e-6
"""No task is taken to cost less: its way into the slot and out of it counts as well."""


class Pace:
    """Estimates in seconds, of one function and of whatever comes next."""

    def __init__(self) -> None:
        self._of: OrderedDict[FunctionId, float] = OrderedDict()
        self.any_s: float | None = None  # of any task; None until one has ended

    def of(self, function_id: FunctionId) -> float | None:
        """Return how long a function will take; None if it has never been seen to end."""
        return self._of.get(function_id)

    def ran(self, function_id: FunctionId, run_s: float) -> None:
        """Take note of a run."""
        self._of[function_id] = _eased(self._of.get(function_id), run_s)
        self._of.move_to_end(function_id)
        if len(self._of) > FUNCTIONS_MAX:
            self._of.popitem(last=False)
        self.any_s = _eased(self.any_s, run_s)


def _eased(before: float | None, run_s: float) -> float:
    run_s = max(run_s, LEAST_S)
    if before is None or run_s >= before:
        return run_s
    return before + EASE * (run_s - before)
