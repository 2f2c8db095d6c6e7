"""The randomized run and the dispatcher kills: in short; and in full with `-m chaos_long`."""

from __future__ import annotations

from pathlib import Path

import pytest

from . import dispatcher_kills
from .run import run


@pytest.mark.chaos
@pytest.mark.xdist_group("chaos-0")
def test_twenty_seconds_of_anything(tmp_path: Path) -> None:
    outcome = run(tmp_path, seconds=20.0, seed=20, tasks=300)
    assert outcome.verdict.violations == [], f"{outcome}\n{outcome.logs}"
    assert outcome.verdict.counts["accepted"] == 300
    assert outcome.monkey.counts.total() >= 20


@pytest.mark.chaos
@pytest.mark.xdist_group("chaos-1")
@pytest.mark.parametrize("mode", ["pull", "push"])
def test_five_dispatcher_kills(tmp_path: Path, mode: str) -> None:
    tally = dispatcher_kills.run(tmp_path, kills=5, mode=mode, rate=10.0, seed=5)
    assert tally.ok, str(tally)
    assert tally.verdict.counts["accepted"] > 20


@pytest.mark.chaos
@pytest.mark.xdist_group("chaos-0")
def test_a_successor_that_comes_late(tmp_path: Path) -> None:
    """A worker may wonder whether its dispatcher is dead or only silent; it is dead, so nothing may run twice."""
    mix = {"very long": 1, "no-op": 10}
    tally = dispatcher_kills.run(
        tmp_path, kills=8, rate=4.0, seed=3, alive_s=(2.0, 3.0), dead_s=dispatcher_kills.LATE_S, mix=mix
    )
    assert tally.ok, str(tally)


@pytest.mark.chaos_long
@pytest.mark.timeout(1200)
def test_ten_minutes_of_anything(tmp_path: Path) -> None:
    outcome = run(tmp_path, seconds=600.0, seed=1, tasks=20_000)
    assert outcome.verdict.violations == [], str(outcome)
    assert outcome.verdict.counts["accepted"] == 20_000
    assert outcome.monkey.counts.total() >= 600


@pytest.mark.chaos_long
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("mode", ["pull", "push"])
def test_two_hundred_dispatcher_kills(tmp_path: Path, mode: str) -> None:
    tally = dispatcher_kills.run(tmp_path, kills=200, mode=mode)
    assert tally.ok, str(tally)
