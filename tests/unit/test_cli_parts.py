"""Small parts of the command line, by themselves."""

from __future__ import annotations

import io
import json
import logging
import os
import sys

import pytest

from everfaas_core.cli.children import (
    RESTART_DELAY_S,
    RESTARTS_MAX,
    RESTARTS_WINDOW_S,
    RestartBudget,
    describe_exit,
)
from everfaas_core.cli.logs import JsonFormatter, TextFormatter
from everfaas_core.cli.map_bar import facts
from everfaas_core.cli.map_flow import Counts
from everfaas_core.cli.role import ReadyLine
from everfaas_core.cli.screen import Screen, shown_url
from everfaas_core.cli.up import _connectable
from everfaas_core.config import Settings


def test_a_restart_budget_is_bounded_within_its_window_and_slows_down() -> None:
    budget = RestartBudget()
    delays = [budget.spend(now) for now in range(RESTARTS_MAX)]
    assert delays == [0.0, *(RESTART_DELAY_S * 2**n for n in range(RESTARTS_MAX - 1))]
    assert budget.spend(RESTARTS_MAX) is None
    assert budget.spend(RESTARTS_WINDOW_S - 0.1) is None
    assert budget.spend(RESTARTS_WINDOW_S + RESTARTS_MAX) == 0.0, "the old ones are forgotten"


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (0, "exited with status 0"),
        (3, "exited with status 3"),
        (-9, "was killed by SIGKILL"),
        (-99, "was killed by signal 99"),
    ],
)
def test_exits_in_words(status: int, words: str) -> None:
    assert describe_exit(status) == words


def record(level: int, message: str, **extra: object) -> logging.LogRecord:
    made = logging.makeLogRecord({"levelno": level, "levelname": logging.getLevelName(level), "msg": message, **extra})
    made.name = "everfaas.api"
    return made


def test_text_logs() -> None:
    formatter = TextFormatter("api")
    assert formatter.format(record(logging.INFO, "hello"))[8:] == " api: hello"
    assert formatter.format(record(logging.WARNING, "lost", worker="w1"))[8:] == " api warning: lost  worker=w1"


def test_json_logs_carry_extra_fields_and_tracebacks() -> None:
    try:
        raise ValueError("no")
    except ValueError:
        made = record(logging.ERROR, "it broke\nbadly", worker="w1", thing=object(), exc_info=sys.exc_info())
    line = JsonFormatter("api").format(made)
    assert "\n" not in line
    fields = json.loads(line)
    assert (fields["role"], fields["level"], fields["worker"]) == ("api", "error", "w1")
    assert fields["message"] == "it broke\nbadly"
    assert "ValueError: no" in fields["traceback"]


def test_a_ready_line_is_sent_once_and_survives_a_supervisor_that_is_gone() -> None:
    reader, writer = os.pipe()
    line = ReadyLine(writer)
    line.send("http://x")
    line.send("http://y")
    with os.fdopen(reader) as pipe:
        assert pipe.read() == '{"address": "http://x"}\n'
    reader, writer = os.pipe()
    os.close(reader)
    ReadyLine(writer).send("http://x")
    ReadyLine(None).send("http://x")


def test_passwords_are_not_shown() -> None:
    assert shown_url("redis://user:p@ss@host:1/0") == "redis://***@host:1/0"
    assert shown_url("redis://host:1/0") == "redis://host:1/0"
    assert shown_url("memory") == "memory"


@pytest.mark.parametrize(
    ("address", "connectable"),
    [
        ("tcp://0.0.0.0:5", "tcp://127.0.0.1:5"),
        ("tcp://[::]:5", "tcp://[::1]:5"),
        ("tcp://10.0.0.0:5", "tcp://10.0.0.0:5"),
        ("", ""),
    ],
)
def test_workers_get_an_address_that_can_be_connected_to(address: str, connectable: str) -> None:
    assert _connectable(address) == connectable


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_the_end_is_written_over_the_keys_that_asked_for_it() -> None:
    """A terminal shows ^C at the start of the line; in a pipe nothing does."""
    person, pipe = Terminal(), io.StringIO()
    for stream in (person, pipe):
        Screen(Settings(), data="/data", needs_workers=False, stream=stream).draining()
    assert person.getvalue().startswith("\rdraining: ")
    assert pipe.getvalue().startswith("draining: ")


@pytest.mark.parametrize(
    ("ended", "total", "told"),
    [(7, 10, "7/10 3 running 2.0/s 1.5 s left"), (10, 10, "10/10 2.0/s"), (7, None, "7 4 running 2.0/s")],
)
def test_a_map_tells_of_no_more_running_than_are_left(ended: int, total: int | None, told: str) -> None:
    counts = Counts()
    counts.completed = ended
    counts.running = 4  # as the API said a moment ago
    counts.submitted = 4 if total is None else total - ended
    assert " ".join(facts(counts, total, 2.0)) == told


def test_the_screen_of_a_person_says_all_there_is_to_know() -> None:
    stream = Terminal()
    screen = Screen(Settings(mode="pull", workers=2), data="/data", needs_workers=True, stream=stream)
    screen.ready("http://127.0.0.1:8000", "tcp://127.0.0.1:5555")
    screen.draining()
    shown = stream.getvalue()
    for said in (
        "ready",
        "http://127.0.0.1:8000/docs",
        "pull, 2 workers of 4 slots",
        "join at tcp://127.0.0.1:5555",
        "/data",
        "Ctrl-C again: at once",
    ):
        assert said in shown
