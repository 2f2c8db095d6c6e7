"""The short form of `python -m bench.waiters`: a crowd waits, /healthz answers meanwhile, and nobody is lost."""

from __future__ import annotations

import pytest

from bench.waiters.__main__ import measure
from everfaas_core.runtime.processes import allow_files

HEALTHZ_S_MAX = 1.0  # ten times the goal, which is measured elsewhere


@pytest.mark.parametrize("processes", [1, 2])
def test_a_crowd_that_waits_is_answered_and_holds_up_nobody(processes: int) -> None:
    assert allow_files(300) >= 300
    figures = measure(100, 10, 1.0, processes=processes)
    assert figures.problems == []
    assert figures.waiting
    assert figures.waking
    assert max(took_s for _, took_s in figures.waiting + figures.waking) < HEALTHZ_S_MAX
    assert len(figures.api_waiting) == processes
