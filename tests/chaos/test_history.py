"""The checker catches each thing that must not be, and blames nothing that may."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from . import functions
from .history import Event, History, check

ID = "00000000-0000-0000-0000-00000000000"


def submitted(number: int, at: float = 0.0, kind: str = "no-op", expected: object = 0) -> list[Event]:
    return [
        {"saw": "submitting", "at": at, "number": number, "kind": kind, "expected": expected},
        {"saw": "accepted", "at": at + 0.01, "number": number, "task_id": f"{ID}{number}"},
    ]


def saw(number: int, at: float, status: str, value: Any = None, **more: Any) -> Event:
    if value is not None:
        more |= {"value": value, "digest": more.get("digest", str(value))}
    return {"saw": "status", "asked": at - 0.01, "at": at, "task_id": f"{ID}{number}", "status": status, **more}


def ran(number: int, execution: str, began: float, ended: float | None, pid: int = 100) -> list[Event]:
    events: list[Event] = [{"do": "begin", "at": began, "pid": pid, "number": number, "execution": execution}]
    if ended is not None:
        events.append({"do": "end", "at": ended, "pid": pid, "number": number, "execution": execution})
    return events


def good() -> History:
    """One plain task; one that lost an execution; one that raised; one that was dead-lettered; one never accepted."""
    return History(
        client=[
            *submitted(1),
            saw(1, 0.5, "QUEUED"),
            saw(1, 1.5, "RUNNING"),
            saw(1, 3.0, "COMPLETED", [1, "a", 0]),
            saw(1, 9.0, "COMPLETED", [1, "a", 0]),
            *submitted(2),
            saw(2, 6.0, "COMPLETED", [2, "c", 0]),
            *submitted(3, kind="raise", expected="raised"),
            saw(3, 3.0, "FAILED", "ValueError: raised 3 d"),
            *submitted(4),
            saw(4, 8.0, "FAILED", "WorkerFailure: the slot died", exhausted=True),
            {"saw": "submitting", "at": 0.0, "number": 5, "kind": "no-op", "expected": 0},
            {"saw": "call", "call": "wait", "asked": 1.0, "at": 4.5, "wait_s": 2.0, "answer": "200"},
        ],
        functions=[
            *ran(1, "a", 1.0, 2.0),
            *ran(2, "b", 1.0, None),
            *ran(2, "c", 4.0, 5.0),
            *ran(3, "d", 1.0, 2.0),
            *ran(4, "e", 1.0, None),
        ],
    )


def violations(history: History) -> str:
    return "\n".join(check(history).violations)


def test_a_good_history_has_no_violation() -> None:
    verdict = check(good())
    assert verdict.violations == []
    assert verdict.counts["accepted"] == 4
    assert verdict.counts["executions"] == 5
    assert verdict.counts["executed more than once"] == 1
    assert verdict.counts["dead letters"] == 1


def test_a_lost_task_is_caught() -> None:
    history = good()
    history.client = [one for one in history.client if one.get("status") != "COMPLETED" or one["task_id"] != f"{ID}2"]
    assert "task 2: lost" in violations(history)


@pytest.mark.parametrize(
    ("late", "complaint"),
    [
        (saw(1, 10.0, "FAILED", "WorkerFailure: lost", exhausted=True), "two outcomes: COMPLETED and FAILED"),
        (saw(1, 10.0, "COMPLETED", [1, "a", 0], digest="others"), "not the same bytes"),
        (saw(1, 10.0, "RUNNING"), "went back from COMPLETED to RUNNING"),
        (saw(1, 2.5, "QUEUED"), "went back from RUNNING to QUEUED"),
        (saw(1, 10.0, "COMPLETED", [1, "a", 7]), "instead of 0"),
        (saw(1, 10.0, "COMPLETED", [2, "a", 0]), "instead of 0"),
        (saw(1, 10.0, "COMPLETED", [1, "z", 0]), "which never began"),
        (saw(2, 10.0, "COMPLETED", [2, "b", 0]), "which never ended"),
        (saw(3, 10.0, "COMPLETED", [3, "d", 0]), "instead of its own exception"),
        (saw(3, 10.0, "FAILED", "ValueError: raised 4 d"), "instead of its own exception"),
        (saw(1, 10.0, "FAILED", "WorkerFailure: worker lost"), "attempts were not used up"),
        ({**submitted(1)[1], "task_id": ID + "9"}, "one idempotency key was given 2 tasks"),
    ],
)
def test_a_client_that_sees_wrong_things_is_heard(late: Event, complaint: str) -> None:
    history = good()
    history.client.append(late)
    assert complaint in violations(history)


@pytest.mark.parametrize(
    ("runs", "complaint"),
    [
        (ran(1, "late", 3.5, 3.6), "after a client had seen the end"),
        (ran(1, "stale", 1.5, 2.5), "but stale began after that one"),
        (ran(8, "x", 1.0, 2.0), "nobody submitted it"),
        (
            [
                {
                    "do": "overlap",
                    "at": 1.5,
                    "pid": 7,
                    "number": 1,
                    "execution": "o",
                    "other_pid": 100,
                    "other_state": "S",
                }
            ],
            "while process 100 was still running",
        ),
    ],
)
def test_a_function_that_should_not_run_is_seen(runs: list[Event], complaint: str) -> None:
    history = good()
    history.functions += runs
    assert complaint in violations(history)


def test_answers_of_calls_that_overlap_may_cross() -> None:
    history = good()
    history.client.append(saw(1, 3.2, "RUNNING") | {"asked": 1.0})  # asked before the end was seen
    assert violations(history) == ""


def test_a_call_that_hangs_is_caught_unless_the_api_was_stopped() -> None:
    history = good()
    history.client.append({"saw": "call", "call": "status", "asked": 1.0, "at": 5.0, "wait_s": 0.0, "answer": "200"})
    assert "status took 4.0 s" in violations(history)
    history.driver = [
        {"do": "freeze", "at": 1.0, "pids": [9], "role": "api"},
        {"do": "thaw", "at": 4.0, "pids": [9], "role": "api"},
    ]
    assert violations(history) == ""


@pytest.mark.parametrize(("at", "blamed"), [(3.0, False), (5.5, False), (7.0, True), (1.2, True)])
def test_only_a_frozen_process_may_be_overlapped(at: float, blamed: bool) -> None:
    history = good()
    fields = {"do": "overlap", "pid": 7, "number": 2, "execution": "c", "other_pid": 100, "other_state": "T"}
    history.functions.append({"at": at, **fields})
    history.driver = [
        {"do": "freeze", "at": 1.0, "pids": [100], "role": "worker"},
        {"do": "thaw", "at": 5.0, "pids": [100], "role": "worker"},
    ]
    assert ("still running" in violations(history)) == blamed
    assert check(history).counts["overlapped with a frozen one"] == (not blamed)


def test_reads_a_folder_and_leaves_out_a_line_that_was_cut(tmp_path: Path) -> None:
    (tmp_path / "client.jsonl").write_text("".join(json.dumps(one) + "\n" for one in good().client))
    (tmp_path / "functions.jsonl").write_text(
        "".join(json.dumps(one) + "\n" for one in good().functions) + '{"do": "be'
    )
    assert check(History.read(tmp_path)).violations == []


# ── the journal that functions write ─────────────────────────────────────────────────────────────────────────────────


def test_an_overlap_of_real_processes_is_seen_and_a_death_ends_it(tmp_path: Path) -> None:
    functions.prepare(tmp_path)
    context = multiprocessing.get_context("spawn")
    first = context.Process(target=functions.work, args=(str(tmp_path), 1, "sleep", 60.0))
    first.start()
    until = time.monotonic() + 20
    while not History.read(tmp_path).functions:
        assert time.monotonic() < until
        time.sleep(0.02)
    functions.work(str(tmp_path), 1, "no-op", 0)
    assert first.pid is not None
    os.kill(first.pid, signal.SIGKILL)
    first.join()
    number, execution, answer = functions.work(str(tmp_path), 1, "no-op", 0)
    assert (number, answer) == (1, functions.answer_to("no-op", 0))
    events = History.read(tmp_path).functions
    assert [event["do"] for event in events] == ["begin", "overlap", "begin", "end", "begin", "end"]
    assert events[1]["other_pid"] == first.pid
    assert events[-1]["execution"] == execution


def test_functions_answer_as_expected(tmp_path: Path) -> None:
    functions.prepare(tmp_path)
    assert functions.work(str(tmp_path), 1, "cpu", 1000)[2] == functions.answer_to("cpu", 1000) == 332833500
    assert functions.work(str(tmp_path), 2, "sleep", 0.01)[2] == functions.answer_to("sleep", 0.01)
    with pytest.raises(ValueError, match=r"^raised 3 [0-9a-f]{16}$"):
        functions.work(str(tmp_path), 3, "raise", 0)
    assert [event["do"] for event in History.read(tmp_path).functions] == ["begin", "end"] * 3
