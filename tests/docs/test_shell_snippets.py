"""The shell snippets that call a running system are run, line by line, as the documents have them.

Those that start a system, install something or want several terminals are run elsewhere: the README's two by `.ci/run`,
the roles by tests/e2e and tests/unit/test_cli_roles.py.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from everfaas_core import Client

from .markdown import ROOT, Block
from .shell import commands
from .test_snippets import SHELL

CALLS = {"run", "map", "ls", "status", "result", "logs", "cancel", "retry", "drain", "doctor", "config", "bench"}
"""Subcommands that call a system, or look at this machine, and come to an end."""

BESIDE = {"seq", "xargs"}
ID = re.compile(r"\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b")
RUN_S = 60


def is_client(block: Block) -> bool:
    """Tell whether all its commands can be run here."""
    return all(
        words[0] in BESIDE or (words[0] == "everfaas" and len(words) > 1 and words[1] in CALLS)
        for words in commands(block)
    )


CLIENTS = [block for block in SHELL if is_client(block)]


def simulate(rate: float, size: int) -> float:
    return rate * size


def fails() -> None:
    raise LookupError("as it was meant to")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as the documents assume it: the examples, and what their reader would have."""
    folder = tmp_path_factory.mktemp("shell")
    shutil.copytree(ROOT / "examples", folder / "examples")
    (folder / "sizes.txt").write_text("1000\n2000\n3000\n")
    (folder / "work.py").write_text("def simulate(rate, size):\n    return rate * size\n")
    (folder / "runs.csv").write_text("rate,size\n1.5,2\n2.5,4\n")
    (folder / "package").mkdir()
    (folder / "package" / "__init__.py").touch()
    (folder / "package" / "module.py").write_text("def function(*args, name):\n    return args, name\n")
    return folder


def id_for(client: Client, line: str) -> str:
    """Return the id of a task that the command of a line is made for."""
    if " retry " in line:
        future = client.submit(fails)
        assert future.exception(30)
    elif " cancel " in line:
        future = client.options(delay_s=600).submit(fails)  # type: ignore[assignment]  # any future will do
    else:
        future = client.submit(simulate, 1.5, 2)  # type: ignore[assignment]  # any future will do
        assert future.result(30) == 3.0
    return future.task_id


def statuses(line: str) -> set[int]:
    """Return how a line may end: with 0, unless it names what is not there."""
    if " drain " in line:
        return {8}  # worker-1 is nobody
    return {0, 1} if " doctor" in line else {0}  # of this machine it may find something to say


@pytest.mark.xdist_group("docs")
@pytest.mark.parametrize("block", CLIENTS, ids=str)
def test_a_shell_snippet_runs(block: Block, url: str, place: Path) -> None:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environ = {name: value for name, value in os.environ.items() if not name.startswith("EVERFAAS_")}
    environ |= {"EVERFAAS_URL": url, "PATH": path, "HOME": str(place)}
    with Client(url) as client:
        for line in block.text.strip().splitlines():
            queued = client.options(group="sweep", delay_s=600).submit(fails)
            shown = ID.sub(lambda _, line=line: id_for(client, line), line)  # type: ignore[misc]  # a line's own
            assert queued.task_id
            words = ["bash", "-o", "pipefail", "-c", shown]
            done = subprocess.run(words, cwd=place, env=environ, capture_output=True, text=True, timeout=RUN_S)
            assert done.returncode in statuses(line), f"{shown}\n{done.stdout}{done.stderr}"
            assert "Traceback" not in done.stderr
        client.attach("sweep").cancel()


def test_most_of_the_command_lines_page_is_run() -> None:
    assert len([block for block in CLIENTS if block.document.name == "cli.md"]) >= 6
    assert any(block.document.name == "README.md" for block in CLIENTS)
