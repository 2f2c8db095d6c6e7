"""The examples run against a running system and end with the line that they promise."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from .markdown import ROOT, first_column

EXAMPLES = ROOT / "examples"
LAST_LINES = {
    "double.py": "double(21) = 42",
    # both are exact: each task has its own seed, and Python's generator is the same everywhere
    "pi.py": "pi is about 3.1448 (0.10% off, 2,000,000 darts)",
    "sweep.py": "worst: 66.6% ill at once, at 0.8 infections a day and 10 days (4 combinations failed)",
}


def run(python: str, script: str, *arguments: str, cwd: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("EVERFAAS_")}
    words = [python, str(EXAMPLES / script), *arguments]
    return subprocess.run(words, cwd=cwd, env=clean | environ, capture_output=True, text=True, timeout=60)


@pytest.mark.xdist_group("docs")
@pytest.mark.parametrize("script", sorted(LAST_LINES))
def test_an_example_ends_with_its_line(script: str, url: str, python: str, tmp_path: Path) -> None:
    done = run(python, script, url, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == LAST_LINES[script]


@pytest.mark.xdist_group("docs")
def test_the_address_may_come_from_the_environment(url: str, python: str, tmp_path: Path) -> None:
    done = run(python, "double.py", cwd=tmp_path, EVERFAAS_URL=url)
    assert done.stdout == "double(21) = 42\n", done.stderr


@pytest.mark.parametrize("script", sorted(LAST_LINES))
def test_without_a_system_it_says_how_to_start_one(script: str, python: str, tmp_path: Path) -> None:
    done = run(python, script, "http://127.0.0.1:9", cwd=tmp_path)  # the discard port: nobody listens there
    assert done.returncode == 1
    assert "everfaas up" in done.stderr
    assert "Traceback" not in done.stderr


def test_all_examples_are_tested_and_listed() -> None:
    scripts = {path.name for path in EXAMPLES.glob("*.py")}
    assert scripts == set(LAST_LINES) == set(first_column(EXAMPLES / "README.md", "script"))


@pytest.mark.parametrize("script", sorted(LAST_LINES))
def test_an_example_needs_only_requests_and_dill(script: str) -> None:
    import ast
    import sys

    tree = ast.parse((EXAMPLES / script).read_text())
    imported = {
        alias.name.split(".")[0] for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names
    }
    imported |= {(node.module or "").split(".")[0] for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert imported - set(sys.stdlib_module_names) == {"requests", "dill"}
