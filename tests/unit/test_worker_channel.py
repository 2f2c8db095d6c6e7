"""Frames between worker and slot: cut anywhere, larger than any buffer, and malformed."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from everfaas_core.model.errors import WireError
from everfaas_core.model.ids import FunctionId, TaskId
from everfaas_core.model.states import Cause
from everfaas_core.wire.codec import encode
from everfaas_core.wire.messages import Ack, FunctionItem, Outcome, Outcomes, TaskItem, Tasks
from everfaas_core.worker import channel
from everfaas_core.worker.births import (
    Ask,
    Report,
    Request,
    Tell,
    Why,
    pack_report,
    pack_request,
    take_reports,
    take_requests,
)
from everfaas_core.worker.channel import Channel, Inbox, SlotPipe, pack


def tasks(size: int, number: int = 1) -> Tasks:
    item = TaskItem(TaskId(f"t{number}"), 1, FunctionId("f"), b"p" * size, 2.5)
    return Tasks((item,), (FunctionItem(FunctionId("f"), "f", b"c" * size, "3.11"),))


def outcomes(size: int, number: int = 1) -> Outcomes:
    return Outcomes((Outcome(TaskId(f"t{number}"), 1, Cause.OK, b"r" * size, None, 0.5),), 0)


@pytest.fixture
def ends() -> Iterator[tuple[Channel, SlotPipe]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield Channel(ours, 1), SlotPipe(theirs)


@settings(deadline=None)
@given(
    sizes=st.lists(st.sampled_from([0, 1, 100, 40_000, 70_000, 300_000]), min_size=1, max_size=6),
    cuts=st.lists(st.integers(100, 50_000), min_size=1, max_size=5),
)
def test_messages_survive_any_cut(sizes: list[int], cuts: list[int]) -> None:
    sent = [tasks(size, number) for number, size in enumerate(sizes)]
    stream = b"".join(bytes(part) for message in sent for part in pack(encode(message)))
    inbox: Inbox[Tasks] = Inbox(channel._tasks)
    got: list[Tasks] = []
    at = step = 0
    while at < len(stream):
        space = inbox.space()
        count = min(len(space), cuts[step % len(cuts)], len(stream) - at)
        assert count > 0
        space[:count] = stream[at : at + count]
        got += inbox.filled(count)
        at, step = at + count, step + 1
    assert got == sent


@pytest.mark.parametrize(
    "data",
    [
        struct.pack("<I", 0),
        struct.pack("<I", channel.FRAMES_MAX + 1),
        struct.pack("<IQ", 1, channel.MESSAGE_BYTES_MAX + 1),
        struct.pack("<IQQ", 2, 2**63, 2**63),
        struct.pack("<IQ", 1, 3) + b"abc",
        b"".join(bytes(part) for part in pack(encode(Ack(())))),
    ],
)
def test_malformed_messages_are_wire_errors(data: bytes) -> None:
    inbox: Inbox[Outcomes] = Inbox(channel._outcomes)
    inbox.space()[: len(data)] = data
    with pytest.raises(WireError):
        inbox.filled(len(data))


@given(st.binary(max_size=200))
def test_noise_is_a_wire_error_or_incomplete(data: bytes) -> None:
    inbox: Inbox[Outcomes] = Inbox(channel._outcomes)
    inbox.space()[: len(data)] = data
    with contextlib.suppress(WireError):
        assert inbox.filled(len(data)) == []


def test_the_parent_never_blocks_and_loses_nothing(ends: tuple[Channel, SlotPipe]) -> None:
    parent, slot = ends
    sent = [tasks(3_000_000, number) for number in range(3)] + [tasks(0, 9)]
    for message in sent:
        parent.send(message)  # nobody reads: a blocking send would hang here
    assert parent.choked
    got: list[Tasks] = []

    def read() -> None:
        while len(got) < len(sent):
            got.extend(slot.receive())

    reader = threading.Thread(target=read)
    reader.start()
    while parent.choked:
        parent.flush()
    reader.join(30)
    assert got == sent


def test_large_answers_come_in_piece_by_piece(ends: tuple[Channel, SlotPipe]) -> None:
    parent, slot = ends
    sent = [outcomes(5_000_000), outcomes(10, 2)]

    def write() -> None:
        for message in sent:
            slot.send(message)

    writer = threading.Thread(target=write)
    writer.start()
    got: list[Outcomes] = []
    while len(got) < 2:
        got += parent.receive()
    writer.join(30)
    assert got == sent


def test_the_ends_notice_each_others_end() -> None:
    ours, theirs = socket.socketpair()
    parent = Channel(ours, 1)
    theirs.close()
    assert parent.receive() == []
    assert parent.ended
    parent.send(tasks(10))
    assert not parent.choked
    ours.close()
    ours, theirs = socket.socketpair()
    ours.close()
    with theirs, pytest.raises(EOFError):
        SlotPipe(theirs).receive()


def test_records_of_the_nursery_round_trip_when_cut() -> None:
    requests = [Request(Ask.FORK, 1, 2), Request(Ask.PULSE, 0, 1500)]
    buffer = bytearray(b"".join(pack_request(one) for one in requests)[:-1])
    assert take_requests(buffer) == requests[:1]
    buffer += pack_request(requests[1])[-1:]
    assert take_requests(buffer) == requests[1:]
    assert not buffer
    reports = [Report(Tell.BORN, Why.ITSELF, 7, 1234, 0), Report(Tell.DIED, Why.FENCED, 7, 9, 2**40)]
    buffer = bytearray(b"".join(pack_report(one) for one in reports))
    assert take_reports(buffer) == reports
