"""How long commands wait for an API that is away, and what is shown how."""

from __future__ import annotations

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from everfaas_core.cli import outcomes
from everfaas_core.cli.outcomes import Patience, safe_repr, value_fields
from everfaas_core.cli.shown import age, brief, duration, shown, size
from everfaas_core.cli.streams import Terminal
from everfaas_core.client.errors import ApiRefused, ApiUnreachable


class Calls:
    def __init__(self, *results: object) -> None:
        self.results = list(results)

    def __call__(self) -> object:
        result = self.results.pop(0)
        if isinstance(result, Exception):
            raise result
        return result


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outcomes, "RETRY_S", 0.01)


AWAY = ApiUnreachable("away")
BUSY = ApiRefused("busy", status=503)
FINAL = ApiRefused("no", status=404)


def test_an_api_that_has_answered_is_waited_for() -> None:
    patient, calls = Patience(30.0), Calls(1, AWAY, BUSY, AWAY, 2)
    assert [patient(calls), patient(calls)] == [1, 2]


@pytest.mark.parametrize("first", [AWAY, BUSY, FINAL])
def test_one_that_has_never_answered_is_not(first: Exception) -> None:
    with pytest.raises(type(first)):
        Patience(30.0)(Calls(first, 2))


def test_what_is_final_is_final_and_patience_ends() -> None:
    patient = Patience(0.05)
    assert patient(Calls(1)) == 1
    with pytest.raises(ApiRefused):
        patient(Calls(FINAL, 2))
    with pytest.raises(ApiUnreachable):
        patient(Calls(*[AWAY] * 1000))


# ── text ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


@given(st.text())
def test_nothing_that_a_terminal_obeys_is_left(text: str) -> None:
    assert shown(text).isprintable()
    assert set(shown(text, lines=True)) <= set(shown(text)) | {"\n", "\t"}


@pytest.mark.parametrize(
    ("text", "expected"), [("a\x1b[2Jb", r"a\x1b[2Jb"), ("\u202e", r"\u202e"), ("é 数", "é 数"), ("\ud800", r"\ud800")]
)
def test_escapes(text: str, expected: str) -> None:
    assert shown(text) == expected


def test_cuts() -> None:
    assert shown("abcdef", limit=4) == "abc…"
    assert brief("Traceback\n  x\nValueError: a\x1b\n\n") == r"ValueError: a\x1b"
    assert brief(None) == ""


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        *[(0, "0 ms"), (0.0123, "12 ms"), (0.9999, "1.0 s"), (9.94, "9.9 s"), (59.4, "59 s"), (60, "1 min")],
        *[(125, "2 min 5 s"), (3600, "1 h"), (11_040, "3 h 4 min"), (190_800, "2 d 5 h"), (None, ""), (-1, "0 ms")],
    ],
)
def test_durations(seconds: float | None, text: str) -> None:
    assert duration(seconds) == text


def test_ages_and_sizes() -> None:
    assert [age(0, ms) for ms in (-5, 900, 59_000, 720_000, 3 * 3_600_000, 9 * 86_400_000)] == [
        *("0 s", "1 s", "59 s", "12 min", "3 h", "9 d"),
    ]
    assert age(None) == ""
    assert [size(count) for count in (0, 1023, 1536, 32 * 2**20, 5 * 2**50)] == [
        *("0 B", "1023 B", "1.5 KiB", "32 MiB", "5120 TiB"),
    ]


def test_values_that_json_has_no_word_for() -> None:
    class Sulky:
        def __repr__(self) -> str:
            raise ValueError

    loop: list[object] = []
    loop.append(loop)
    assert value_fields({"a": [1, None]}) == {"value": {"a": [1, None]}}
    assert value_fields(float("nan")) == {"repr": "nan"}
    assert value_fields(loop) == {"repr": "[[...]]"}
    assert value_fields(Sulky()) == {"repr": "<Sulky whose repr raised ValueError>"}
    assert safe_repr("x") == "'x'"


# ── what tasks write ─────────────────────────────────────────────────────────────────────────────────────────────────


class Tty(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_colours_survive_being_cut_in_two_and_are_ended() -> None:
    out, err = Tty(), Tty()
    terminal = Terminal(out, err)
    for text in ("a\x1b", "[3", "1mred", "\x1b[2J", "\x1b", "[0K\rx"):
        terminal.write({"stream": "stdout", "text": text, "attempt": 1})
    terminal.close()
    assert out.getvalue() == "a\x1b[31mred\\x1b[2J\\x1b[0K\rx\x1b[0m\n"
    assert err.getvalue() == ""


def test_a_pipe_gets_what_was_written_and_notes_go_to_stderr() -> None:
    out, err = io.StringIO(), io.StringIO()
    terminal = Terminal(out, err, times=True)
    terminal.write({"stream": "stdout", "text": "\x1b[2Ja\nb", "attempt": 1, "at_ms": 0})
    terminal.write({"stream": "stdout", "text": "c\n", "attempt": 1, "at_ms": 0})
    terminal.write({"stream": "stderr", "text": "d\n", "attempt": 2, "at_ms": 0, "left_out_bytes": 2048})
    terminal.close()
    lines = out.getvalue().splitlines()
    assert [line[9:] for line in lines] == ["\x1b[2Ja", "bc"]
    assert err.getvalue().splitlines()[:2] == ["[attempt 2]", "[2.0 KiB of its output were not kept]"]
