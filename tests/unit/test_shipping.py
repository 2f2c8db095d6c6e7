"""Functions of all kinds, packed by a client in a process and a folder of its own, run in slots that can't see them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from everfaas_core.model.states import Cause
from tests.unit.shipping_cases import CASES, MODULES
from tests.unit.shipping_kit import Seen, converse, other_python
from tests.unit.worker_kit import Slots, client_sees

NAMES = re.findall(r'^    "([^"]+)": \(', CASES, re.MULTILINE)
PYTHONS = ["3.11", "3.12", "3.13"]
pytestmark = pytest.mark.xdist_group("shipping")


@pytest.fixture(scope="module")
def slots() -> Iterator[Slots]:
    with Slots(1) as started:
        yield started


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("shipping")


@pytest.fixture(scope="module", params=PYTHONS)
def seen(request: pytest.FixtureRequest, slots: Slots, home: Path) -> dict[str, Seen]:
    python = other_python(request.param)
    if python is None:
        pytest.skip(f"there is no Python {request.param} on this machine")
    return converse(slots, CASES, home / request.param, python=python, modules=MODULES)


@pytest.mark.parametrize("name", NAMES)
def test_it_runs_where_its_modules_are_not(seen: dict[str, Seen], name: str) -> None:
    one = seen[name]
    assert not one.refused
    assert one.good, (one.shown, one.error)
    assert one.warnings == []
