"""The production machines keep the promise in every simulated world."""

from __future__ import annotations

import pytest

from everfaas_core.sim.scenarios import SCENARIOS

from .running import run

SEEDS = range(1, 5)

SLOW = ("long-tasks", "one-machine", "everything-long")
"""Scenarios that found bugs with some seeds only: they get more of them."""


@pytest.mark.parametrize("name", sorted(set(SCENARIOS) - {"big-fleet"} - set(SLOW)))
def test_the_promise_is_kept(name: str) -> None:
    tasks = min(SCENARIOS[name].tasks, 400)
    for seed in SEEDS:
        summary = run(name, seed, tasks=tasks)
        assert summary.violation is None, f"everfaas sim {name} --seed {seed} --tasks {tasks}: {summary.violation}"
        assert sum(summary.ended.values()) == tasks + summary.workers * summary.slots  # and a probe for each slot
        if name != "calm":
            assert summary.faults, "a scenario in which nothing goes wrong proves nothing"


@pytest.mark.parametrize("name", SLOW)
def test_the_promise_is_kept_when_everything_takes_long(name: str) -> None:
    for seed in range(1, 21):
        summary = run(name, seed)
        assert summary.violation is None, f"everfaas sim {name} --seed {seed}: {summary.violation}"


def test_a_big_fleet_in_small() -> None:
    summary = run("big-fleet", 1, workers=200, tasks=3000)
    assert summary.violation is None
