"""The examples run against a running system and end with the line that they promise."""

from __future__ import annotations

import ast
import importlib.util
import json
import os
import re
import struct
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.e2e.processes import clean_env

from .markdown import ROOT, first_column

EXAMPLES = ROOT / "examples"
LAST_LINES = {  # patterns
    "double.py": re.escape("double(21) = 42"),
    "grid_search.py": r"best: C=\d+ and gamma=0\.\d+, which tell 9\d\.\d% of the digits right",
    # both are exact: each call has its own seed, and Python's generator and arithmetic are the same everywhere
    "pi.py": re.escape("pi is about 3.1448 (0.10% off, 2,000,000 darts)"),
    "sweep.py": re.escape("worst: 81.5% ill at once, at 0.82 infections a day and 20 days, see sweep.png"),
    "thumbnails.py": re.escape("20 thumbnails of 1600 × 1200 pixels, see contact-sheet.png"),
}
PLAIN = {"double.py"}  # knows nothing of us: what .ci/run starts where there is only requests and dill
PICTURES = {"sweep.py": ("sweep.png", (960, 540)), "thumbnails.py": ("contact-sheet.png", (1060, 650))}
LIBRARIES = {"joblib": "joblib", "matplotlib": "matplotlib", "PIL": "pillow", "sklearn": "scikit-learn"}


def imports(script: str) -> set[str]:
    """Return the top-level packages that a script imports, without the standard library."""
    tree = ast.parse((EXAMPLES / script).read_text())
    names = [alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names]
    names += [node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    return {name.split(".")[0] for name in names} - set(sys.stdlib_module_names)


def missing(script: str) -> list[str]:
    return sorted(LIBRARIES[name] for name in imports(script) & set(LIBRARIES) if not importlib.util.find_spec(name))


def scripts() -> list[object]:
    """All scripts; those whose libraries are not installed are skipped. .ci/run installs the extra `examples`."""
    return [
        pytest.param(
            script,
            marks=pytest.mark.skipif(
                bool(missing(script)), reason=f"needs {', '.join(missing(script))}: pip install '.[examples]'"
            ),
        )
        for script in sorted(LAST_LINES)
    ]


def run(python: str, script: str, *arguments: str, cwd: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("EVERFAAS_")}
    words = [python, str(EXAMPLES / script), *arguments]
    return subprocess.run(words, cwd=cwd, env=clean | environ, capture_output=True, text=True, timeout=90)


@pytest.mark.xdist_group("docs")
@pytest.mark.parametrize("script", scripts())
def test_an_example_ends_with_its_line(script: str, url: str, python: str, tmp_path: Path) -> None:
    done = run(python, script, url, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(LAST_LINES[script], done.stdout.splitlines()[-1]), done.stdout
    found = {path.name: path.read_bytes()[:24] for path in tmp_path.iterdir()}
    name, size = PICTURES.get(script, (None, None))
    assert set(found) == ({name} if name else set())
    if name:  # width and height stand behind a PNG's signature and the name of its first chunk
        assert found[name].startswith(b"\x89PNG")
        assert struct.unpack(">II", found[name][16:]) == size


@pytest.mark.xdist_group("docs")
@pytest.mark.parametrize("script", ["double.py", "pi.py"])
def test_the_address_may_come_from_the_environment(script: str, url: str, python: str, tmp_path: Path) -> None:
    done = run(python, script, cwd=tmp_path, EVERFAAS_URL=url)
    assert re.fullmatch(LAST_LINES[script], done.stdout.splitlines()[-1]), done.stderr


@pytest.mark.xdist_group("docs")
def test_its_function_can_be_called_from_the_command_line(url: str, python: str, tmp_path: Path) -> None:
    words = [python, "-m", "everfaas_core.cli"]
    environ = clean_env(tmp_path) | {"EVERFAAS_URL": url}
    estimate = str(EXAMPLES / "pi.py") + "::estimate"
    done = subprocess.run([*words, "run", estimate, "100000"], env=environ, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert " of 100,000 darts hit" in done.stdout + done.stderr
    assert 3 < float(done.stdout.splitlines()[-1]) < 3.3
    sizes = tmp_path / "sizes.txt"
    sizes.write_text("1000\n2000\n3000\n")
    words += ["map", estimate, "--over", str(sizes)]
    done = subprocess.run(words, env=environ, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    outcomes = [json.loads(line) for line in done.stdout.splitlines()]
    assert sorted(one["index"] for one in outcomes) == [0, 1, 2]  # as they end
    assert all(one["status"] == "COMPLETED" and 2 < one["value"] < 4 for one in outcomes)


@pytest.mark.parametrize("script", scripts())
def test_without_a_system_it_says_how_to_start_one(script: str, python: str, tmp_path: Path) -> None:
    done = run(python, script, "http://127.0.0.1:9", cwd=tmp_path)  # the discard port: nobody listens there
    assert done.returncode == 1
    assert "everfaas up" in done.stderr
    assert "Traceback" not in done.stderr


def test_all_examples_are_tested_and_listed() -> None:
    found = {path.name for path in EXAMPLES.glob("*.py")}
    assert found == set(LAST_LINES) == set(first_column(EXAMPLES / "README.md", "script"))


@pytest.mark.parametrize("script", sorted(LAST_LINES))
def test_an_example_needs_only_what_it_says(script: str) -> None:
    if script in PLAIN:
        assert imports(script) == {"requests", "dill"}
    else:
        assert "everfaas_core" in imports(script)
        libraries = {LIBRARIES[name] for name in imports(script) - {"everfaas_core"}}
        told = set(re.findall(r"^ {4}pip install ([\w-]+)", (EXAMPLES / script).read_text(), re.MULTILINE))
        assert libraries - {"joblib"} == told  # scikit-learn brings joblib


def test_the_extra_has_what_the_examples_need() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    names = {re.split(r"[<>=]", one)[0] for one in extras["examples"]}
    assert names == {*LIBRARIES.values(), "requests"}
    for name in ("joblib", "matplotlib", "requests"):  # the same bounds everywhere
        assert len({one for some in extras.values() for one in some if one.startswith(name + ">")}) == 1


def test_ci_runs_the_plain_ones_without_us_and_the_others_with_their_libraries() -> None:
    script = (ROOT / ".ci" / "run").read_text()
    (plain,) = re.findall(r'^    try_up "(.*?)" "\$work/venv-client/bin/python"', script, re.MULTILINE)
    assert set(plain.split()) == PLAIN
    assert "[test,lint,docs,examples]" in script
