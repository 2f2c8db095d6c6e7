"""The codec: what goes in comes out, large payloads are not copied into the body, and nothing malformed passes."""

from __future__ import annotations

import os
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from everfaas_core.model.errors import WireError
from everfaas_core.model.output import Printed, Progressed, Stream
from everfaas_core.model.states import Cause
from everfaas_core.wire import messages as m
from everfaas_core.wire.codec import BLOB_BYTES, decode_to_dispatcher, decode_to_worker, encode

ids = st.text(max_size=36)
payloads = st.one_of(
    st.binary(max_size=64),
    st.sampled_from([b"\x00EF-blob", b"x" * BLOB_BYTES, b"y" * (BLOB_BYTES - 1), b"z" * 100_000]),
)
held = st.lists(st.tuples(ids, st.integers(0, 2**40)), max_size=4).map(tuple)
maybe_text = st.none() | st.text(max_size=20)
maybe_float = st.none() | st.floats(allow_nan=False)
outcomes = st.builds(
    m.Outcome, ids, st.integers(0, 99), st.sampled_from(list(Cause)), payloads, maybe_text, maybe_float
)
tasks = st.builds(m.TaskItem, ids, st.integers(0, 99), ids, payloads, maybe_float)
code = st.builds(m.FunctionItem, ids, ids, payloads, maybe_text)
numbers = st.integers(0, 2**40)
printed = st.builds(Printed, ids, st.integers(0, 99), st.sampled_from(list(Stream)), numbers, payloads)
progress = st.builds(Progressed, ids, st.integers(0, 99), numbers | st.floats(allow_nan=False), maybe_float, ids)

to_dispatcher = st.one_of(
    st.builds(m.Hello, numbers, ids, ids, ids, numbers, numbers, numbers, ids, ids, held, numbers),
    st.builds(m.Beat, numbers, numbers),
    st.builds(m.Outcomes, st.lists(outcomes, max_size=4).map(tuple), numbers, numbers),
    st.builds(m.Said, st.lists(printed, max_size=3).map(tuple), st.lists(progress, max_size=3).map(tuple)),
    st.builds(m.Missing, st.lists(ids, max_size=4).map(tuple)),
    st.builds(m.Draining),
    st.builds(m.Bye, held),
)
to_worker = st.one_of(
    st.builds(m.Welcome, ids, st.floats(allow_nan=False), st.floats(allow_nan=False)),
    st.builds(m.Refuse, ids, ids),
    st.builds(m.Tasks, st.lists(tasks, max_size=4).map(tuple), st.lists(code, max_size=3).map(tuple), numbers),
    st.builds(m.Ack, held),
    st.builds(m.Kill, held),
    st.builds(m.Pulse),
    st.builds(m.Peers, st.lists(ids, max_size=3).map(tuple), st.booleans()),
    st.builds(m.Stranger),
    st.builds(m.Quit),
)


@given(to_dispatcher)
def test_what_a_worker_says_comes_out_as_it_went_in(message) -> None:
    assert decode_to_dispatcher(encode(message)) == message


@given(to_worker)
def test_what_a_dispatcher_says_comes_out_as_it_went_in(message) -> None:
    assert decode_to_worker(encode(message)) == message


def test_large_payloads_travel_uncopied_in_frames_of_their_own() -> None:
    payload = os.urandom(1_000_000)
    frames = encode(m.Tasks((m.TaskItem("t", 1, "f", payload),)))
    assert len(frames[0]) < 100
    assert frames[1] is payload


def test_a_message_for_the_other_side_is_refused() -> None:
    with pytest.raises(WireError):
        decode_to_worker(encode(m.Beat(1)))
    with pytest.raises(WireError):
        decode_to_dispatcher(encode(m.Pulse()))


def test_another_version_is_named_with_the_remedy() -> None:
    (frame,) = encode(m.Pulse())
    with pytest.raises(WireError, match=r"version 9.*same version of everfaas"):
        decode_to_worker([frame[:2] + b"\x09" + frame[3:]])


@pytest.mark.parametrize("frames", [[], [b""], [b"E"], [b"EF"], [b"EF\x01"], [b"HTTP/1.1 200"], [b"EF\x01\xc1"]])
def test_what_is_no_message_is_refused(frames) -> None:
    with pytest.raises(WireError):
        decode_to_dispatcher(frames)


def test_missing_and_superfluous_frames_are_refused() -> None:
    frames = encode(m.Outcomes((m.Outcome("t", 1, Cause.OK, b"x" * BLOB_BYTES),), 1))
    with pytest.raises(WireError, match="lacks a frame"):
        decode_to_dispatcher(frames[:1])
    with pytest.raises(WireError, match="does not refer"):
        decode_to_dispatcher([*frames, b"more"])


@settings(max_examples=300)
@given(st.lists(st.binary(max_size=80), max_size=4))
def test_no_bytes_crash_the_decoders(frames) -> None:
    for prefix in (b"", b"EF\x01"):
        bent = [prefix + frames[0], *frames[1:]] if frames else frames
        for decode in (decode_to_dispatcher, decode_to_worker):
            try:
                decode(bent)
            except WireError:
                continue


def test_bent_messages_decode_or_are_refused() -> None:
    """A hundred thousand flipped bits: never another exception than WireError."""
    chance = random.Random(11)
    good = encode(m.Outcomes((m.Outcome("task", 3, Cause.RAISED, b"result", "why", 0.5),) * 3, 77))[0]
    refused = 0
    for _ in range(100_000):
        bent = bytearray(good)
        for _ in range(chance.randrange(1, 4)):
            bent[chance.randrange(len(bent))] = chance.randrange(256)
        try:
            decode_to_dispatcher([bytes(bent)])
        except WireError:
            refused += 1
    assert refused > 10_000
