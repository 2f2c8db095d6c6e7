"""What functions of clients may be, return and raise, run in real slots. Payloads are made by a client's own script."""

from __future__ import annotations

import itertools
import pickle
import pickletools
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dill
import pytest

from everfaas_core.model.states import Cause
from everfaas_core.wire.messages import Outcome
from everfaas_core.worker.code import blank_main
from everfaas_core.worker.results import PICKLE_PROTOCOL, dump
from tests.unit.worker_kit import Slots, call, client_payloads, client_sees

CLIENT = '''
import math, threading

FACTOR = 3

def double(x): return x * 2
def fact(n): return 1 if n < 2 else n * fact(n - 1)
def is_even(n): return True if n == 0 else is_odd(n - 1)
def is_odd(n): return False if n == 0 else is_even(n - 1)
def make_adder(n):
    def add(x): return x + n
    return add
def outer(n):
    def inner(k): return 0 if k == 0 else 1 + inner(k - 1)
    return inner(n)
def keywords(*, a, b=2): return a * 10 + b
def defaults(a, b=5, *rest, **more): return (a, b, rest, more)
def uses_global(x): return x * FACTOR
def uses_module(x): return math.sqrt(x)
def imports_inside(x):
    import collections
    return collections.Counter(x)
def returns_function():
    return lambda x: double(x)
def apply(f, x): return f(x)
def countdown(n): return "go" if n == 0 else countdown(n - 1)
def visible(): return sorted(name for name in globals() if not name.startswith("__"))
def nothing(): pass

class AppError(Exception):
    """An exception of the client, by value."""
    def __init__(self, code, **more):
        super().__init__(code)
        self.code = code
    def twice(self): return AppError(self.code * 2)
class Awkward(Exception):
    def __init__(self, a, b): super().__init__(f"{a}/{b}")
class Point:
    def __init__(self, x, y): self.x, self.y = x, y
    def __add__(self, other): return Point(self.x + other.x, self.y + other.y)
class Adder:
    def __init__(self, n): self.n = n
    def __call__(self, x): return x + self.n

def raises_value(): raise ValueError("bad value")
def raises_own(): raise AppError(7)
def raises_made_by_method(): raise AppError(7).twice()
def raises_awkward(): raise Awkward(1, 2)
def raises_with_lock(): raise ValueError(x for x in [1])
def raises_chained():
    try: {}["k"]
    except KeyError as error: raise RuntimeError("outer") from error
def raises_group(): raise ExceptionGroup("several", [ValueError(1), TypeError(2)])
def recurse_forever(): return recurse_forever()
def exits(): raise SystemExit(3)
def interrupts(): raise KeyboardInterrupt
def generates(): return (x for x in [1])
def make_point(x): return Point(x, 1)
def sum_points(points):
    total = points[0]
    for point in points[1:]: total = total + point
    return total
class Sulky(Exception):
    def __str__(self): raise RuntimeError("no words")
def raises_sulky(): raise Sulky
def out_of_memory(): return bytearray(1 << 62)
def many_locals(): raise ValueError("x" * 200_000)
async def coroutine(): return 1

payloads = dict(double=double, fact=fact, is_even=is_even, adder=make_adder(10), outer=outer, keywords=keywords,
    defaults=defaults, uses_global=uses_global, uses_module=uses_module, imports_inside=imports_inside,
    returns_function=returns_function, apply=apply, nothing=nothing, visible=visible, lam=lambda x: x + 1,
    raises_value=raises_value, raises_own=raises_own, raises_made_by_method=raises_made_by_method,
    raises_awkward=raises_awkward, raises_with_lock=raises_with_lock, raises_chained=raises_chained,
    raises_group=raises_group, recurse_forever=recurse_forever, exits=exits, interrupts=interrupts,
    generates=generates, make_point=make_point, sum_points=sum_points, raises_sulky=raises_sulky,
    out_of_memory=out_of_memory, many_locals=many_locals, coroutine=coroutine, callable_object=Adder(5),
    call_points=(([Point(1, 2), Point(3, 4)],), {}), call_countdown=((countdown, 20), {}), not_callable=42,
    by_reference=math.sqrt)
import dill
for name in ("fact", "uses_module", "uses_global", "raises_own", "raises_made_by_method", "raises_awkward",
             "raises_sulky", "make_point"):
    payloads["recurse_" + name] = dill.dumps(globals()[name], recurse=True)
'''


@pytest.fixture(scope="module")
def code(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    return client_payloads(CLIENT, tmp_path_factory.mktemp("client"))


@pytest.fixture(scope="module")
def slots() -> Iterator[Slots]:
    with Slots(1) as started:
        yield started


def why(outcome: Outcome) -> str:
    """Return the message of the WorkerFailure that an outcome holds."""
    failure = dill.loads(outcome.result)
    assert type(failure).__name__ == "WorkerFailure"
    text = str(failure)
    assert text.startswith("WorkerFailure")
    return text


def names_nothing_of_ours(result: bytes) -> bool:
    """Tell whether a pickle refers to globals of the standard library (and dill) only."""
    strings = [argument for _, argument, _ in pickletools.genops(result) if isinstance(argument, str)]
    return not any(text.startswith("everfaas_") for text in strings)


# ── functions ────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("name", "payload", "value"),
    [
        ("double", call(21), 42),
        ("lam", call(1), 2),
        ("fact", call(20), 2432902008176640000),
        ("adder", call(5), 15),
        ("outer", call(50), 50),
        ("keywords", call(a=1), 12),
        ("keywords", call(b=3, a=1), 13),
        ("defaults", call(1), (1, 5, (), {})),
        ("defaults", call(1, 2, 3, z=4), (1, 2, (3,), {"z": 4})),
        ("nothing", call(), None),
        ("imports_inside", call("aab"), {"a": 2, "b": 1}),
        ("callable_object", call(1), 6),
        ("by_reference", call(81), 9.0),
        ("double", pickle.dumps([[21], {}]), 42),
        ("double", call(list(range(100_000))), list(range(100_000)) * 2),
    ],
    ids=itertools.count(),
)
def test_functions_run(slots: Slots, code: dict[str, bytes], name: str, payload: bytes, value: Any) -> None:
    assert slots.value(code[name], payload) == value


def test_numpy_arrays_travel(slots: Slots, code: dict[str, bytes]) -> None:
    numpy = pytest.importorskip("numpy")
    array = numpy.arange(1000.0)
    assert numpy.array_equal(slots.value(code["double"], call(array)), array * 2)


def test_functions_of_different_payloads_do_not_see_each_other(slots: Slots, code: dict[str, bytes]) -> None:
    slots.value(code["fact"], call(3))
    assert slots.value(code["visible"]) == ["visible"]


def test_a_function_passed_as_argument_finds_itself(slots: Slots, code: dict[str, bytes]) -> None:
    assert slots.value(code["apply"], code["call_countdown"]) == "go"


def test_objects_of_the_clients_classes_travel(slots: Slots, code: dict[str, bytes], tmp_path: Path) -> None:
    outcome = slots.run(code["sum_points"], code["call_points"])
    assert client_sees(outcome.result, "(value.x, value.y)", tmp_path) == "(4, 6)"
    point = "class Point: mine = True\n"
    assert client_sees(outcome.result, "value.mine, value.x", tmp_path, point) == "(True, 4)"


def test_a_returned_function_finds_the_clients_own_names(slots: Slots, code: dict[str, bytes], tmp_path: Path) -> None:
    outcome = slots.run(code["returns_function"])
    assert client_sees(outcome.result, "value(21)", tmp_path, "def double(x): return x * 2\n") == "42"


@pytest.mark.parametrize(("name", "argument", "lost"), [("is_even", 2, "is_odd"), ("uses_global", 2, "FACTOR")])
def test_a_global_that_stayed_behind_is_explained(
    slots: Slots, code: dict[str, bytes], name: str, argument: int, lost: str
) -> None:
    outcome = slots.run(code[name], call(argument))
    assert outcome.cause is Cause.RAISED
    error = dill.loads(outcome.result)
    assert isinstance(error, NameError)
    assert any(lost in note and "recurse=True" in note for note in error.__notes__)


def test_recurse_takes_the_globals_along(slots: Slots, code: dict[str, bytes]) -> None:
    assert slots.value(code["recurse_fact"], call(5)) == 120
    assert slots.value(code["recurse_uses_module"], call(4)) == 2.0
    assert slots.value(code["recurse_uses_global"], call(2)) == 6


def test_a_module_global_of_the_client_is_explained_too(slots: Slots, code: dict[str, bytes]) -> None:
    error = dill.loads(slots.run(code["uses_module"], call(4)).result)
    assert any("import or define it inside the function" in note for note in error.__notes__)


def test_a_function_of_a_module_on_the_path_runs(tmp_path: Path) -> None:
    (tmp_path / "shipped_by_reference.py").write_text("def triple(x): return 3 * x\n")
    payload = b"\x80\x04\x8c\x14shipped_by_reference\x8c\x06triple\x93."
    with Slots(1, path=(str(tmp_path),)) as slots:
        assert slots.value(payload, call(14)) == 42


def test_a_module_that_appears_later_is_found(tmp_path: Path) -> None:
    payload = b"\x80\x04\x8c\x0dcomes_later_x\x8c\x01f\x93."
    with Slots(1, path=(str(tmp_path),)) as slots:
        assert slots.run(payload, call(1)).cause is Cause.NOT_LOADABLE
        (tmp_path / "comes_later_x.py").write_text("def f(x): return x\n")
        assert slots.value(payload, call(1)) == 1


# ── what does not load ───────────────────────────────────────────────────────────────────────────────────────────────


def test_a_missing_module_is_named_with_the_remedy(slots: Slots) -> None:
    outcome = slots.run(b"\x80\x04\x8c\x0eno_such_module\x8c\x01f\x93.")
    assert outcome.cause is Cause.NOT_LOADABLE
    text = why(outcome)
    assert "'no_such_module'" in text
    assert "--path DIR" in text
    assert "EVERFAAS_PATH" in text
    assert outcome.error is not None
    assert "no_such_module" in outcome.error


def test_a_missing_name_in_a_module_is_explained(slots: Slots) -> None:
    text = why(slots.run(b"\x80\x04\x8c\x04math\x8c\x06nosuch\x93."))
    assert "'nosuch'" in text
    assert "'math'" in text


def test_a_script_function_by_name_only_is_explained(slots: Slots) -> None:
    text = why(slots.run(b"\x80\x04\x8c\x08__main__\x8c\x01f\x93."))
    assert "dill.dumps" in text


def test_what_is_not_callable_is_refused(slots: Slots, code: dict[str, bytes]) -> None:
    outcome = slots.run(code["not_callable"])
    assert outcome.cause is Cause.NOT_LOADABLE
    assert "an int, which can't be called" in why(outcome)


@pytest.mark.parametrize("payload", [b"", b"garbage", b"\x80\x04", dill.dumps(len)[:-3]], ids=itertools.count())
def test_broken_code_is_explained(slots: Slots, payload: bytes) -> None:
    outcome = slots.run(payload)
    assert outcome.cause is Cause.NOT_LOADABLE
    assert "did not load" in why(outcome)


def test_code_that_exits_while_it_loads_is_only_not_loadable(slots: Slots) -> None:
    outcome = slots.run(b"csys\nexit\n(I3\ntR.")
    assert outcome.cause is Cause.NOT_LOADABLE
    assert "SystemExit" in why(outcome)


@pytest.mark.parametrize(
    ("payload", "hint"),
    [
        (dill.dumps((1, {})), "the positional arguments are an int and not a tuple"),
        (dill.dumps(((1,), [])), "the keyword arguments are a list of 0 and not a dict"),
        (dill.dumps((1, 2, 3)), "this one is a tuple of 3"),
        (dill.dumps(7), "this one is an int"),
        (b"rubbish", "the arguments did not load"),
        (b"cno_such_module\nthing\n.", "the arguments need the module 'no_such_module', which"),
    ],
    ids=itertools.count(),
)
def test_arguments_of_the_wrong_shape_are_explained(
    slots: Slots, code: dict[str, bytes], payload: bytes, hint: str
) -> None:
    outcome = slots.run(code["double"], payload)
    assert outcome.cause is Cause.NOT_LOADABLE
    assert hint in why(outcome)


def test_code_of_another_python_is_never_loaded(slots: Slots, tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    touch = b"cbuiltins\nopen\n(V" + str(canary).encode() + b"\nVw\ntR."
    outcome = slots.run(touch, python="3.9")
    assert outcome.cause is Cause.NOT_LOADABLE
    text = why(outcome)
    assert "Python 3.9" in text
    assert f"{sys.version_info.major}.{sys.version_info.minor}" in text
    assert not canary.exists()


def test_code_of_this_python_is_loaded(slots: Slots) -> None:
    def seven() -> int:
        return 7

    here = f"{sys.version_info.major}.{sys.version_info.minor}"
    assert dill.loads(slots.run(dill.dumps(seven), python=here).result) == 7


# ── what functions raise ─────────────────────────────────────────────────────────────────────────────────────────────


def test_an_exception_comes_with_its_remote_traceback(slots: Slots, code: dict[str, bytes]) -> None:
    outcome = slots.run(code["raises_value"])
    assert outcome.cause is Cause.RAISED
    error = dill.loads(outcome.result)
    assert type(error) is ValueError
    assert error.args == ("bad value",)
    (note,) = error.__notes__
    assert note.startswith("Remote traceback:\n")
    assert "in raises_value" in note
    assert "everfaas_core" not in note
    assert outcome.error is not None
    assert "ValueError: bad value" in outcome.error
    assert names_nothing_of_ours(outcome.result)


def test_missing_arguments_and_strange_keywords_raise_what_python_raises(slots: Slots, code: dict[str, bytes]) -> None:
    with pytest.raises(TypeError, match="missing 1 required positional argument"):
        slots.value(code["double"])
    with pytest.raises(TypeError, match="keywords must be strings"):
        slots.value(code["double"], dill.dumps(((1,), {2: 3})))


def test_the_clients_own_exception_is_caught_by_its_own_class(
    slots: Slots, code: dict[str, bytes], tmp_path: Path
) -> None:
    source = "class AppError(Exception):\n    mine = True\n    def __init__(self, code): self.code = code\n"
    for name, expected in (("recurse_raises_own", "7"), ("recurse_raises_made_by_method", "14")):
        outcome = slots.run(code[name])
        assert outcome.cause is Cause.RAISED
        assert client_sees(outcome.result, "value.code", tmp_path) == expected
        seen = client_sees(outcome.result, "isinstance(value, AppError), value.code", tmp_path, source)
        assert seen == f"(True, {expected})"


@pytest.mark.parametrize(
    ("name", "kind", "problem"),
    [
        ("recurse_raises_awkward", "Awkward: 1/2", "does not load again"),
        ("raises_with_lock", "ValueError", "can't be serialized"),
    ],
)
def test_an_exception_that_cannot_travel_becomes_a_worker_failure(
    slots: Slots, code: dict[str, bytes], tmp_path: Path, name: str, kind: str, problem: str
) -> None:
    outcome = slots.run(code[name])
    assert outcome.cause is Cause.RAISED
    text = why(outcome)
    assert kind in text
    assert problem in text
    assert f"in {name.removeprefix('recurse_')}" in text
    assert client_sees(outcome.result, "str(value)[:13], value.code", tmp_path) == "('WorkerFailure', 'raised')"


def test_causes_travel_as_objects(slots: Slots, code: dict[str, bytes], tmp_path: Path) -> None:
    outcome = slots.run(code["raises_chained"])
    error = dill.loads(outcome.result)
    assert isinstance(error, RuntimeError)
    assert isinstance(error.__cause__, KeyError)
    assert "KeyError" in (outcome.error or "")
    assert "__cause__" not in vars(error)
    assert client_sees(outcome.result, "repr(value.__cause__)", tmp_path) == "KeyError('k')"


def test_groups_travel(slots: Slots, code: dict[str, bytes]) -> None:
    error = dill.loads(slots.run(code["raises_group"]).result)
    assert isinstance(error, ExceptionGroup)
    assert [type(one) for one in error.exceptions] == [ValueError, TypeError]


def test_infinite_recursion_is_a_recursion_error(slots: Slots, code: dict[str, bytes]) -> None:
    outcome = slots.run(code["recurse_forever"])
    assert isinstance(dill.loads(outcome.result), RecursionError)
    assert len(outcome.error or "") < 10_000


@pytest.mark.parametrize(("name", "kind"), [("exits", SystemExit), ("interrupts", KeyboardInterrupt)])
def test_exits_are_outcomes_and_the_slot_lives_on(
    slots: Slots, code: dict[str, bytes], name: str, kind: type[BaseException]
) -> None:
    pids = slots.host.pids()
    outcome = slots.run(code[name])
    assert outcome.cause is Cause.RAISED
    assert type(dill.loads(outcome.result)) is kind
    assert slots.host.pids() == pids


def test_an_exception_that_cannot_describe_itself_is_still_delivered(slots: Slots, code: dict[str, bytes]) -> None:
    outcome = slots.run(code["recurse_raises_sulky"])
    assert outcome.cause is Cause.RAISED
    assert type(dill.loads(outcome.result)).__name__ == "Sulky"


def test_memory_errors_are_raised(slots: Slots, code: dict[str, bytes]) -> None:
    with pytest.raises(MemoryError):
        slots.value(code["out_of_memory"])


def test_tracebacks_are_limited(slots: Slots, code: dict[str, bytes]) -> None:
    outcome = slots.run(code["many_locals"])
    assert len(outcome.error or "") < 70_000
    assert "left out" in (outcome.error or "")
    assert len(str(dill.loads(outcome.result))) == 200_000


def test_an_exception_object_that_is_raised_twice_gets_one_note_each_time(slots: Slots) -> None:
    def again(memo: list[Exception] = []) -> None:  # noqa: B006 - kept in the slot on purpose
        memo[:] = memo or [ValueError("the same")]
        raise memo[0]

    payload = dill.dumps(again, recurse=True)
    for _ in range(3):
        error = dill.loads(slots.run(payload).result)
        assert len(error.__notes__) == 1


# ── what functions return ────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("name", "kind"), [("generates", "generator"), ("coroutine", "coroutine")])
def test_what_cannot_be_serialized_is_named(slots: Slots, code: dict[str, bytes], name: str, kind: str) -> None:
    outcome = slots.run(code[name])
    assert outcome.cause is Cause.NOT_SERIALIZABLE
    text = why(outcome)
    assert f"returned {kind}" in text
    assert names_nothing_of_ours(outcome.result)


def test_too_large_a_result_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from everfaas_core.worker import results
    from everfaas_core.worker.code import blank_main

    monkeypatch.setattr(results, "RESULT_BYTES_MAX", 1000)
    with pytest.raises(results.NotSerializable, match="results may have 1000"):
        results.dump(b"x" * 2000, blank_main())


def test_results_load_with_nothing_but_dill(slots: Slots, code: dict[str, bytes], tmp_path: Path) -> None:
    def local_class() -> object:
        class Local:
            value = 42

        return Local()

    outcome = slots.run(dill.dumps(local_class, recurse=True))
    assert client_sees(outcome.result, "value.value", tmp_path) == "42"
    for name in ("raises_value", "exits", "generates", "not_callable", "recurse_make_point", "raises_group"):
        result = slots.run(code[name], call(1) if name == "recurse_make_point" else call()).result
        assert client_sees(result, "type(value).__name__", tmp_path)
        assert names_nothing_of_ours(result)


@pytest.mark.parametrize("value", [b"a __main__", "of __main__", 7, None, bytearray(b"__main__")])
def test_plain_data_goes_as_pickle_makes_it_whatever_it_contains(value: object) -> None:
    assert dump(value, blank_main()) == pickle.dumps(value, protocol=PICKLE_PROTOCOL)
