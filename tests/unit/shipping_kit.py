"""Clients in processes of their own, of this Python or another, whose functions run in slots here.

A client's script defines `cases = {name: (function, args, kwargs, check)}`. It packs each, is given the results, and
says what it sees: so results are loaded by the very process that packed.
"""

from __future__ import annotations

import base64
import functools
import json
import os
import subprocess
import sys
import sysconfig
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cloudpickle
import dill
from msgspec import Struct

from everfaas_core.model.states import Cause
from tests.unit.worker_kit import ROOT, Slots

_TALK = """
import base64, json, sys, traceback
from everfaas_core.shipping import NotShippable, Shipper, load_result
shipper = Shipper(globals().get("ship", ()))
packed = {}
for name, (function, args, kwargs, check) in cases.items():
    try:
        sent = shipper.pack_function(function)
        call = shipper.pack_call(args, kwargs, sent)
        packed[name] = [base64.b64encode(one).decode() for one in (sent.payload, call)] + [sent.python, sent.warnings]
    except NotShippable as error:
        packed[name] = str(error)
print(json.dumps(packed), flush=True)
seen = {}
for name, result in json.loads(sys.stdin.readline()).items():
    try:
        value = load_result(base64.b64decode(result))
        seen[name] = [bool(cases[name][3](value)), repr(value)]
    except BaseException as error:
        seen[name] = [False, "".join(traceback.format_exception(error))]
print(json.dumps(seen))
"""


class Seen(Struct):
    """What became of one case."""

    good: bool = False  # the client's check held
    shown: str = ""  # repr of the value or exception at the client
    refused: str = ""  # why the client did not pack it
    warnings: list[str] = []
    payload: bytes = b""
    call: bytes = b""
    result: bytes = b""
    cause: Cause | None = None
    error: str = ""  # traceback or reason, as the record has it


@functools.cache
def other_python(minor: str) -> str | None:
    """Return an interpreter of this minor version, or None if this machine has none."""
    if minor == "{}.{}".format(*sys.version_info):
        return sys.executable
    for root in (Path.home() / ".pyenv/versions", Path("/opt/python"), Path("/usr/bin"), Path("/usr/local/bin")):
        for found in [*sorted(root.glob(f"{minor}.*/bin/python")), root / f"python{minor}"]:
            if found.exists() and subprocess.run([found, "-c", "import zlib"], capture_output=True).returncode == 0:
                return str(found)
    return None


def pure_packages(directory: Path) -> Path:
    """Make a directory from which any Python can import what a client needs for shipping: it is pure Python."""
    directory.mkdir(exist_ok=True)
    for package in (cloudpickle, dill):
        link = directory / package.__name__
        if not link.exists():
            link.symlink_to(Path(package.__file__).parent)
    return directory


def converse(
    slots: Slots,
    source: str,
    home: Path,
    *,
    python: str = sys.executable,
    modules: Mapping[str, str] | None = None,
    package: str = "",
    vanish: bool = False,
) -> dict[str, Seen]:
    """Run a client's script in `home`, where its modules are, and its functions in slots that can't see that place.

    `package`: run it as a module of this package. `vanish`: the script is deleted before its functions run.
    """
    home.mkdir(exist_ok=True)
    for name, text in (modules or {}).items():
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).write_text(text)
    script = home / package / "client.py"
    script.write_text(source + _TALK)
    path = [str(ROOT), str(pure_packages(home / "pure"))]
    client = subprocess.Popen(
        [python, *(["-m", f"{package}.client"] if package else [str(script)])],
        cwd=home,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path), "PYTHONDONTWRITEBYTECODE": "1"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with client:
        assert client.stdout is not None
        line = client.stdout.readline()
        assert line, f"the client said nothing; it exited with {client.wait()}"
        if vanish:
            script.unlink()
        seen = _run_all(slots, json.loads(line))
        results = {name: base64.b64encode(one.result).decode() for name, one in seen.items() if not one.refused}
        answer, _ = client.communicate(json.dumps(results) + "\n", timeout=60)
    for name, (good, shown) in json.loads(answer).items():
        seen[name].good, seen[name].shown = good, shown
    return seen


def _run_all(slots: Slots, packed: dict[str, Any]) -> dict[str, Seen]:
    seen: dict[str, Seen] = {}
    for name, sent in packed.items():
        if isinstance(sent, str):
            seen[name] = Seen(refused=sent)
            continue
        payload, call = (base64.b64decode(one) for one in sent[:2])
        outcome = slots.run(payload, call, python=sent[2])
        seen[name] = Seen(
            warnings=sent[3], payload=payload, call=call, result=outcome.result, cause=outcome.cause,
            error=outcome.error or "",
        )  # fmt: skip
    return seen


def site_packages() -> Path:
    """Return where this environment's distributions lie."""
    return Path(sysconfig.get_path("purelib"))
