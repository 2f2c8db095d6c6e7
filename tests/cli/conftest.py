"""One running system for all tests of the commands that call an API; pytest-xdist keeps them on one of its workers."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest

from tests.cli.driving import Line
from tests.unit.system import Command, running
from tests.unit.test_cli_up import ready, up


@pytest.fixture(scope="session")
def everything(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Command]]:
    """`everfaas up` with one worker of two slots: its URL, and the process. For tests of the xdist group `cli`."""
    home = tmp_path_factory.mktemp("cli")
    with running(up("-m", "pull", "-w", "2", data=home / "data"), home) as command:
        yield ready(command)[0], command
        assert command.end() == 0
        assert command.alive() == []


@pytest.fixture(scope="session")
def url(everything: tuple[str, Command]) -> str:
    """The address of its API."""
    return everything[0]


@pytest.fixture(autouse=True)
def path(monkeypatch: pytest.MonkeyPatch) -> None:
    """A copy of `sys.path`, which `run` and `map` put folders on: other tests of this process are not to find them."""
    monkeypatch.setattr(sys, "path", [*sys.path])


@pytest.fixture
def line(url: str, capsysbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch) -> Line:
    """The command line, run in this process, with that API as EVERFAAS_URL."""
    monkeypatch.setenv("EVERFAAS_URL", url)
    return Line(url, capsysbinary)
