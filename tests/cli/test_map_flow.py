"""What a map does when things come in another order than usual: against an API that is made up here."""

from __future__ import annotations

import itertools
import json
import pickle
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from everfaas_core.cli import map_flow
from everfaas_core.cli.interrupts import Interrupts
from everfaas_core.cli.map_flow import Flow
from everfaas_core.cli.map_journal import Journal, OutTrouble
from everfaas_core.client.errors import ApiRefused, ApiUnreachable, TaskVanished

FUNCTION = "00000000-0000-8000-8000-000000000001"


class MadeUp:
    """Tasks end as soon as they are submitted, unless `holds` says not to. What it was asked is in `batches`."""

    def __init__(self) -> None:
        self.tasks: dict[str, str] = {}  # key → task
        self.ended: list[dict[str, Any]] = []
        self.batches: list[list[dict[str, Any]]] = []
        self.cancelled: list[str] = []
        self.holds: Callable[[int], bool] = lambda number: False
        self.answered: Callable[[], None] = lambda: None  # called when a batch is stored, before it is answered
        self.troubles: list[Exception] = []  # raised by the next submits
        self.cut_after: int | None = None  # results, of the first stream
        self.unknown: set[str] = set()
        self.hidden: set[str] = set()  # ended, and the stream does not tell
        self.news = threading.Condition()
        self._numbers = itertools.count()

    def get(self, path: str, query: object = None) -> Any:
        return {"workers": [{"busy": 9, "slots": 2}]}

    def post(self, path: str, body: dict[str, Any]) -> Any:
        if path == "/v1/tasks:batch":
            return self._submit(body["tasks"])
        ids = body["task_ids"]
        if path == "/v1/tasks:cancel":
            self.cancelled += ids
            for task_id in ids:
                self.end(task_id, "CANCELLED")
            return {"tasks": [], "unknown": [], "expired": []}
        ended = {one["task_id"]: one for one in self.ended}
        unknown = [one for one in ids if one in self.unknown]
        return {"ended": [ended[one] for one in ids if one in ended], "unknown": unknown, "expired": []}

    def _submit(self, tasks: list[dict[str, Any]]) -> Any:
        if self.troubles:
            raise self.troubles.pop(0)
        self.batches.append(tasks)
        ids = []
        for task in tasks:
            known = self.tasks.get(task["idempotency_key"])
            ids.append(known or self._new(task))
        self.answered()
        return {"task_ids": ids}

    def _new(self, task: dict[str, Any]) -> str:
        task_id = self.tasks[task["idempotency_key"]] = f"task-{next(self._numbers)}"
        ((number,), _) = pickle.loads(task["payload"])
        if not self.holds(number):
            self.end(task_id, "COMPLETED", number * 2)
        return task_id

    def end(self, task_id: str, status: str, value: object = None) -> None:
        with self.news:
            cursor = str(len(self.ended) + 1)
            result = pickle.dumps(value)
            self.ended.append({"task_id": task_id, "status": status, "result": result, "cursor": cursor})
            self.news.notify_all()

    def stream(self, path: str, query: dict[str, Any]) -> Stream:
        cut, self.cut_after = self.cut_after, None
        return Stream(self, int(query["cursor"] or 0), cut)


class Stream:
    def __init__(self, api: MadeUp, at: int, cut: int | None) -> None:
        self.api = api
        self.at = at
        self.cut = cut
        self.closed = False

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def batches(self) -> Iterator[list[Any]]:
        count = 0
        while not self.closed:
            with self.api.news:
                self.api.news.wait_for(lambda: len(self.api.ended) > self.at or self.closed, 0.02)
                found = [one for one in self.api.ended[self.at :] if one["task_id"] not in self.api.hidden]
                self.at = len(self.api.ended)
            if self.cut is not None and count + len(found) > self.cut:
                yield found[: self.cut - count]
                raise ApiUnreachable("cut")
            count += len(found)
            yield found or [None]

    def close(self) -> None:
        with self.api.news:
            self.closed = True
            self.api.news.notify_all()


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(map_flow, "RETRY_S", 0.01)
    monkeypatch.setattr(map_flow, "SILENCE_S", 0.1)
    monkeypatch.setattr(map_flow, "BATCH_TASKS", 10)


class Run:
    """One run of a map over the numbers 0 … count - 1, and what came out."""

    def __init__(self, api: MadeUp, out: Path | None = None, *, resume: bool = True) -> None:
        self.lines: list[dict[str, Any]] = []
        self.journal = Journal(out, {"inputs": "x"}, resume=resume)
        self.flow = Flow(api, FUNCTION, {}, self.journal, self.lines.extend, Interrupts())  # type: ignore[arg-type]  # it has what is asked of it

    def __call__(self, count: int) -> Run:
        self.flow.run(((number,), {}) for number in range(count))
        self.journal.close()
        return self

    @property
    def values(self) -> dict[int, Any]:
        assert len({line["index"] for line in self.lines}) == len(self.lines)
        return {line["index"]: line["value"] for line in self.lines}


def doubled(*numbers: int) -> dict[int, int]:
    return {number: number * 2 for number in numbers}


def test_results_that_come_before_their_submit_is_answered() -> None:
    api = MadeUp()
    api.answered = lambda: time.sleep(0.1)  # the stream tells them meanwhile
    assert Run(api)(25).values == doubled(*range(25))


def test_a_stream_that_is_cut_is_gone_on_with_behind_the_last_result() -> None:
    api = MadeUp()
    api.cut_after = 7
    assert Run(api)(30).values == doubled(*range(30))


def test_results_that_the_stream_does_not_tell_are_asked_for() -> None:
    api = MadeUp()
    api.hidden = {"task-3"}
    assert Run(api)(5).values == doubled(*range(5))


def test_tasks_that_nobody_knows_are_told_and_submitted_again_by_the_next_run(tmp_path: Path) -> None:
    api = MadeUp()
    api.holds = lambda number: number == 3
    api.unknown = {"task-3"}
    first = Run(api, tmp_path / "out")
    with pytest.raises(TaskVanished, match="no record of 1 task"):
        first(5)
    api.holds = lambda number: False
    second = Run(api, tmp_path / "out")(5)
    assert {**first.values, **second.values} == doubled(*range(5))
    assert list(second.values) == [3]


def test_a_full_queue_and_an_api_that_is_away_are_waited_for() -> None:
    api = MadeUp()
    full = ApiRefused("full", status=429, reason="queue_full")
    api.troubles = [full, ApiUnreachable("away"), ApiRefused("store", status=503), full]
    assert Run(api)(5).values == doubled(*range(5))


def test_patience_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(map_flow, "PATIENCE_S", 0.05)
    api = MadeUp()
    api.troubles = [ApiUnreachable("away")] * 1000
    with pytest.raises(ApiUnreachable):
        Run(api)(5)


def test_a_refusal_is_final() -> None:
    api = MadeUp()
    api.troubles = [ApiRefused("no", status=409, reason="idempotency_conflict")]
    with pytest.raises(ApiRefused):
        Run(api)(5)


def test_no_more_than_the_window_is_under_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(map_flow, "WINDOW", 15)
    api = MadeUp()
    seen = []
    run = Run(api)
    api.answered = lambda: seen.append(len(api.tasks) - len(run.lines))
    assert run(200).values == doubled(*range(200))
    assert max(seen) <= 15 + 1  # what was being written down just then


def test_a_bad_input_in_the_middle_ends_the_map_with_its_error() -> None:
    def calls() -> Iterator[Any]:
        yield (1,), {}
        raise OutTrouble("bad")

    with pytest.raises(OutTrouble):
        Run(MadeUp()).flow.run(calls())


def test_stopping_cancels_what_is_left_and_the_next_run_gives_it_new_keys(tmp_path: Path) -> None:
    api = MadeUp()
    api.holds = lambda number: number % 2 == 1
    first = Run(api, tmp_path / "out")
    worker = threading.Timer(0.3, lambda: setattr(first.flow, "_trouble", KeyboardInterrupt()))
    worker.start()
    with pytest.raises(KeyboardInterrupt):
        first(20)
    first.flow.stop()
    first.journal.close()
    assert first.values == doubled(*range(0, 20, 2))
    assert first.flow.counts.cancelled == len(api.cancelled) == 10
    api.holds = lambda number: False
    second = Run(api, tmp_path / "out")(20)
    assert second.values == doubled(*range(1, 20, 2))
    keys = [task["idempotency_key"] for batch in api.batches for task in batch]
    assert len(set(keys)) == len(keys) == 30
    assert Run(api, tmp_path / "out")(20).values == {}


@pytest.mark.parametrize("cut", range(0, 400, 23))
def test_killed_between_any_two_bytes_the_next_run_ends_with_each_result_once(tmp_path: Path, cut: int) -> None:
    """Whatever a kill leaves of both files: here each loses an end of its own."""
    api = MadeUp()
    out, state = tmp_path / "out", tmp_path / "out.map"
    Run(api, out)(12)
    submitted = len(api.tasks)
    out.write_bytes(out.read_bytes()[: max(0, out.stat().st_size - 2 * cut)])
    lines = state.read_bytes()
    head = lines.index(b"\n") + 1
    state.write_bytes(lines[: max(head, len(lines) - cut)])
    Run(api, out)(12)
    found = sorted(json.loads(line)["index"] for line in out.read_text().splitlines())
    assert found == list(range(12))
    assert len(api.tasks) == submitted  # nothing ran twice


def test_two_kinds_of_interrupts() -> None:
    with Interrupts() as interrupts:
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        held = []

        def hold() -> None:
            with interrupts.held():
                signal.raise_signal(signal.SIGINT)
                held.append(True)

        with pytest.raises(KeyboardInterrupt):
            hold()
        assert held == [True]
