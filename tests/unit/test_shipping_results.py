"""Results at the client: failures have classes, the client's own classes come back, foreign code is not loaded."""

from __future__ import annotations

import enum
import pickle
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dill
import pytest

from everfaas_core.model import failure
from everfaas_core.model.failure import FAILURES, WorkerFailure, failure_payload
from everfaas_core.model.states import ENDS_AS, Cause
from everfaas_core.shipping import ResultUnreadable, Shipper, load_result
from everfaas_core.shipping.answers import Mark, mark, read_mark
from everfaas_core.shipping.envelope import FUNCTION_HEAD, seal, unseal
from everfaas_core.wire.messages import FunctionItem
from everfaas_core.worker.code import LoadedFunction, NotLoadable, load_call, load_function
from everfaas_core.worker.results import dump, dump_raised
from tests.unit.worker_kit import client_sees

HERE = "{}.{}".format(*sys.version_info)


class Kind(enum.Enum):
    A = 1


class Plain:
    def __init__(self, x: object = 1) -> None:
        self.x = x


class Slotted:
    __slots__ = ("x",)

    def __init__(self, x: object) -> None:
        self.x = x


class Meta(type):
    pass


class Strange(metaclass=Meta):
    x = 1


class Odd(ValueError):
    def __init__(self, x: int) -> None:
        super().__init__(x)
        self.x = x


def through(function: Any, *args: Any) -> bytes:
    """Pack, load, call and dump as a slot does; return the result."""
    shipper = Shipper()
    packed = shipper.pack_function(function)
    loaded = loads(packed.payload)
    args, kwargs = load_call(shipper.pack_call(args, {}, packed), loaded)  # type: ignore[assignment]
    try:
        return dump(loaded.call(*args, **kwargs), loaded.main)
    except NotLoadable:
        raise
    except Exception as error:
        return dump_raised(error, loaded.main)[0]


def loads(payload: bytes) -> LoadedFunction:
    return load_function(FunctionItem("id", "name", payload, HERE))  # type: ignore[arg-type]


def make(kind: type, *args: Any) -> Any:
    return kind(*args)


# ── failures ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("cause", [cause for cause in ENDS_AS if cause is not Cause.OK])
def test_each_cause_has_a_class(cause: Cause) -> None:
    value = load_result(failure_payload(cause, "why", traceback="remote"))
    assert type(value) is FAILURES[cause]
    assert isinstance(value, WorkerFailure)
    assert isinstance(value, RuntimeError)
    assert str(value) == "WorkerFailure: why"
    assert value.code == cause
    assert value.__notes__ == ["remote"]


def test_a_deadline_is_a_timeout() -> None:
    assert isinstance(load_result(failure_payload(Cause.DEADLINE, "exceeded deadline")), TimeoutError)


def test_a_cause_of_a_newer_server_is_a_worker_failure() -> None:
    assert type(load_result(failure_payload("of_tomorrow", "why"))) is WorkerFailure


def test_a_users_class_of_that_name_is_left_alone() -> None:
    class WorkerFailure(RuntimeError):
        pass

    theirs = WorkerFailure("x")
    assert failure.as_failure(theirs) is theirs


def test_failures_can_be_pickled_again() -> None:
    value = load_result(failure_payload(Cause.SLOT_CRASHED, "why", traceback="remote"))
    again = pickle.loads(pickle.dumps(value))
    assert (type(again), str(again), again.__notes__) == (type(value), str(value), ["remote"])


# ── values ───────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("kind", "args"),
    [(Plain, (2,)), (Slotted, (2,)), (Strange, ()), (Odd, (2,)), (Kind, (1,))],
    ids=lambda one: str(one),
)
def test_own_classes_come_back_as_themselves(kind: type, args: tuple[Any, ...], tmp_path: Path) -> None:
    result = through(make, kind, *args)
    value = load_result(result)
    assert type(value) is kind
    assert client_sees(result, "type(value).__name__", tmp_path) == kind.__name__


def test_their_data_is_there_for_clients_with_dill_only(tmp_path: Path) -> None:
    result = through(make, Slotted, [Plain(Plain(5)), Kind.A, Odd(3)])
    assert client_sees(result, "value.x[0].x.x, value.x[1].value, value.x[2].args", tmp_path) == "(5, 1, (3,))"


def test_each_class_is_written_once(tmp_path: Path) -> None:
    def many(kind: type) -> list[Any]:
        return [kind(n) for n in range(100)]

    assert len(through(many, Plain)) < len(through(make, Plain)) + 100 * 20


def test_a_client_that_was_started_again_finds_its_classes_by_name() -> None:
    result = through(make, Plain, 5)
    said = read_mark_of_class(result)
    forgotten = result.replace(said.track.encode(), b"0" * 32)
    assert type(load_result(forgotten)) is Plain


def read_mark_of_class(result: bytes) -> Mark:
    said = read_mark(result[result.index(b"\x80\x05X", 2) :])
    assert said is not None
    return said


def test_classes_of_the_client_may_be_gone() -> None:
    result = through(make, Plain, 5)
    said = read_mark_of_class(result)
    gone = result.replace(said.track.encode(), b"0" * 32).replace(b"Plain", b"Plein")
    value = load_result(gone)
    assert value.x == 5
    assert type(value) is not Plain


def test_functions_come_back_as_copies(tmp_path: Path) -> None:
    def returns(n: int) -> Any:
        def inner(x: int) -> int:
            return x + n

        return inner

    result = through(returns, 3)
    assert load_result(result)(4) == 7
    assert client_sees(result, "value(4)", tmp_path) == "7"


def test_plain_results_are_plain_pickles() -> None:
    for value in (1, "a", [1, {"b": (2.0, None)}], b"\x93"):
        result = through(lambda: value)  # noqa: B023 - called at once
        assert pickle.loads(result) == load_result(result) == value


# ── what is not loaded ───────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def foreign_code() -> bytes:
    return mark("3.99") + dill.dumps(eval("lambda: 1", {}))


def test_code_of_another_python_is_refused(foreign_code: bytes) -> None:
    with pytest.raises(ResultUnreadable, match=f"code of Python 3.99, and this is {HERE}: loading it could crash"):
        load_result(foreign_code)


def test_code_of_nobody_knows_which_python_is_refused() -> None:
    with pytest.raises(ResultUnreadable, match="code of an unknown version of Python"):
        load_result(dill.dumps(eval("lambda: 1", {})))


def test_a_mark_does_not_disturb_dill(foreign_code: bytes, tmp_path: Path) -> None:
    assert client_sees(mark(HERE) + dill.dumps(eval("lambda: 1", {})), "value()", tmp_path) == "1"
    assert read_mark(foreign_code) == Mark("3.99")
    assert read_mark(pickle.dumps("text")) is None


def test_a_missing_module_is_named() -> None:
    with pytest.raises(ResultUnreadable, match="needs the module 'no_such_module', which can't be imported here"):
        load_result(b"\x80\x04\x8c\x0eno_such_module\x8c\x01f\x93.")


def test_garbage_is_an_error_with_a_reason() -> None:
    for garbage in (b"", b"\x80\x05", b"nonsense", pickle.dumps(Plain)[:-3]):
        with pytest.raises(ResultUnreadable, match="can't be loaded here"):
            load_result(garbage)


def test_foreign_bytecode_is_not_even_unpickled_in_a_slot() -> None:
    packed = unseal(Shipper().pack_function(lambda: 1).payload)
    assert packed is not None
    broken = packed.packed.replace(b"CodeType", b"CodeTypo")  # of the bytecode inside: whoever unpickles it, fails
    assert broken != packed.packed
    payload = seal(FUNCTION_HEAD, packed._replace(packed=broken, python="3.99"))
    assert loads(payload).call() == 1
    with pytest.raises(NotLoadable, match="CodeTypo"):
        loads(seal(FUNCTION_HEAD, packed._replace(packed=broken)))


@pytest.fixture
def newer_module() -> Iterator[types.ModuleType]:
    made = types.ModuleType("changes_a_lot")
    sys.modules["changes_a_lot"] = made
    yield made
    del sys.modules["changes_a_lot"]


def test_a_class_that_was_defined_anew_does_not_take_over_old_results(newer_module: types.ModuleType) -> None:
    source = "class Cell:\n    def __init__(self, x): self.x = x\n"
    exec(source, newer_module.__dict__)
    old = newer_module.Cell
    result = through(make, old, 1)
    exec(source, newer_module.__dict__)
    assert type(load_result(result)) is old
    assert type(load_result(through(make, newer_module.Cell, 1))) is newer_module.Cell
