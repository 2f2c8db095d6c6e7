"""The scan against the standard library: pickletools' own reader, and the pure Python unpickler."""

from __future__ import annotations

import collections
import contextlib
import datetime
import decimal
import functools
import io
import operator
import pickle
import pickletools
import random

import dill
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from everfaas_core.api.pickle_scan import LITERAL, OPAQUE, ScanError, scan

ATOMS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(-(2**9000), 2**9000)
    | st.floats()
    | st.text()
    | st.text(min_size=200, max_size=400)
    | st.binary(max_size=400)
    | st.binary(max_size=20).map(bytearray)
    | st.complex_numbers()
    | st.dates()
    | st.decimals()
)
HASHABLE = st.none() | st.booleans() | st.integers() | st.text() | st.binary(max_size=20)
THINGS = st.recursive(
    ATOMS | st.frozensets(HASHABLE) | st.sets(HASHABLE),
    lambda inner: (
        st.lists(inner)
        | st.lists(inner).map(tuple)
        | st.dictionaries(HASHABLE, inner)
        | st.lists(inner).map(collections.deque)
        | st.dictionaries(HASHABLE, inner).map(collections.OrderedDict)
    ),
    max_leaves=30,
)
PROTOCOLS = st.integers(0, pickle.HIGHEST_PROTOCOL)


class LiteralUnpickler(pickle._Unpickler):  # type: ignore[name-defined,misc]  # the pure one: its memo is a dict
    def find_class(self, module: str, name: str) -> object:
        raise pickle.UnpicklingError("no globals here")


class CallableList(list):  # type: ignore[type-arg]
    def __call__(self) -> None: ...


class CallableDict(dict):  # type: ignore[type-arg]
    def __call__(self) -> None: ...


class CallableObject:
    def __init__(self) -> None:
        self.state = {"a": 1}

    def __call__(self) -> None: ...


def genops_accepts(data: bytes) -> bool:
    try:
        *_, (_, _, last) = pickletools.genops(data)
    except (ValueError, IndexError, OverflowError):
        return False
    return last == len(data) - 1


def scan_accepts(data: bytes) -> bool:
    try:
        scan(data)
    except ScanError:
        return False
    return True


@given(THINGS, PROTOCOLS)
@settings(max_examples=150)
def test_accepts_whatever_pickle_makes(thing: object, protocol: int) -> None:
    data = pickle.dumps(thing, protocol)
    scan(data)
    assert scan(dill.dumps((thing,), protocol=max(protocol, 2))) == LITERAL


@given(THINGS, PROTOCOLS, st.data())
@settings(max_examples=150)
def test_refuses_truncated_streams_and_trailing_bytes(thing: object, protocol: int, data: st.DataObject) -> None:
    whole = pickle.dumps(thing, protocol)
    cut = data.draw(st.integers(0, len(whole) - 1))
    with pytest.raises(ScanError):
        scan(whole[:cut])
    with pytest.raises(ScanError):
        scan(whole + data.draw(st.binary(min_size=1, max_size=8)))


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    data = bytearray(pickle.dumps(draw(THINGS), draw(PROTOCOLS)))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(data)))
        match draw(st.integers(0, 2)):
            case 0 if at < len(data):
                data[at] = draw(st.integers(0, 255))
            case 1:
                data[at : at + 1] = b""
            case _:
                data[at:at] = bytes([draw(st.integers(0, 255))])
    return bytes(data)


@given(mutated() | st.binary(max_size=60))
@settings(max_examples=600)
def test_never_accepts_what_genops_refuses(data: bytes) -> None:
    if scan_accepts(data):
        assert genops_accepts(data)


@given(mutated())
@settings(max_examples=600)
def test_never_refuses_what_an_unpickler_loads_to_its_end(data: bytes) -> None:
    stream = io.BytesIO(data)
    unpickler = LiteralUnpickler(stream)
    try:
        unpickler.load()
    except Exception:
        return
    if stream.tell() == len(data) and not unpickler.stack and not unpickler.metastack:
        scan(data)


def test_never_refuses_opcodes_that_an_unpickler_follows_to_their_end() -> None:
    source, followed, refused = random.Random(7), 0, list[bytes]()
    codes = [opcode.code for opcode in pickletools.opcodes if opcode.arg is None and opcode.name != "STOP"]
    for _ in range(30_000):
        data = "".join(source.choice(codes) for _ in range(source.randint(1, 6))).encode("latin-1") + b"."
        unpickler = LiteralUnpickler(io.BytesIO(data))
        with contextlib.suppress(Exception):
            unpickler.load()
            if not unpickler.stack and not unpickler.metastack:
                followed += 1
                refused += [] if scan_accepts(data) else [data]
    assert not refused
    assert followed > 300


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize(
    "thing",
    [
        1,
        1.5,
        2**100,
        True,
        None,
        "text",
        b"bytes",
        bytearray(b"x"),
        (),
        (1,),
        (1, 2),
        (1, 2, 3),
        (1, 2, 3, 4),
        [],
        [1],
        [1, 2],
        {},
        {1: 2},
        {1: 2, 3: 4},
        "x" * 300,
        b"x" * 300,
    ],
)
def test_knows_a_literal(thing: object, protocol: int) -> None:
    opaque = protocol < 3 and isinstance(thing, (bytes, bytearray))  # made by a call in those
    opaque = opaque or (protocol < 5 and isinstance(thing, bytearray))
    assert scan(pickle.dumps(thing, protocol)) == (OPAQUE if opaque else LITERAL)


@pytest.mark.parametrize("thing", [set(), {1}, frozenset(), frozenset({1})])
def test_knows_a_set(thing: object) -> None:
    assert scan(pickle.dumps(thing, 4)) == LITERAL


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize(
    "thing",
    [
        len,
        operator.add,
        CallableObject(),
        CallableObject,
        CallableList([1, 2, 3]),
        CallableDict(a=1),
        CallableDict(),
        functools.partial(len, "x"),
        "x".upper,
        datetime.datetime.now,
        decimal.Decimal(1).sqrt,
    ],
)
def test_never_takes_a_callable_for_a_literal(thing: object, protocol: int) -> None:
    assert scan(pickle.dumps(thing, protocol)) == OPAQUE


def test_knows_a_function_of_dill() -> None:
    def outer(n: int) -> object:
        return lambda x: x + n

    for thing in (outer, outer(3), lambda: None, CallableObject, CallableObject()):
        for recurse in (False, True):
            assert scan(dill.dumps(thing, recurse=recurse)) == OPAQUE
    assert scan(dill.dumps(outer, byref=True)) == OPAQUE


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b".",
        b"N",
        b"NN.",
        b"(N.",
        b"N0.",
        b"(t",
        b"t.",
        b"(Nd.",
        b"}(Nu.",
        b"(Na.",
        b"]a.",
        b"h\x00.",
        b"q\x00.",
        b"Np-1\n.",
        b"g7\n.",
        b"I1",
        b"Ione\n.",
        b"\x8c\x02\xff\xfe.",
        b"\x8c\xffshort.",
        b"X\xff\xff\xff\xffshort.",
        b"\x8d\xff\xff\xff\xff\xff\xff\xff\xffx.",
        b"T\xff\xff\xff\xff.",
        b"\x8b\xff\xff\xff\xff.",
        b"cos\nsystem",
        b"\xff.",
        b"invalid_payload",
        b"\x80\x04N.N.",
        b"Nr\xff\xff\xff\x7f" * 20_000 + b".",
        b"(" * 200_000 + b"t" * 200_000 + b".",
    ],
)
def test_refuses(data: bytes) -> None:
    with pytest.raises(ScanError):
        scan(data)


def test_follows_the_memo_to_a_callable() -> None:
    data = b"c__builtin__\nlen\nq\x000h\x00."  # stored, popped, read again
    assert pickle.loads(data) is len
    assert scan(data) == OPAQUE
    assert scan(b"Nq\x000h\x00.") == LITERAL
