"""The history checker. It reads only what clients and functions saw, and knows nothing of how the system works.

A history is a folder: `client.jsonl` (what the clients sent and saw, see `client.py`), `functions.jsonl` (see
`functions.py`) and `driver.jsonl` (which processes the chaos driver had stopped, and when). All instants are monotonic
seconds of one machine.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

TERMINAL: Final = ("COMPLETED", "FAILED", "CANCELLED")
RANK: Final = {"QUEUED": 0, "RUNNING": 1} | dict.fromkeys(TERMINAL, 2)
CALL_S_MAX: Final = 2.0  # what a call may take beyond the time that it asked to wait
CALL_SLACK_S: Final = 1.0  # the measuring client shares two cores with all that it measures
FROZEN_S_MIN: Final = 1.0
THAW_S_MAX: Final = 1.0
"""A process stopped by SIGSTOP can't be killed by anybody who is stopped with it, on another machine by nobody at all.
Its task is given to others meanwhile; once it is continued it has this long to be gone. That is counted, not blamed."""

Event = dict[str, Any]


@dataclass
class History:
    """What was seen, each in the order of its writing."""

    client: list[Event] = field(default_factory=list)
    functions: list[Event] = field(default_factory=list)
    driver: list[Event] = field(default_factory=list)

    @classmethod
    def read(cls, folder: Path) -> History:
        """Read a folder. A last line that was cut off by a kill is left out."""
        return cls(*(list(_lines(folder / f"{name}.jsonl")) for name in ("client", "functions", "driver")))


def _lines(path: Path) -> Iterator[Event]:
    if not path.exists():
        return
    for line in path.read_text().splitlines():
        try:
            yield json.loads(line)
        except json.JSONDecodeError:
            continue  # its writer was killed within the write


@dataclass
class Verdict:
    """What is wrong, and how much there was."""

    violations: list[str] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)

    def __str__(self) -> str:
        counts = ", ".join(f"{name} {count}" for name, count in sorted(self.counts.items()))
        shown = "\n".join(f"  VIOLATION {one}" for one in self.violations[:50])
        return f"{counts}\nviolations: {len(self.violations)}" + (f"\n{shown}" if shown else "")


@dataclass
class Story:
    """Everything about one task number."""

    number: int
    submitted: Event | None = None
    ids: list[str] = field(default_factory=list)
    seen: list[Event] = field(default_factory=list)  # statuses and results, in the order of the answers
    runs: list[Event] = field(default_factory=list)  # begin, end, overlap

    @property
    def begun(self) -> list[Event]:
        return [run for run in self.runs if run["do"] == "begin"]

    @property
    def ended(self) -> set[str]:
        return {run["execution"] for run in self.runs if run["do"] == "end"}

    @property
    def outcomes(self) -> list[Event]:
        return [one for one in self.seen if one["status"] in TERMINAL]


def stories(history: History) -> dict[int, Story]:
    """Sort a history by task number."""
    found: dict[int, Story] = {}
    numbers: dict[str, int] = {}

    def story(number: int) -> Story:
        return found.setdefault(number, Story(number))

    for event in history.client:
        match event["saw"]:
            case "submitting":
                story(event["number"]).submitted = event
            case "accepted":
                one = story(event["number"])
                if event["task_id"] not in one.ids:
                    one.ids.append(event["task_id"])
                numbers[event["task_id"]] = event["number"]
    for event in history.client:
        if event["saw"] == "status" and event["task_id"] in numbers:
            story(numbers[event["task_id"]]).seen.append(event)
    for event in history.functions:
        story(event["number"]).runs.append(event)
    return found


def check(history: History) -> Verdict:
    """Return everything in a history that must not be."""
    verdict = Verdict()
    found = stories(history)
    frozen = Freezes(history.driver)
    for number in sorted(found):
        one = found[number]
        _count(verdict, one)
        for rule in (_ended_once, _never_backwards, _right_answer, _no_stale_result, _nothing_after_the_end):
            verdict.violations += [f"task {number}: {text}" for text in rule(one)]
        for text in _never_overlapped(one, frozen, verdict):
            verdict.violations.append(f"task {number}: {text}")
    verdict.violations += _never_hung(history, frozen)
    return verdict


def _count(verdict: Verdict, one: Story) -> None:
    verdict.counts["accepted"] += bool(one.ids)
    verdict.counts["executions"] += len(one.begun)
    verdict.counts["executed more than once"] += len(one.begun) > 1
    if one.outcomes:
        verdict.counts[f"ended {one.outcomes[-1]['status']}"] += 1
        verdict.counts["dead letters"] += _is_system_failure(one.outcomes[-1])


# ── the rules ────────────────────────────────────────────────────────────────────────────────────────────────────────


def _ended_once(one: Story) -> Iterable[str]:
    if len(one.ids) > 1:
        yield f"one idempotency key was given {len(one.ids)} tasks: {one.ids}"
    if not one.ids:
        return
    if not one.outcomes:
        yield f"lost: accepted as {one.ids[0]} and never ended (last seen: {_last(one)})"
        return
    for status in {event["status"] for event in one.outcomes} - {one.outcomes[0]["status"]}:
        yield f"two outcomes: {one.outcomes[0]['status']} and {status}"
    if len({event["digest"] for event in one.outcomes if event.get("digest")}) > 1:
        yield "its result was not the same bytes every time"


def _last(one: Story) -> str:
    return str(one.seen[-1]["status"]) if one.seen else "nothing"


def _never_backwards(one: Story) -> Iterable[str]:
    """A later call must not see less than an earlier one: calls that overlap in time may."""
    by_answer = sorted(one.seen, key=lambda event: event["at"])
    best: Event | None = None
    for event in sorted(one.seen, key=lambda event: event["asked"]):
        while by_answer and by_answer[0]["at"] <= event["asked"]:
            earlier = by_answer.pop(0)
            if best is None or RANK[earlier["status"]] > RANK[best["status"]]:
                best = earlier
        if best is not None and RANK[event["status"]] < RANK[best["status"]]:
            yield f"its status went back from {best['status']} to {event['status']}"
            return


def _right_answer(one: Story) -> Iterable[str]:
    if one.submitted is None:
        if one.runs:
            yield "was executed, and nobody submitted it"
        return
    expected = one.submitted["expected"]
    for event in one.outcomes:
        if "value" not in event:
            continue  # the status only
        value, raises = event["value"], one.submitted["kind"] == "raise"
        if _is_system_failure(event):
            if not event.get("exhausted"):
                yield f"ended with {value!r}, though its attempts were not used up"
        elif raises and (event["status"], str(value).split()[:3]) != (
            "FAILED",
            ["ValueError:", expected, str(one.number)],
        ):
            yield f"{event['status']} with {value!r} instead of its own exception"
        elif not raises and (event["status"] != "COMPLETED" or value != [one.number, execution_of(event), expected]):
            yield f"{event['status']} with {value!r} instead of {expected!r}"


def _is_system_failure(event: Event) -> bool:
    return isinstance(event.get("value"), str) and event["value"].startswith("WorkerFailure")


def execution_of(event: Event) -> str | None:
    """Return the execution that an outcome's result came from, if the result tells."""
    value = event.get("value")
    if isinstance(value, list):
        return str(value[1])
    if isinstance(value, str) and value.startswith("ValueError: raised "):
        return value.split()[3]
    return None


def _no_stale_result(one: Story) -> Iterable[str]:
    last = one.begun[-1]["execution"] if one.begun else None
    for execution in {execution_of(event) for event in one.outcomes} - {None}:
        if execution not in {run["execution"] for run in one.begun}:
            yield f"its result is of execution {execution}, which never began"
        elif execution not in one.ended:
            yield f"its result is of execution {execution}, which never ended"
        elif execution != last:
            yield f"its result is of execution {execution}, but {last} began after that one"


def _nothing_after_the_end(one: Story) -> Iterable[str]:
    if not one.outcomes:
        return
    first = min(event["at"] for event in one.outcomes)
    for run in one.begun:
        if run["at"] > first:
            yield f"execution {run['execution']} began {run['at'] - first:.3f} s after a client had seen the end"


def _never_overlapped(one: Story, frozen: Freezes, verdict: Verdict) -> Iterable[str]:
    for run in one.runs:
        if run["do"] != "overlap":
            continue
        if frozen.excuse(run["other_pid"], run["at"]):
            verdict.counts["overlapped with a frozen one"] += 1
        else:
            yield f"execution {run['execution']} began while process {run['other_pid']} was still running the task"


def _never_hung(history: History, frozen: Freezes) -> Iterable[str]:
    for event in history.client:
        if event["saw"] != "call":
            continue
        took_s = event["at"] - event["asked"] - frozen.api_s(event["asked"], event["at"])
        if took_s > event["wait_s"] + CALL_S_MAX + CALL_SLACK_S:
            asked = f"asked to wait {event['wait_s']:g} s; answer: {event['answer']}"
            yield f"{event['call']} took {took_s:.1f} s ({asked})"


class Freezes:
    """When the driver had which processes stopped: events {do: freeze|thaw, at, pids, role}."""

    def __init__(self, driver: Iterable[Event]) -> None:
        self._spans: dict[int, list[tuple[float, float]]] = defaultdict(list)
        self._api: list[tuple[float, float]] = []
        since: dict[int, float] = {}
        for event in driver:
            if event.get("do") not in ("freeze", "thaw"):
                continue
            for pid in event["pids"]:
                if event["do"] == "freeze":
                    since[pid] = event["at"]
                elif pid in since:
                    self._spans[pid].append((since.pop(pid), event["at"]))
            if event["do"] == "thaw" and event.get("role") == "api":
                self._api += [self._spans[pid][-1] for pid in event["pids"] if self._spans[pid]]
        for pid, at in since.items():
            self._spans[pid].append((at, float("inf")))

    def excuse(self, pid: int, at: float) -> bool:
        """Tell whether a process was stopped for long at `at`, or had been until just before."""
        return any(
            start + FROZEN_S_MIN <= at <= end + THAW_S_MAX and end - start >= FROZEN_S_MIN
            for start, end in self._spans.get(pid, ())
        )

    def api_s(self, start: float, end: float) -> float:
        """Return for how long an API process was stopped between two instants: nobody could have answered."""
        return sum(max(0.0, min(end, thawed) - max(start, froze)) for froze, thawed in self._api)
