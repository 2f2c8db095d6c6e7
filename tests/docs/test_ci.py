"""`.ci/run` and the README do not drift apart."""

from __future__ import annotations

import os
import subprocess

from .markdown import ROOT, blocks

SCRIPT = ROOT / ".ci" / "run"


def test_the_commands_that_it_runs_are_those_of_the_readme() -> None:
    lines = [line for block in blocks(ROOT / "README.md", "bash") for line in block.text.splitlines()]
    start = [line for line in lines if line.endswith("&& everfaas up")]
    test = [line for line in lines if line.endswith("&& pytest")]
    assert len(start) == len(test) == 1
    done = subprocess.run([SCRIPT, "commands"], cwd="/", capture_output=True, text=True, timeout=30)
    assert done.stdout.splitlines() == [*start, *test], done.stderr
    for line in (*start, *test):
        assert line.startswith("python3 -m venv .venv && . .venv/bin/activate && pip install "), (
            "Debian's Python needs one"
        )


def test_it_is_a_strict_and_executable_bash_script() -> None:
    text = SCRIPT.read_text()
    assert os.access(SCRIPT, os.X_OK)
    assert text.startswith("#!/usr/bin/env bash\n")
    assert "\nset -euo pipefail\n" in text
    assert subprocess.run(["bash", "-n", SCRIPT], timeout=30).returncode == 0
