"""One system for all documents, started as the README starts it, on a free port."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.processes import Process


@pytest.fixture(scope="session")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    """`everfaas up`, with embedded store and four slots. Tests that use it are in the xdist group `docs`."""
    home: Path = tmp_path_factory.mktemp("up")
    process = Process(["-m", "everfaas_core.cli", "up", "--port", "0", "--data", str(home / "data")], home / "up.log")
    yield process
    assert process.stop() == 0, process.log.read_text()


@pytest.fixture(scope="session")
def url(up: Process) -> str:
    """The address of its API."""
    return up.address.rstrip("/")


@pytest.fixture
def python() -> str:
    """The interpreter that snippets and examples run on."""
    return sys.executable
