"""A client that has only `requests` and `dill`: a script of its own, in an interpreter that sees nothing else."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from .processes import System, clean_env

CLIENT_PACKAGES = ["requests", "dill", "urllib3", "certifi", "idna", "charset_normalizer"]

SCRIPT = """
import codecs, sys, time
import dill, requests

try:
    import everfaas_core
except ImportError:
    pass
else:
    raise SystemExit("this client must not see everfaas_core")

URL = sys.argv[1]

def encode(obj):
    return codecs.encode(dill.dumps(obj), "base64").decode()

def call(function, *args):
    body = {"name": function.__name__, "payload": encode(function)}
    function_id = requests.post(URL + "/register_function", json=body).json()["function_id"]
    body = {"function_id": function_id, "payload": encode((args, {}))}
    task_id = requests.post(URL + "/execute_function", json=body).json()["task_id"]
    while True:
        answer = requests.get(URL + "/result/" + task_id).json()
        if answer["status"] in ("COMPLETED", "FAILED"):
            return answer["status"], dill.loads(codecs.decode(answer["result"].encode(), "base64"))
        time.sleep(0.01)

def double(x):
    return x * 2

def factorial(n):
    return 1 if n < 2 else n * factorial(n - 1)

def fail():
    raise ValueError("as designed")

class Overdrawn(Exception):
    pass

def make_fail(cls):
    def fail_with_a_class_of_mine():
        raise cls("no", 3)
    return fail_with_a_class_of_mine

def crash():
    import os
    os._exit(7)

print(call(double, 21))
print(call(factorial, 10))
status, error = call(fail)
print(status, repr(error), "as designed" in "".join(error.__notes__))
status, error = call(make_fail(Overdrawn))
print(status, type(error).__name__, error.args)
status, error = call(crash)
print(status, type(error).__name__, str(error).startswith("WorkerFailure"), isinstance(error, Exception))
status, error = call(lambda: GLOBAL)
print(status, type(error).__name__, "recurse=True" in "".join(error.__notes__))
"""


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A folder from which only what such a client has can be imported."""
    site = tmp_path / "site"
    site.mkdir()
    for name in CLIENT_PACKAGES:
        spec = importlib.util.find_spec(name)
        assert spec is not None
        assert spec.submodule_search_locations
        (site / name).symlink_to(spec.submodule_search_locations[0])
    return site


def test_it_registers_calls_and_loads_every_kind_of_result(system: System, site: Path, tmp_path: Path) -> None:
    script = tmp_path / "client.py"
    script.write_text(SCRIPT)
    command = [sys.executable, "-S", "-s", str(script), system.url]
    env = clean_env(tmp_path) | {"PYTHONPATH": str(site)}
    done = subprocess.run(command, capture_output=True, text=True, env=env, cwd=tmp_path, timeout=100)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "('COMPLETED', 42)",
        "('COMPLETED', 3628800)",
        "FAILED ValueError('as designed') True",
        "FAILED Overdrawn ('no', 3)",
        "FAILED WorkerFailure True True",
        "FAILED NameError True",
    ]
