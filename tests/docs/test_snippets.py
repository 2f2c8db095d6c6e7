"""Each Python snippet of the documents runs, each shell snippet is a command that would work."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from everfaas_core.cli.group import COMMANDS, everfaas

from .markdown import DOCUMENTS, ROOT, Block, blocks
from .shell import WrongCommand, check, commands

LOCAL = "http://127.0.0.1:8000"
PYTHON = [block for document in DOCUMENTS for block in blocks(document, "python")]
PLAIN = [block for block in PYTHON if LOCAL in block.text]
OURS = [
    block
    for block in PYTHON
    if re.search(r"^from everfaas_core import .*(Client|Executor|function|register_joblib)", block.text, re.M)
]
CLIENTS = [*PLAIN, *OURS]
SUITES = [block for block in PYTHON if "Contract" in block.text]
SHELL = [block for document in DOCUMENTS for block in blocks(document, "bash")]
RUN_S = 60


@pytest.mark.xdist_group("docs")
@pytest.mark.parametrize("block", CLIENTS, ids=str)
def test_a_client_prints_what_the_document_says(block: Block, url: str, python: str, tmp_path: Path) -> None:
    script = tmp_path / "client.py"
    script.write_text(block.text.replace(LOCAL, url))
    environ = {**os.environ, "EVERFAAS_URL": url}
    done = subprocess.run([python, script], cwd=tmp_path, env=environ, capture_output=True, text=True, timeout=RUN_S)
    assert done.returncode == 0, done.stderr
    assert block.output is not None, "show what it prints, in a text block behind it"
    assert done.stdout == block.output


def test_the_readme_has_a_client_of_ten_lines_and_one_of_v1() -> None:
    first, second = (block for block in PLAIN if block.document.name == "README.md" and block.document.parent == ROOT)
    assert len([line for line in first.text.splitlines() if line.strip()]) <= 10
    assert "/execute_function" in first.text
    assert "wait_s" in second.text
    for block in (first, second):
        assert set(re.findall(r"^import (.*)$", block.text, re.MULTILINE)) == {"codecs, dill, requests"}
    assert first.output == "42\n"


@pytest.mark.parametrize("block", SUITES, ids=str)
def test_a_contract_suite_of_three_lines_passes(block: Block, python: str, tmp_path: Path) -> None:
    (tmp_path / "test_mine.py").write_text(block.text)
    words = [python, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_mine.py"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=RUN_S)
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout


@pytest.mark.parametrize("block", PYTHON, ids=str)
def test_python_compiles(block: Block) -> None:
    compile(block.text, str(block), "exec")


@pytest.mark.parametrize("block", SHELL, ids=str)
def test_shell_is_well_formed_and_its_commands_exist(block: Block) -> None:
    done = subprocess.run(["bash", "-n", "-c", block.text], capture_output=True, text=True, timeout=RUN_S)
    assert done.returncode == 0, done.stderr
    found = list(commands(block))
    assert found
    for words in found:
        check(words)


@pytest.mark.parametrize(
    "words",
    [
        ["everfaas", "up", "--no-such-flag"],
        ["everfaas", "walk", "f"],
        ["python", "run_worker.py", "push", "4", "tcp://x:1", "--store", "x"],
        ["python", "examples/no_such.py"],
        ["pip", "install", ".[nope]"],
        ["rm", "-r", "x"],
    ],
)
def test_a_wrong_command_would_be_noticed(words: list[str]) -> None:
    with pytest.raises(WrongCommand):
        check(words)


FOREIGN_FLAGS = {
    "--help",
    "--version",
    "--check",
    "--seniority-newest-first",
}  # of click, ruff, the plugin in plugins.md


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_flags_that_documents_mention_exist(document: Path) -> None:
    import click

    known = set(FOREIGN_FLAGS)
    for name in COMMANDS:
        command = everfaas.get_command(click.Context(everfaas), name)
        assert command is not None
        known.update(flag for parameter in command.params for flag in parameter.opts)
    # Commands of their own, which reliability.md and performance.md explain.
    for path in [*(ROOT / "tests" / "chaos").glob("*.py"), *(ROOT / "bench").glob("*/__main__.py")]:
        known.update(re.findall(r'add_argument\("(--[a-z-]+)"', path.read_text()))
    mentioned = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", document.read_text()))
    assert mentioned - known == set()
