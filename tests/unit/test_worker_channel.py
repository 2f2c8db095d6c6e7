"""Frames between worker and slot: cut anywhere, larger than any buffer, and malformed."""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import threading
from collections.abc import Iterable, Iterator

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
from everfaas_core.worker.channel import Channel, Inbox, SlotPipe, Tokens, pack


def tasks(size: int, number: int = 1) -> Tasks:
    item = TaskItem(TaskId(f"t{number}"), 1, FunctionId("f"), b"p" * size, 2.5)
    return Tasks((item,), (FunctionItem(FunctionId("f"), "f", b"c" * size, "3.11"),))


def outcomes(size: int, number: int = 1) -> Outcomes:
    return Outcomes((Outcome(TaskId(f"t{number}"), 1, Cause.OK, b"r" * size, None, 0.5),), 0)


@pytest.fixture
def ends() -> Iterator[tuple[Channel, SlotPipe]]:
    ours, theirs = socket.socketpair()
    tokens = Tokens()
    with theirs:
        parent = Channel(ours, 1, tokens)
        yield parent, SlotPipe(theirs, tokens.reader)
        parent.close()


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
        parent.feed(message)  # nobody reads: a blocking send would hang here
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
    parent = Channel(ours, 1, Tokens())
    theirs.close()
    assert parent.receive() == []
    assert parent.ended
    parent.feed(tasks(10))
    assert not parent.choked
    parent.close()
    ours, theirs = socket.socketpair()
    ours.close()
    with theirs, pytest.raises(EOFError):
        SlotPipe(theirs, -1).receive()


# ── the permission to begin ──────────────────────────────────────────────────────────────────────────────────────────


def several(numbers: Iterable[int]) -> Tasks:
    return Tasks(tuple(TaskItem(TaskId(f"t{number}"), 1, FunctionId("f"), b"") for number in numbers))


def begun(slot: SlotPipe, count: int | None = None) -> list[str]:
    """Let a slot go through what it has been sent, or so many of it; return what it may run."""
    items = [item for message in slot.receive() for item in message.items][:count]
    return [item.task_id for item in items if slot.may_begin()]


def test_what_is_fed_may_begin(ends: tuple[Channel, SlotPipe]) -> None:
    parent, slot = ends
    parent.feed(several(range(3)))
    parent.feed(several(range(3, 5)))
    assert begun(slot) == ["t0", "t1", "t2", "t3", "t4"]
    assert parent.recall() == 0


def test_what_was_taken_back_never_begins(ends: tuple[Channel, SlotPipe]) -> None:
    parent, slot = ends
    parent.feed(several(range(5)))
    items = [item for message in slot.receive() for item in message.items]
    assert [slot.may_begin() for _ in items[:2]] == [True, True]
    assert parent.recall() == 3
    assert [slot.may_begin() for _ in items[2:]] == [False, False, False]
    assert parent.recall() == 0


def test_a_recall_counts_what_is_still_on_its_way_to_the_slot(ends: tuple[Channel, SlotPipe]) -> None:
    parent, slot = ends
    big = tasks(3_000_000)
    parent.feed(big)
    assert parent.choked
    assert parent.recall() == 1
    parent.feed(several([7]))

    def flush() -> None:
        while parent.choked:
            parent.flush()

    writer = threading.Thread(target=flush)
    writer.start()
    may = []
    while len(may) < 2:
        may += [slot.may_begin() for message in slot.receive() for _ in message.items]
    writer.join(30)
    assert may == [False, True]


def test_a_permission_is_for_the_task_that_was_fed_with_it(ends: tuple[Channel, SlotPipe]) -> None:
    """Though the slot comes to those that were taken back only after others have been fed."""
    parent, slot = ends
    parent.feed(several(range(4)))
    assert parent.recall() == 4
    parent.feed(several([10, 11]))
    assert parent.recall() == 2
    parent.feed(several([20, 21]))
    assert begun(slot) == ["t20", "t21"]
    parent.feed(several([30]))
    assert begun(slot) == ["t30"]


def test_permissions_are_told_apart_beyond_what_fits_into_a_byte(ends: tuple[Channel, SlotPipe]) -> None:
    parent, slot = ends
    for number in range(0, 600, 2):  # recalls at all positions, those around 256 and 512 as well
        parent.feed(several([number]))
        assert parent.recall() == 1
        parent.feed(several([number + 1]))
        assert begun(slot) == [f"t{number + 1}"]
    parent.feed(several(range(1000, 1255)))
    assert parent.recall() == 255
    parent.feed(several([2000]))
    assert begun(slot) == ["t2000"]


@settings(deadline=None)
@given(steps=st.lists(st.tuples(st.sampled_from(["feed", "feed", "go", "recall"]), st.integers(1, 16)), max_size=150))
def test_each_task_begins_or_is_taken_back(steps: list[tuple[str, int]]) -> None:
    """Both sides in any order, with no more under way than are told apart."""
    tokens = Tokens()
    ours, theirs = socket.socketpair()
    with ours, theirs:
        slot = SlotPipe(theirs, tokens.reader)
        under_way: list[int] = []  # fed, and the slot has not come to them
        may: list[int] = []  # permitted, and nobody has taken the permission
        taken: set[int] = set()  # by the slot, when it came to one that was taken back: it begins next
        count = 0
        for what, number in steps:
            if what == "feed" and len(under_way) + number < channel.TOKENS_MAX:
                tokens.give(number)
                new = range(count, count + number)
                under_way += new
                may += new
                count += number
            elif what == "go":
                for one in under_way[:number]:
                    if not taken:
                        taken, may = set(may[:1]), may[1:]
                    assert slot.may_begin() == (one in taken)
                    taken.discard(one)
                under_way = under_way[number:]
            elif what == "recall":
                assert tokens.take_back() == len(may)
                may.clear()
    tokens.close()


def test_a_slot_notices_that_its_permissions_have_ended() -> None:
    tokens = Tokens()
    ours, theirs = socket.socketpair()
    with ours, theirs:
        reader = os.dup(tokens.reader)
        slot = SlotPipe(theirs, reader)
        tokens.give(1)
        tokens.close()  # the worker is gone
        assert slot.may_begin()
        with pytest.raises(EOFError):
            slot.may_begin()
        os.close(reader)
        with pytest.raises(OSError, match="descriptor"):
            slot.may_begin()


def test_a_channel_closes_all_that_it_has() -> None:
    ours, theirs = socket.socketpair()
    tokens = Tokens()
    fds = [ours.fileno(), tokens.reader, tokens._writer]
    with theirs:
        Channel(ours, 1, tokens).close()
        for fd in fds:
            with pytest.raises(OSError, match="descriptor"):
                os.fstat(fd)


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
