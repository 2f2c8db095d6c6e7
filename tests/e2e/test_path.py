"""Functions by reference: the directory that a role was started in, `--path` and `EVERFAAS_PATH` decide."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from .classic import Classic
from .processes import System


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A module that only its author's folder has."""
    folder = tmp_path / "somewhere"
    folder.mkdir()
    (folder / "mine_alone.py").write_text("def triple(x):\n    return x * 3\n")
    monkeypatch.syspath_prepend(folder)
    import mine_alone

    yield mine_alone
    del sys.modules["mine_alone"]


def test_a_function_is_found_on_path(module, tmp_path: Path) -> None:
    system = System(tmp_path, "local", slots=1, flags=["--path", str(tmp_path / "somewhere")])
    try:
        assert Classic(system.url).call(module.triple, 14) == ("COMPLETED", 42)
    finally:
        system.stop()


def test_a_workers_path_counts_not_the_dispatchers(module, tmp_path: Path) -> None:
    system = System(tmp_path, "pull", slots=2)
    try:
        status, error = Classic(system.url).call(module.triple, 14)
        assert (status, "mine_alone" in str(error), "--path" in str(error)) == ("FAILED", True, True)
        for worker in system.workers:
            worker.stop()
        system.start_worker(1, "--path", str(tmp_path / "somewhere"))
        assert Classic(system.url).call(module.triple, 14) == ("COMPLETED", 42)
    finally:
        system.stop()
