"""What travels only sometimes: code without source, code that comes back, versions of a module, installed modules."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from everfaas_core.model.states import Cause
from tests.unit.shipping_kit import Seen, converse, other_python
from tests.unit.worker_kit import Slots, client_sees

pytestmark = pytest.mark.xdist_group("shipping")

ODD = '''
import linecache, sys

def define(filename, source, keep):
    """Define what a prompt or a notebook would, with or without keeping the source."""
    if keep:
        linecache.cache[filename] = (len(source), None, source.splitlines(keepends=True), filename)
    exec(compile(source, filename, "exec"), globals())

define("<stdin>", "def typed(x): return x + 1", keep=False)
define("<string>", "def executed(x): return x + 1", keep=False)
define("<ipython-input-1>", "def in_a_cell(x):\\n    return helper(x) + 1\\ndef helper(x): return x * 10\\n", keep=True)
if sys.version_info >= (3, 12):
    define("<cell>", "def newer[T](x: T) -> T: return x", keep=True)
else:
    define("<cell>", "def newer(x): return x", keep=True)
define("moved.py", "def changed(x): return x + 1", keep=True)
linecache.cache["moved.py"] = (1, None, ["def changed(x): return x + 2"], "moved.py")

def calls_executed(x): return executed(x)
def apply(f, x): return f(x)
def returns_a_function():
    def inner(x): return x + 1
    return inner
async def coroutine(): return 1
def fails():
    first = 1
    raise KeyError(first)  # this line is shown
def too_early(): return later
def asks_for_client_module():
    import needs_worker
    return needs_worker.VALUE

cases = {
    "typed at a prompt": (typed, (1,), {}, lambda v: v == 2),
    "made by exec": (executed, (1,), {}, lambda v: v == 2),
    "refers to code made by exec": (calls_executed, (1,), {}, lambda v: v == 2),
    "passes code made by exec": (apply, (executed, 1), {}, lambda v: v == 2),
    "in a notebook": (in_a_cell, (1,), {}, lambda v: v == 11),
    "newer syntax": (newer, (1,), {}, lambda v: v == 1),
    "changed on disk": (changed, (1,), {}, lambda v: v == 2),
    "returns a function": (returns_a_function, (), {}, lambda v: v(1) == 2),
    "coroutine": (coroutine, (), {}, lambda v: True),
    "fails": (fails, (), {}, lambda v: type(v) is KeyError),
    "too early": (too_early, (), {}, lambda v: type(v) is NameError),
    "module of the workers": (asks_for_client_module, (), {}, lambda v: True),
}
'''


@pytest.fixture(scope="module")
def slots() -> Iterator[Slots]:
    with Slots(1) as started:
        yield started


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("odd")


def odd(slots: Slots, home: Path, minor: str) -> dict[str, Seen]:
    python = other_python(minor)
    if python is None:
        pytest.skip(f"there is no Python {minor} on this machine")
    modules = {"needs_worker.py": "import module_of_the_workers\n"}
    return converse(slots, ODD, home / minor, python=python, modules=modules, vanish=True)


@pytest.fixture(scope="module")
def native(slots: Slots, home: Path) -> dict[str, Seen]:
    return odd(slots, home, "3.11")


@pytest.fixture(scope="module")
def foreign(slots: Slots, home: Path) -> dict[str, Seen]:
    return odd(slots, home, "3.12")


WITHOUT_SOURCE = [
    ("typed at a prompt", "function 'function' can't be loaded", "typed at a prompt that keeps no source"),
    ("made by exec", "function 'function' can't be loaded", "made by exec or eval"),
    ("refers to code made by exec", "'executed': it was made by exec", ""),
    ("passes code made by exec", "the arguments can't be loaded", "'executed': it was made by exec or eval"),
    ("newer syntax", "does not compile here", ""),
    ("changed on disk", "moved.py was changed after it was loaded", ""),
]


@pytest.mark.parametrize("name", [name for name, _, _ in WITHOUT_SOURCE] + ["in a notebook", "returns a function"])
def test_the_same_python_needs_no_source(native: dict[str, Seen], name: str) -> None:
    assert native[name].good, native[name]


@pytest.mark.parametrize(("name", "said", "reason"), WITHOUT_SOURCE, ids=[name for name, _, _ in WITHOUT_SOURCE])
def test_another_python_refuses_what_has_no_source_and_says_why(
    foreign: dict[str, Seen], name: str, said: str, reason: str
) -> None:
    one = foreign[name]
    assert one.cause is Cause.NOT_LOADABLE
    assert "packed by Python 3.12, this worker runs 3.11" in one.shown
    assert said in one.shown
    assert reason in one.shown
    assert "Start a worker with the client's version of Python, or run the client with 3.11" in one.shown
    assert one.shown.startswith('NotLoadable("WorkerFailure: ')


def test_a_cell_of_a_notebook_runs_from_source(foreign: dict[str, Seen]) -> None:
    assert foreign["in a notebook"].good


def test_code_in_a_result_is_not_loaded_by_another_python(foreign: dict[str, Seen]) -> None:
    one = foreign["returns a function"]
    assert one.cause is Cause.OK
    assert "ResultUnreadable: the result holds code of Python 3.11, and this is 3.12" in one.shown


def test_a_coroutine_is_no_result(native: dict[str, Seen]) -> None:
    assert native["coroutine"].shown.startswith("NotSerializable(")


@pytest.mark.parametrize("which", ["native", "foreign"])
def test_tracebacks_show_the_lines_of_files_that_are_not_there(which: str, request: pytest.FixtureRequest) -> None:
    one = request.getfixturevalue(which)["fails"]
    assert one.good
    assert "client.py" in one.error
    assert "raise KeyError(first)  # this line is shown" in one.error
    assert "everfaas_core" not in one.error


def test_a_global_that_was_not_there_yet_is_explained(native: dict[str, Seen]) -> None:
    assert native["too early"].good
    assert "'later' was not defined yet when the function was submitted" in native["too early"].error


def test_an_import_that_fails_at_the_client_is_a_warning(native: dict[str, Seen]) -> None:
    (warning,) = native["module of the workers"].warnings
    assert "the body imports 'needs_worker', which can't be imported here" in warning
    assert "No module named 'module_of_the_workers'" in warning
    assert native["module of the workers"].shown.startswith("ModuleNotFoundError")


TWO = """
import part
from part import Thing, tell
def use(thing):
    import part as again
    return part.VERSION, again.VERSION, thing.version(), tell(), type(thing) is Thing
cases = {"use": (use, (Thing(),), {}, lambda v: v == (part.VERSION,) * 4 + (True,))}
"""
PART = """
VERSION = {version}
class Thing:
    def version(self): return VERSION
def tell(): return VERSION
"""


def test_two_versions_of_a_module_in_one_slot_do_not_see_each_other(slots: Slots, home: Path) -> None:
    seen = [converse(slots, TWO, home / f"v{one}", modules={"part.py": PART.format(version=one)}) for one in (1, 2)]
    for one in seen:
        assert one["use"].good, one
    again = slots.run(seen[0]["use"].payload, seen[0]["use"].call)
    assert again.cause is Cause.OK
    assert client_sees(again.result, "value", home) == "(1, 1, 1, 1, True)"


def test_a_module_of_the_same_name_at_the_worker_is_neither_used_nor_imported(home: Path) -> None:
    theirs = home / "theirs"
    theirs.mkdir()
    (theirs / "part.py").write_text(f"open({str(theirs / 'imported')!r}, 'w')\nVERSION = 'the worker`s'\n")
    source = TWO.replace("return part", "return thing, part").replace("v == ", "v[1:] == ")
    with Slots(1, path=(str(theirs),)) as slots:
        seen = converse(slots, source, home / "v3", modules={"part.py": PART.format(version=3)})
    assert seen["use"].good, seen
    assert not (theirs / "imported").exists()


INSTALLED = """
import sys
sys.path.insert(0, "lib/site-packages")
ship = [] if "ship" not in {flags!r} else ["vendored"]
import vendored.deep
from vendored import base
def use(): return vendored.deep.tell(), base(1)
cases = {{"use": (use, (), {{}}, lambda v: v == ("deep", 2))}}
"""
VENDORED = {
    "lib/site-packages/vendored/__init__.py": "def base(x): return x + 1\n",
    "lib/site-packages/vendored/deep.py": "def tell(): return 'deep'\n",
}


def test_installed_packages_are_imported_by_the_worker(slots: Slots, home: Path) -> None:
    seen = converse(slots, INSTALLED.format(flags=""), home / "installed", modules=VENDORED)
    assert seen["use"].cause is Cause.NOT_LOADABLE
    assert "needs the module 'vendored'" in seen["use"].shown
    assert "install it there" in seen["use"].shown


def test_installed_packages_that_are_named_travel(slots: Slots, home: Path) -> None:
    seen = converse(slots, INSTALLED.format(flags="ship"), home / "shipped", modules=VENDORED)
    assert seen["use"].good, seen


def test_modules_run_with_dash_m_travel_with_their_package(slots: Slots, home: Path) -> None:
    source = "from . import near\ndef use():\n    from .near import tell\n    return tell(), near.tell()\n"
    source += 'cases = {"use": (use, (), {}, lambda v: v == ("near", "near"))}\n'
    modules = {"pack/__init__.py": "", "pack/near.py": "def tell(): return 'near'\n"}
    seen = converse(slots, source, home / "dash_m", modules=modules, package="pack")
    assert seen["use"].good, seen
