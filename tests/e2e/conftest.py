"""One running system a mode; all tests of a mode share it, and pytest-xdist keeps them on one of its workers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from .classic import Classic
from .processes import Process, System

MODES = ["local", "pull", "push"]


def by_mode() -> list[object]:
    return [pytest.param(mode, marks=pytest.mark.xdist_group(f"e2e-{mode}")) for mode in MODES]


@pytest.fixture(scope="session", params=by_mode())
def system(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    system = System(tmp_path_factory.mktemp(request.param), request.param)
    yield system
    system.stop()


@pytest.fixture
def client(system: System) -> Classic:
    return Classic(system.url)


@pytest.fixture(scope="module", params=by_mode())
def deadline_client(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Classic]:
    """A system whose dispatcher was started with `--task-deadline 2`."""
    home: Path = tmp_path_factory.mktemp(f"{request.param}-deadline")
    system = System(home, request.param, flags=["--task-deadline", "2"])
    yield Classic(system.url)
    system.stop()


@pytest.fixture(scope="session")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of an `everfaas up` with four slots. Tests that use it are in the xdist group `e2e-fleet`."""
    home: Path = tmp_path_factory.mktemp("fleet")
    up = Process(["-m", "everfaas_core.cli", "up", "--port", "0", "--data", str(home / "data")], home / "up.log")
    yield up.address.rstrip("/")
    assert up.stop() == 0, up.log.read_text()
