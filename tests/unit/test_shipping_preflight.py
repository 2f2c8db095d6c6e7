"""Before anything is sent: what does not travel is named, with a remedy; and what has changed is packed anew."""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import pickle
import shutil
import sqlite3
import sys
import textwrap
import threading
import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from everfaas_core.api.payloads import call_payload, function_payload
from everfaas_core.model.errors import EverfaasError
from everfaas_core.shipping import NotShippable, PackedFunction, Shipper
from everfaas_core.shipping.envelope import Envelope, unseal
from everfaas_core.shipping.opening import open_packed

LOCK = threading.Lock()
NUMBER = 1
NUMBERS = [1]


def holds_a_lock() -> None:
    with LOCK:
        pass


def calls_one_that_holds_a_lock() -> None:
    holds_a_lock()


class Guarded:
    def __init__(self) -> None:
        self.guard = threading.Lock()

    def method(self) -> None: ...


class Hopeless:
    connection = sqlite3.connect(":memory:")


def uses_a_hopeless_class() -> object:
    return Hopeless()


def closes_over_a_file(path: Path) -> Callable[[], str]:
    file = path.open("w")
    return lambda: file.name


def has_a_default(event: object = threading.Event()) -> object:
    return event


def uses_numbers() -> tuple[int, list[int]]:
    return NUMBER, NUMBERS


def uses_a_number() -> int:
    return NUMBER + other()


def other() -> int:
    return 1


@dataclass
class Config:
    size: int = 1


def uses_a_config(config: Config) -> int:
    return config.size


def line_of(function: Callable[..., Any]) -> str:
    return f"'{function.__name__}' (test_shipping_preflight.py line {function.__code__.co_firstlineno})"


def refusal(function: Callable[..., Any]) -> str:
    with pytest.raises(NotShippable) as caught:
        Shipper().pack_function(function)
    return str(caught.value)


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (
            holds_a_lock,
            f"global 'LOCK' of function {line_of(holds_a_lock)} is a _thread.lock",
        ),
        (
            calls_one_that_holds_a_lock,
            f"global 'LOCK' of function {line_of(holds_a_lock)} (reached through global 'holds_a_lock' of function "
            f"{line_of(calls_one_that_holds_a_lock)}) is a",
        ),
        (Guarded().method, "attribute 'guard' of a "),
        (
            uses_a_hopeless_class,
            "attribute 'connection' of class 'Hopeless' (reached through global 'Hopeless' of function",
        ),
        (has_a_default, "default 0 of function 'has_a_default'"),
        (functools.partial(other, threading.Lock()), "is a _thread.lock"),
    ],
)
def test_the_culprit_is_named_with_the_way_to_it(function: Callable[..., Any], said: str) -> None:
    assert said in refusal(function)


@pytest.mark.parametrize(
    ("value", "remedy"),
    [
        (threading.Lock(), "make it inside the function"),
        (sqlite3.connect(":memory:"), "connect inside the function"),
        ((x for x in [1]), "pass a list, or generate inside the function"),
        (sys._getframe(), "pass plain data from which it can be made there"),
    ],
)
def test_the_remedy_is_for_the_kind_of_thing(value: object, remedy: str) -> None:
    with pytest.raises(NotShippable, match=r"closure variable 'value' of function") as caught:
        Shipper().pack_function(lambda: value)
    assert remedy in (caught.value.hint or "")
    assert isinstance(caught.value, EverfaasError)
    assert caught.value.code == "not_shippable"


def test_an_open_file_is_named(tmp_path: Path) -> None:
    said = refusal(closes_over_a_file(tmp_path / "file"))
    assert "closure variable 'file' of function '<lambda>'" in said
    assert "open it inside the function, or pass its contents" in said


@pytest.mark.parametrize(
    ("args", "kwargs", "said"),
    [
        ((1, threading.Lock()), {}, "argument 1 is a _thread.lock"),
        ((), {"guard": threading.Lock()}, "argument 'guard' is a _thread.lock"),
        (([1, {"a": threading.Lock()}],), {}, "item 'a' of item 1 of argument 0 is a _thread.lock"),
        ((holds_a_lock,), {}, f"global 'LOCK' of function {line_of(holds_a_lock)}"),
        (
            (Guarded(),),
            {},
            "attribute 'guard' of a tests.unit.test_shipping_preflight.Guarded of argument 0 is a _thread",
        ),
    ],
)
def test_arguments_are_named_too(args: tuple[Any, ...], kwargs: dict[str, Any], said: str) -> None:
    with pytest.raises(NotShippable) as caught:
        Shipper().pack_call(args, kwargs)
    assert said in str(caught.value)


def test_what_is_no_function_is_refused() -> None:
    with pytest.raises(NotShippable, match="42 can't be called"):
        Shipper().pack_function(42)  # type: ignore[arg-type]


def test_ship_has_to_name_what_there_is() -> None:
    with pytest.raises(NotShippable, match="ship names 'no_such_module', and there is no such module"):
        Shipper(ship=["no_such_module"])


def test_a_function_that_carries_data_is_a_warning() -> None:
    data = bytes(2 * 1024 * 1024)
    (warning,) = Shipper().pack_function(lambda: data).warnings
    assert "carries 2.0 MiB with it" in warning


def test_machine_code_of_the_users_own_is_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec("xxlimited") or importlib.util.find_spec("_testbuffer")
    if found is None or found.origin is None or found.name in sys.modules:
        pytest.skip("this Python has no module of machine code to try it with")
    shutil.copy(found.origin, tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    module = importlib.import_module(found.name)
    monkeypatch.delitem(sys.modules, found.name)
    monkeypatch.setitem(sys.modules, found.name, module)
    (warning,) = Shipper().pack_function(lambda: module.anything).warnings
    assert warning == f"{found.name!r} is machine code, which does not travel: workers need it installed"


# ── what is packed ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_api_takes_it_and_loads_nothing() -> None:
    shipper = Shipper()
    packed = shipper.pack_function(uses_a_config)
    call = shipper.pack_call((Config(),), {})
    assert function_payload(packed.payload) == packed.payload
    assert call_payload(call) == call
    assert function_payload(shipper.pack_function(pow).payload)


def test_the_envelope_says_what_packed_it() -> None:
    packed = Shipper().pack_function(other)
    envelope = unseal(packed.payload)
    assert envelope is not None
    assert (envelope.name, envelope.python, packed.python) == (
        "other",
        packed.python,
        "{}.{}".format(*sys.version_info),
    )
    assert envelope.packer.startswith("cloudpickle 3.")
    assert unseal(pickle.dumps(1)) is None


def test_any_unpickler_opens_it() -> None:
    shipper = Shipper()
    assert pickle.loads(shipper.pack_function(other).payload)() == 1
    ((function,), _) = pickle.loads(shipper.pack_call((other,), {}))
    assert function() == 1


def test_what_workers_have_goes_by_name() -> None:
    shipper = Shipper()
    for function in (pow, textwrap.dedent, Shipper, pytest.raises):
        packed = shipper.pack_function(function)
        assert packed.python is None
        assert len(packed.payload) < 100


def test_plain_arguments_are_plain_pickles() -> None:
    args, kwargs = (1, "a", [2.0, {"b": None}]), {"c": b"d"}
    assert pickle.loads(Shipper().pack_call(args, kwargs)) == (args, kwargs)
    assert b"everfaas" not in Shipper().pack_call(args, kwargs)


@pytest.mark.parametrize("value", [147, [147, 0x9493], "\u2513", {"a": (b"\x93\x94", 5)}, {1}, [[[]]], 2**70])
def test_plain_data_that_looks_like_a_name_arrives(value: object) -> None:
    payload = Shipper().pack_call(([value],), {})
    assert pickle.loads(payload) == (([value],), {})


def test_arrays_travel_as_pickle_does_it() -> None:
    numpy = pytest.importorskip("numpy")
    array = numpy.arange(10.0)
    (alone, (deep,)), kwargs = pickle.loads(Shipper().pack_call((array, [(array,)]), {"a": array}))
    assert [(one == array).all() for one in (alone, deep[0], kwargs["a"])] == [True, True, True]


def test_a_class_deep_in_plain_data_travels() -> None:
    ((deep,), _) = pickle.loads(Shipper().pack_call(([{"a": (1, Config(5))}],), {}))
    assert deep[0]["a"][1].size == 5
    assert type(deep[0]["a"][1]) is not Config


def test_a_call_does_not_bring_what_its_function_brings() -> None:
    shipper = Shipper()
    packed = shipper.pack_function(uses_a_config)
    alone, together = (shipper.pack_call((Config(7),), {}, one) for one in (None, packed))
    assert len(together) < 300 < len(alone)
    function, scene = open_packed(opened(packed.payload))
    for call in (alone, together):
        ((config,), _), _ = open_packed(opened(call), scene)
        assert function(config) == 7
        assert type(config) is function.__globals__["Config"]
    with pytest.raises(LookupError, match="should have come with the function"):
        open_packed(opened(together))


def test_a_function_that_was_opened_can_be_packed_again() -> None:
    shipper = Shipper()
    scale = 3

    def work(x: int) -> Any:
        import textwrap as t

        return (lambda y: Config(y * scale).size + other()), t.shorten("a b", x)

    function, _ = open_packed(opened(shipper.pack_function(work).payload))
    again, _ = open_packed(opened(shipper.pack_function(function).payload))
    assert again(10)[0](2) == 7
    inner, _ = open_packed(opened(shipper.pack_function(function(10)[0]).payload)._replace(python="3.99"))
    assert inner(3) == 10


def opened(payload: bytes) -> Envelope:
    envelope = unseal(payload)
    assert envelope is not None
    return envelope


def test_decorators_of_ours_are_left_behind() -> None:
    class Wrapper:
        """As @function makes them."""

        __module__ = "everfaas_core.client.decorator"
        __wrapped__ = staticmethod(other)
        lock = LOCK

        def __init__(self) -> None:
            self.lock = threading.Lock()

        def __call__(self) -> int:
            return other()

    assert pickle.loads(Shipper().pack_function(Wrapper()).payload)() == 1


# ── what has changed ─────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def module() -> Iterator[types.ModuleType]:
    """A module of the user's own."""
    made = types.ModuleType("of_the_user")
    made.__dict__.update(LIMIT=1, ITEMS=[1])
    exec(
        "class Rule:\n    factor = 2\n    def apply(self, x): return x * self.factor\n"
        "def helper(x): return x + LIMIT\n"
        "def work(x, y=1): return helper(x) + Rule().apply(y)\n"
        "def lists(): return ITEMS\n"
        "def late(): return appears()\n"
        "def make(n):\n    def inner(): return n\n    def change(m):\n        nonlocal n\n        n = m\n"
        "    return inner, change\n",
        made.__dict__,
    )
    sys.modules["of_the_user"] = made
    yield made
    del sys.modules["of_the_user"]


CHANGES: dict[str, Callable[[types.ModuleType], object]] = {
    "a global": lambda module: setattr(module, "LIMIT", 2),
    "a function": lambda module: setattr(module, "helper", lambda x: x),
    "a function's code": lambda module: setattr(module.helper, "__code__", (lambda x: x + 5).__code__),
    "a default": lambda module: setattr(module.work, "__defaults__", (9,)),
    "an attribute of a class": lambda module: setattr(module.Rule, "factor", 3),
    "a method": lambda module: setattr(module.Rule, "apply", lambda self, x: x),
    "a new attribute of a class": lambda module: setattr(module.Rule, "extra", 1),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_makes_another_payload(module: types.ModuleType, change: str) -> None:
    shipper = Shipper()
    before = shipper.pack_function(module.work)
    assert shipper.pack_function(module.work) is before
    CHANGES[change](module)
    after = shipper.pack_function(module.work)
    assert after.payload != before.payload
    assert pickle.loads(after.payload)(1) == module.work(1)
    assert shipper.pack_function(module.work) is after


def test_a_list_that_changes_is_noticed(module: types.ModuleType) -> None:
    shipper = Shipper()
    before = shipper.pack_function(module.lists)
    assert shipper.pack_function(module.lists) == before
    module.ITEMS.append(2)
    assert pickle.loads(shipper.pack_function(module.lists).payload)() == [1, 2]


def test_a_global_that_appears_is_noticed(module: types.ModuleType) -> None:
    shipper = Shipper()
    shipper.pack_function(module.late)
    module.appears = lambda: 5  # type: ignore[attr-defined]
    assert pickle.loads(shipper.pack_function(module.late).payload)() == 5


def test_a_variable_of_a_closure_that_changes_is_noticed(module: types.ModuleType) -> None:
    shipper = Shipper()
    inner, change = module.make(1)
    shipper.pack_function(inner)
    change(2)
    assert pickle.loads(shipper.pack_function(inner).payload)() == 2


def test_a_module_that_changes_is_noticed(module: types.ModuleType) -> None:
    shipper = Shipper()
    namespace: dict[str, Any] = {"of_the_user": module}
    exec("def work(): return of_the_user.LIMIT", namespace)
    shipper.pack_function(namespace["work"])
    module.LIMIT = 3  # type: ignore[attr-defined]
    assert pickle.loads(shipper.pack_function(namespace["work"]).payload)() == 3


def test_many_threads_pack_at_once() -> None:
    shipper = Shipper()
    packed: list[PackedFunction] = []
    functions = [eval(f"lambda: {n}") for n in range(50)]

    def pack() -> None:
        packed.extend(shipper.pack_function(one) for one in functions)

    threads = [threading.Thread(target=pack) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({one.payload for one in packed}) == len(functions)
    with contextlib.suppress(NotShippable):
        shipper.pack_function(holds_a_lock)
