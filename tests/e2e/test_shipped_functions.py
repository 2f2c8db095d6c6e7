"""Functions by value over HTTP, in all modes: of this Python, and of another one from its source."""

from __future__ import annotations

import base64
import json
import os
import subprocess
from pathlib import Path
from typing import Any

import dill
import pytest

from everfaas_core.model.failure import NotLoadable
from everfaas_core.shipping import Shipper, load_result

from ..unit.shipping_kit import ROOT, other_python, pure_packages
from .classic import Classic

FACTOR = 3


class Reading:
    def __init__(self, value: int) -> None:
        self.value = value

    def scaled(self) -> Reading:
        return Reading(self.value * FACTOR)


class Unreadable(Exception):
    pass


def scale(readings: list[Reading]) -> list[Reading]:
    return [one.scaled() for one in readings]


def fail(reading: Reading) -> None:
    raise Unreadable(reading.value)


def submit(client: Classic, payload: bytes, python: str | None, call: bytes) -> bytes:
    """Register, call and wait; return the result's bytes."""
    body: dict[str, Any] = {"name": "shipped", "payload": base64.b64encode(payload).decode(), "python": python}
    registered = client.session.post(client.url + "v1/functions", json=body, timeout=10)
    assert registered.status_code == 201, registered.text
    task = client.execute_payload(registered.json()["function_id"], base64.b64encode(call).decode())
    return base64.b64decode(client.wait(task)["result"])


def run(client: Classic, function: Any, *args: Any) -> bytes:
    shipper = Shipper()
    packed = shipper.pack_function(function)
    return submit(client, packed.payload, packed.python, shipper.pack_call(args, {}, packed))


def test_own_classes_go_there_and_come_back(client: Classic) -> None:
    result = run(client, scale, [Reading(1), Reading(2)])
    value = load_result(result)
    assert [type(one) for one in value] == [Reading, Reading]
    assert [one.value for one in value] == [3, 6]
    assert [one.value for one in dill.loads(result)] == [3, 6]


def test_own_exceptions_come_back_with_the_remote_traceback(client: Classic) -> None:
    error = load_result(run(client, fail, Reading(7)))
    assert type(error) is Unreadable
    assert error.args == (7,)
    assert "raise Unreadable(reading.value)" in error.__notes__[0]


OTHER = """
import base64, json
from everfaas_core.shipping import Shipper
FACTOR = 5
def work(x): return [y * FACTOR for y in range(x)]
exec("def sourceless(x): return x")
shipper = Shipper()
sent = [shipper.pack_function(one) for one in (work, sourceless)]
call = base64.b64encode(shipper.pack_call((3,), {})).decode()
print(json.dumps([[base64.b64encode(one.payload).decode(), one.python, call] for one in sent]))
"""


def test_another_python_runs_from_source_or_is_refused_with_the_reason(client: Classic, tmp_path: Path) -> None:
    python = other_python("3.12")
    if python is None:
        pytest.skip("there is no Python 3.12 on this machine")
    (tmp_path / "other.py").write_text(OTHER)
    path = os.pathsep.join([str(ROOT), str(pure_packages(tmp_path / "pure"))])
    environ = {**os.environ, "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"}
    said = subprocess.run([python, "other.py"], cwd=tmp_path, env=environ, capture_output=True, text=True, check=True)
    (work, sourceless) = (
        load_result(submit(client, base64.b64decode(payload), python, base64.b64decode(call)))
        for payload, python, call in json.loads(said.stdout)
    )
    assert work == [0, 5, 10]
    assert type(sourceless) is NotLoadable
    assert "packed by Python 3.12, this worker runs 3.11" in str(sourceless)
    assert "made by exec or eval, which keep no source" in str(sourceless)
