"""Functions of all kinds, packed by a client in a process and a folder of its own, run in slots that can't see them."""

from __future__ import annotations

import base64
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.shipping_cases import CASES, MODULES
from tests.unit.shipping_kit import ROOT, Seen, converse, other_python, pure_packages
from tests.unit.worker_kit import Slots

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


def test_all_results_load_in_a_client_that_has_only_dill(seen: dict[str, Seen], home: Path) -> None:
    script = home / "plain.py"
    script.write_text(
        "import base64, dill, json, sys\n"
        "sys.modules['everfaas_core'] = sys.modules['cloudpickle'] = None\n"
        "for name, result in json.load(sys.stdin).items():\n"
        "    value = dill.loads(base64.b64decode(result))\n"
        "    print(name, type(value).__name__, [f for f in dir(value) if f == 'x' and value.x], sep=':')\n"
    )
    results = {name: base64.b64encode(one.result).decode() for name, one in seen.items()}
    done = subprocess.run([sys.executable, script], input=json.dumps(results), capture_output=True, text=True, cwd=home)
    assert done.returncode == 0, done.stderr
    told = done.stdout.splitlines()
    assert len(told) == len(NAMES)
    assert "function of an own module:Point:['x']" in told
    assert "own exception:Trouble:[]" in told


OPENS = """
import base64, json, sys
from everfaas_core.shipping.envelope import unseal
from everfaas_core.shipping.opening import open_packed
import pickle
for name, (payload, call) in json.load(sys.stdin).items():
    payload, call = base64.b64decode(payload), base64.b64decode(call)
    try:
        function, scene = open_packed(unseal(payload)) if unseal(payload) else (pickle.loads(payload), None)
        args, kwargs = open_packed(unseal(call), scene)[0] if unseal(call) else pickle.loads(call)
        value = function(*args, **kwargs)
    except BaseException as error:
        value = error
    print(json.dumps([name, repr(value)]))
"""


@pytest.mark.parametrize("minor", PYTHONS[1:])
def test_newer_pythons_run_what_3_11_has_packed(slots: Slots, home: Path, minor: str) -> None:
    python = other_python(minor)
    if python is None:
        pytest.skip(f"there is no Python {minor} on this machine")
    seen = converse(slots, CASES, home / f"for-{minor}", modules=MODULES)
    packed = {name: [base64.b64encode(part).decode() for part in (one.payload, one.call)] for name, one in seen.items()}
    path = os.pathsep.join([str(ROOT), str(pure_packages(home / "pure"))])
    done = subprocess.run(
        [python, "-c", OPENS], input=json.dumps(packed), env={**os.environ, "PYTHONPATH": path},
        capture_output=True, text=True, cwd=home,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    shown = dict(json.loads(line) for line in done.stdout.splitlines())
    assert len(shown) == len(NAMES)
    assert {n: one for n, one in shown.items() if " at 0x" not in one} == {
        n: one.shown for n, one in seen.items() if " at 0x" not in one.shown
    }
