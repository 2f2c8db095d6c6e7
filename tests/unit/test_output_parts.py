"""Marks, what is gathered of output, and its way through the dispatcher, without processes."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from everfaas_core.inside import progress
from everfaas_core.model.ids import DispatcherId, TaskId
from everfaas_core.model.output import (
    MESSAGE_CHARS_MAX,
    OUTPUT_BYTES_MAX,
    PIECE_BYTES_MAX,
    Printed,
    Progressed,
    Stream,
    read_cursor,
)
from everfaas_core.model.records import Turn, TurnReply
from everfaas_core.model.states import Cause
from everfaas_core.runtime.codebook import Codebook
from everfaas_core.runtime.turns import PRINTED_BYTES_MAX, Turns
from everfaas_core.wire.messages import Outcome, Said, Welcome
from everfaas_core.worker.marks import (
    MARK_BYTES_MAX,
    Kind,
    Parser,
    Text,
    _mark,
    mark_ended,
    mark_late,
    mark_progress,
)
from everfaas_core.worker.speech import GATHER_S, KEPT_BYTES_MAX, SAID_BYTES_MAX, Speeches, whole_characters

NONCE = bytes(range(16))
OUT, ERR = Stream.STDOUT, Stream.STDERR
A, B = (TaskId("a"), 1), (TaskId("b"), 3)


# ── marks ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_what_stands_before_a_mark_is_told_with_whose_it_is() -> None:
    parser = Parser(NONCE)
    stream = b"one" + mark_ended(NONCE, A) + mark_ended(NONCE, B) + b"late" + mark_late(NONCE) + b"two"
    assert parser.feed(stream) == [Text(b"one", A), Text(b"late", None)]
    assert parser.take(whole=True) == b"two"
    assert parser.take(whole=True) == b""


def test_progress_says_nothing_of_the_text_around_it() -> None:
    parser = Parser(NONCE)
    word = Progressed(TaskId("a"), 1, 1, 2.5, "é")
    assert parser.feed(b"one" + mark_progress(NONCE, word) + b"two") == [word]
    assert parser.feed(mark_ended(NONCE, A)) == [Text(b"onetwo", A)]


def test_a_mark_that_can_not_be_read_is_dropped_with_what_it_was_to_tell() -> None:
    parser = Parser(NONCE)
    assert parser.feed(b"x" + _mark(NONCE, Kind.ENDED, b"\xc1") + b"y" + mark_ended(NONCE, A)) == [
        Text(b"x", None),
        Text(b"y", A),
    ]
    assert parser.feed(_mark(NONCE, Kind.PROGRESS, b"\xc1") + b"z" + mark_ended(NONCE, A)) == [Text(b"z", A)]


def test_the_longest_mark_is_written_in_one_piece() -> None:
    longest = mark_progress(NONCE, Progressed(TaskId("x" * 36), 2**31, 2**53, 2**53, "\U0001f600" * MESSAGE_CHARS_MAX))
    assert len(longest) <= MARK_BYTES_MAX < 4096  # PIPE_BUF


pieces = st.one_of(
    st.tuples(
        st.just("text"), st.binary(min_size=1, max_size=20) | st.sampled_from([NONCE[:9], NONCE[:1], NONCE[:15]])
    ),
    st.tuples(st.just("ended"), st.sampled_from([A, B])),
    st.tuples(st.just("late"), st.none()),
)


@given(st.lists(pieces, max_size=12), st.integers(0, 2**32))
def test_however_it_is_cut_the_same_comes_out(parts: list[tuple[str, object]], seed: int) -> None:
    stream, expected, text = b"", [], b""
    for kind, what in parts:
        if kind == "text":
            assert isinstance(what, bytes)
            stream += what
            text += what
            continue
        stream += mark_late(NONCE) if kind == "late" else mark_ended(NONCE, what)  # type: ignore[arg-type]
        if text:
            expected.append((text, what))
        text = b""
    rng = random.Random(seed)
    parser = Parser(NONCE)
    found: list[tuple[bytes, object]] = []
    taken = b""
    while stream:
        cut = rng.randint(1, len(stream))
        for item in parser.feed(stream[:cut]):
            assert isinstance(item, Text)
            found.append((taken + item.data, item.held))
            taken = b""
        stream = stream[cut:]
        if rng.random() < 0.3:
            taken += parser.take(whole=False)
    taken += parser.take(whole=True)
    # What was taken before its mark came is text, too; a mark behind nothing but that tells nothing.
    assert b"".join(data for data, _ in found) + taken == b"".join(data for data, _ in expected) + text
    assert NONCE not in b"".join(data for data, _ in found) + taken


# ── characters ───────────────────────────────────────────────────────────────────────────────────────────────────────


@given(st.text(max_size=20), st.integers(0, 80))
def test_text_is_cut_between_characters(text: str, at: int) -> None:
    data = text.encode(errors="replace")[:at]
    whole = whole_characters(data)
    assert len(data) - whole < 4
    data[:whole].decode()


@given(st.binary(max_size=12))
def test_what_is_no_text_is_cut_anyhow(data: bytes) -> None:
    assert max(len(data) - 3, 0) <= whole_characters(data) <= len(data)


# ── gathering ────────────────────────────────────────────────────────────────────────────────────────────────────────


def outcome(held: tuple[TaskId, int]) -> Outcome:
    return Outcome(held[0], held[1], Cause.OK, b"")


def test_the_first_words_are_due_at_once_and_the_next_are_gathered() -> None:
    speeches = Speeches()
    assert not speeches
    speeches.add(A, OUT, b"one\n")
    said = speeches.take(100.0)
    assert said == Said((Printed(*A, OUT, 0, b"one\n"),))
    speeches.add(A, OUT, b"two\n")
    speeches.add(A, OUT, b"three\n")
    speeches.add(A, ERR, b"four\n")
    assert speeches.due() == 100.0 + GATHER_S
    assert speeches.take(100.0 + GATHER_S / 2) is None
    assert speeches.take(100.0 + GATHER_S) == Said(
        (Printed(*A, OUT, 4, b"two\nthree\n"), Printed(*A, ERR, 14, b"four\n"))
    )
    assert speeches.due() is None


def test_what_has_ended_is_due_at_once_and_forgotten() -> None:
    speeches = Speeches()
    speeches.add(A, OUT, b"one")
    speeches.take(100.0)
    speeches.add(A, OUT, b"two")
    speeches.add(B, OUT, b"x")
    speeches.end([outcome(A)])
    assert speeches.take(100.0) == Said((Printed(*A, OUT, 3, b"two"), Printed(*B, OUT, 0, b"x")))
    speeches.end([outcome(B)])
    assert not speeches


def test_a_character_is_said_when_it_is_complete_or_its_attempt_has_ended() -> None:
    speeches = Speeches()
    snowman = "☃".encode()
    speeches.add(A, OUT, b"x" + snowman[:2])
    speeches.add(A, ERR, b"y")
    assert speeches.take(100.0) == Said((Printed(*A, OUT, 0, b"x"), Printed(*A, ERR, 1, b"y")))
    speeches.add(A, OUT, snowman[2:] + snowman[:1])
    assert speeches.take(200.0) == Said((Printed(*A, OUT, 2, snowman),))
    assert speeches.due() is None
    speeches.end([outcome(A)])
    assert speeches.take(200.0) == Said((Printed(*A, OUT, 5, snowman[:1]),))


def test_only_the_last_word_of_progress_is_said() -> None:
    speeches = Speeches()
    for done in range(5):
        speeches.progress(Progressed(*A, done))
    assert speeches.take(100.0) == Said((), (Progressed(*A, 4),))
    speeches.progress(Progressed(*A, 9))
    speeches.end([outcome(A)])
    assert speeches.take(100.0) == Said((), (Progressed(*A, 9),))
    assert not speeches


def test_what_nobody_takes_is_bounded_and_the_newest_stays() -> None:
    speeches = Speeches()
    line = b"x" * 9999 + b"\n"
    for n in range(50):
        held = TaskId(f"t{n}"), 1
        for _ in range(200):
            speeches.add(held, OUT, line)
        speeches.end([outcome(held)])
    said = speeches.take(100.0)
    assert said is not None
    assert KEPT_BYTES_MAX / 2 < sum(len(one.text) for one in said.printed) <= KEPT_BYTES_MAX
    assert all(len(one.text) <= PIECE_BYTES_MAX for one in said.printed)
    mine = [one for one in said.printed if one.task_id == "t49"]
    assert mine[-1].end == 200 * len(line)
    assert OUTPUT_BYTES_MAX - 2 * PIECE_BYTES_MAX < sum(len(one.text) for one in mine) <= OUTPUT_BYTES_MAX
    assert not speeches


def test_one_message_is_bounded_and_gives_everybody_a_share() -> None:
    speeches = Speeches()
    helds = [(TaskId(f"t{n}"), 1) for n in range(4)]
    for held in helds:
        speeches.add(held, OUT, b"x" * 900_000)
    heard: dict[TaskId, int] = {}
    for turn in range(4):
        said = speeches.take(100.0 + turn)
        assert said is not None
        assert sum(len(one.text) for one in said.printed) <= SAID_BYTES_MAX + PIECE_BYTES_MAX
        for one in said.printed:
            heard[one.task_id] = heard.get(one.task_id, 0) + len(one.text)
    assert set(heard.values()) == {900_000}


# ── the dispatcher ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_what_the_store_was_not_told_is_kept_within_bounds_and_told_once() -> None:
    turns = Turns(Welcome(DispatcherId("d"), 1.0, 3.0), Codebook(), bound=False)
    errand = turns.errand
    assert not errand
    big = [Printed(*A, OUT, n * PIECE_BYTES_MAX, b"x" * PIECE_BYTES_MAX) for n in range(200)]
    for piece in big:
        errand.tell(Said((piece,), (Progressed(*A, piece.start), Progressed(*B, 1))))
    assert errand
    kept = sum(len(one.text) for one in errand.printed)
    assert PRINTED_BYTES_MAX - 2 * PIECE_BYTES_MAX < kept <= PRINTED_BYTES_MAX
    assert errand.printed == big[: len(errand.printed)], "what is dropped shows as a gap"
    assert errand.progress == [Progressed(*A, big[-1].start), Progressed(*B, 1)]
    turn = Turn(dispatcher_id=DispatcherId("d"), printed=tuple(errand.printed), progress=tuple(errand.progress))
    errand.tell(Said((Printed(*B, OUT, 0, b"y" * PIECE_BYTES_MAX),), (Progressed(*B, 2),)))
    assert errand.printed == list(turn.printed), "there is no room"
    turns.events(turn, TurnReply())
    assert errand.progress == [Progressed(*B, 2)]
    errand.tell(Said((Printed(*B, OUT, 0, b"new"),)))
    assert [one.text for one in errand.printed] == [b"new"]
    turns.events(Turn(dispatcher_id=DispatcherId("d"), printed=tuple(errand.printed)), TurnReply())
    assert errand.printed_bytes == 0
    assert [one.done for one in errand.progress] == [2]


# ── small things ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_progress_outside_of_a_slot_does_nothing_but_check() -> None:
    progress(1)
    progress(1, 2.5, "words")
    with pytest.raises(TypeError, match="total has to be a number, not str"):
        progress(1, "2")  # type: ignore[arg-type]  # on purpose
    with pytest.raises(ValueError, match="finite"):
        progress(float("nan"))


@given(st.text(max_size=40))
def test_a_cursor_is_two_numbers_or_none(text: str) -> None:
    try:
        attempt, end = read_cursor(text)
    except ValueError:
        return
    assert text.isascii()
    assert (int(text.partition("-")[0]), int(text.partition("-")[2])) == (attempt, end)
