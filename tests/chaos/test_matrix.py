"""The kill matrix: in short, one kill a row and ten times the bound; in full, with `-m chaos_long`."""

from __future__ import annotations

from pathlib import Path

import pytest

from .client import MIX
from .matrix import NAMES, measure

GROUPS = 2  # rows of one group run one after another, so that they leave some of the machine to each other


@pytest.mark.chaos
@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=pytest.mark.xdist_group(f"chaos-{at % GROUPS}")) for at, name in enumerate(NAMES)],
)
def test_one_kill(name: str, tmp_path: Path) -> None:
    row = measure(name, 1, tmp_path, mix=MIX)
    assert row.problems == []
    assert len(row.kills) == 1
    assert row.bound_s is None or max(row.seconds) < 10 * row.bound_s


@pytest.mark.chaos_long
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("name", NAMES)
def test_ten_kills(name: str, tmp_path: Path) -> None:
    row = measure(name, 10, tmp_path)
    assert row.problems == []
    assert row.within, row.line()
