"""SECURITY.md names tests that exist, and two of its statements are shown here."""

from __future__ import annotations

import ast
import pickle
import re
from pathlib import Path

import psutil
import pytest

from tests.e2e.classic import TERMINAL, Classic, deserialize
from tests.e2e.processes import Process

from .markdown import ROOT

SECURITY = ROOT / "SECURITY.md"
NURSERY = "everfaas_core.worker.nursery_process"


def test_the_tests_that_it_names_exist() -> None:
    text = SECURITY.read_text()
    file = ""
    named = 0
    for part in re.findall(r"`((?:tests/[\w/]+\.py)?::\w+)`", text):
        path, _, name = part.partition("::")
        file = path or file
        source = (ROOT / file).read_text()
        assert re.search(rf"^\s*def {name}\(", source, re.MULTILINE), part
        named += 1
    assert named > 20


class Canary:
    """Loading it leaves a file that is named after the process that did."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[object, ...]:
        return exec, (f"import os; open({str(self.folder)!r} + '/' + str(os.getpid()), 'w').close()",)


@pytest.mark.xdist_group("docs")
def test_a_canary_sings_only_in_a_slot(up: Process, url: str, tmp_path: Path) -> None:
    """Statement 2, through a whole running system: as a function, as an argument, and as a result."""
    import codecs

    def text(thing: object) -> str:
        return codecs.encode(pickle.dumps(thing), "base64").decode()

    def give(thing: object) -> object:
        return thing

    client = Classic(url)
    canary = Canary(tmp_path)
    as_function = client.register(None, "canary", text(canary))  # type: ignore[arg-type] # only its payload is sent
    as_argument = client.register(give)
    tasks = [client.execute(as_function), client.execute_payload(as_argument, text(((canary,), {})))]
    bodies = [client.wait(task) for task in tasks]
    assert [body["status"] in TERMINAL for body in bodies] == [True, True]
    assert "can't be called" in str(deserialize(bodies[0]["result"]))
    for path in ("/", "/v1/tasks", "/v1/functions", f"/v1/tasks/{tasks[0]}"):
        assert client.session.get(url + path, headers={"Accept": "text/html"}, timeout=30).ok

    sang = {int(path.name) for path in tmp_path.iterdir()}
    assert sang, "a slot has loaded it"
    slots = {
        process.pid for process in up.family() if (parent := process.parent()) and NURSERY in " ".join(parent.cmdline())
    }
    assert sang <= slots
    assert sang.isdisjoint({up.popen.pid, *(child.pid for child in psutil.Process(up.popen.pid).children())})


PICKLERS = {"pickle", "dill", "marshal", "cloudpickle"}
LOADERS = {"load", "loads", "Unpickler"}
MAY_LOAD = {"everfaas_core/worker/code.py", "everfaas_core/worker/results.py"}  # they run in slots only
SHIPPING = "everfaas_core/shipping/"  # runs in slots, and in clients when they load their results
MAY_SHIP = (SHIPPING, "everfaas_core/client/", "everfaas_core/cli/", "everfaas_core/__init__.py")


def loads_pickles(source: str) -> bool:
    """Tell whether a module refers to something that unpickles: pickle.loads, dill.Unpickler, …"""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Attribute(value=ast.Name(id=name), attr=attribute) if name in PICKLERS and attribute in LOADERS:
                return True
            case ast.ImportFrom(module=name, names=names) if name in PICKLERS and LOADERS & {one.name for one in names}:
                return True
    return False


def test_only_slots_have_code_that_loads() -> None:
    modules = [*(ROOT / "everfaas_core").rglob("*.py"), *(ROOT / "plugins").rglob("*.py")]
    shipped = {path.relative_to(ROOT).as_posix(): path.read_text() for path in modules}
    loading = {name for name, source in shipped.items() if "/testing/" not in name and loads_pickles(source)}
    assert {name for name in loading if not name.startswith(SHIPPING)} <= MAY_LOAD
    using = {name for name, source in shipped.items() if "everfaas_core.shipping" in source}
    assert {name for name in using if not name.startswith(MAY_SHIP)} <= MAY_LOAD, "nobody else has code opened"
    assert loads_pickles(shipped["everfaas_core/worker/code.py"]), "the search would find one"
