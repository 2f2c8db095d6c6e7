"""The log of a task: plain, followed, resumable, and progress in the record."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
import requests

from everfaas_core.api import ApiSettings
from everfaas_core.model.errors import StoreUnavailable
from everfaas_core.model.ids import TaskId
from everfaas_core.model.output import LogPage, Printed, Progressed, Stream
from everfaas_core.model.records import Turn
from everfaas_core.ports import Store
from tests.api.driving import UNKNOWN_ID, Served, TinyDispatcher, assert_error, assert_fits, eventually, issued_id
from tests.api.streaming import read_msgpack

OUT, ERR = Stream.STDOUT, Stream.STDERR


class Talker:
    """A task that runs, and prints what the test wants."""

    def __init__(self, api: Served, dispatcher: TinyDispatcher) -> None:
        self.id = api.execute(api.register())
        self._dispatcher = dispatcher
        (self._claimed,) = dispatcher.claim(1)
        self._attempt = self._claimed.attempt + 1
        dispatcher.start(self._claimed)
        self._end = 0

    def say(self, text: bytes, stream: Stream = OUT) -> None:
        piece = Printed(TaskId(self.id), self._attempt, stream, self._end, text)
        self._end = piece.end
        self._exchange(printed=(piece,))

    def skip(self, count: int) -> None:
        """Lose what was printed."""
        self._end += count

    def progress(self, *what: Any) -> None:
        self._exchange(progress=(Progressed(TaskId(self.id), self._attempt, *what),))

    def end(self, **outcome: Any) -> None:
        self._dispatcher.finish(self._claimed, **outcome)

    def _exchange(self, **parts: Any) -> None:
        self._dispatcher.store.exchange(Turn(dispatcher_id=self._dispatcher.id, **parts))


@pytest.fixture
def talker(api: Served, dispatcher: TinyDispatcher) -> Talker:
    return Talker(api, dispatcher)


class Log:
    """A log as lines of JSON."""

    def __init__(self, api: Served, task_id: str, **query: Any) -> None:
        self.response = requests.get(f"{api.url}/v1/tasks/{task_id}/logs", query, stream=True, timeout=30)
        assert self.response.status_code == 200, self.response.text
        assert self.response.headers["Content-Type"] == "application/x-ndjson"
        self.blanks = 0
        self.last: dict[str, Any] | None = None
        self._lines = self.response.iter_lines(chunk_size=65536)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for line in self._lines:
            if not line:
                self.blanks += 1
                continue
            entry = json.loads(line)
            assert_fits("LogLine", entry)
            if "end" in entry:
                self.last = entry
                assert not list(self._lines), "it is the last one"
                return
            yield entry

    def texts(self, count: int | None = None) -> list[str]:
        found: list[str] = []
        for entry in self:
            found.append(entry["text"])
            if len(found) == count:
                break
        return found


def test_a_log_is_read_as_it_is(api: Served, talker: Talker) -> None:
    talker.say("hällo\n".encode())
    talker.say(b"no text: \xff\xe2\x82", ERR)
    answer = api.get(f"/v1/tasks/{talker.id}/logs")
    assert "Content-Length" in answer.headers
    first, second, last = map(json.loads, answer.text.splitlines())
    assert (first["stream"], first["text"], first["attempt"]) == ("stdout", "hällo\n", 1)
    assert (second["stream"], second["text"]) == ("stderr", "no text: \ufffd\ufffd")
    assert last == {"end": "time", "status": "RUNNING", "cursor": second["cursor"]}
    talker.end()
    log = Log(api, talker.id, cursor=first["cursor"])
    assert log.texts() == ["no text: \ufffd\ufffd"]
    assert log.last == {"end": "done", "status": "COMPLETED", "cursor": second["cursor"]}
    assert Log(api, talker.id, cursor=second["cursor"]).texts() == []


def test_a_task_that_has_printed_nothing_has_an_empty_log(api: Served, dispatcher: TinyDispatcher) -> None:
    queued = api.execute(api.register())
    log = Log(api, queued)
    assert log.texts() == []
    assert log.last == {"end": "time", "status": "QUEUED", "cursor": "0-0"}
    dispatcher.run()
    assert Log(api, queued, follow=1).texts() == []


@pytest.mark.parametrize("follow", ["1", "true"])
def test_a_follower_hears_it_as_it_is_printed(api: Served, talker: Talker, follow: str) -> None:
    talker.say(b"before\n")
    log = Log(api, talker.id, follow=follow)
    assert log.texts(1) == ["before\n"]
    for n in range(3):
        began = time.monotonic()
        talker.say(b"%d\n" % n)
        assert log.texts(1) == [f"{n}\n"]
        assert time.monotonic() - began < 4  # beneath the slow re-read, so it was the wake-up
    talker.say(b"last words")
    talker.end()
    assert log.texts() == ["last words"]
    assert log.last is not None
    assert (log.last["end"], log.last["status"]) == ("done", "COMPLETED")


def test_a_follower_of_a_task_that_waits_hears_its_end(api: Served, dispatcher: TinyDispatcher) -> None:
    queued = api.execute(api.register())
    log = Log(api, queued, follow=1)
    assert api.post(f"/v1/tasks/{queued}/cancel", {}).status_code == 200
    began = time.monotonic()
    assert log.texts() == []
    assert time.monotonic() - began < 4
    assert log.last is not None
    assert (log.last["end"], log.last["status"]) == ("done", "CANCELLED")


def test_what_is_printed_while_a_page_is_read_is_not_missed(
    store: Store, dispatcher: TinyDispatcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Served(store, ApiSettings(threads=8, reread_s=60, heartbeat_s=60)) as api:
        talker = Talker(api, dispatcher)
        real, first = store.task_log, threading.Event()

        def late(*args: Any, **kwargs: Any) -> LogPage | None:
            found = real(*args, **kwargs)
            if not first.is_set():
                first.set()
                talker.say(b"in between")
                talker.end()
                time.sleep(0.2)
            return found

        monkeypatch.setattr(store, "task_log", late, raising=False)
        began = time.monotonic()
        assert Log(api, talker.id, follow=1).texts() == ["in between"]
        assert time.monotonic() - began < 4


def test_it_ends_when_its_time_is_over(api: Served, talker: Talker) -> None:
    talker.say(b"x")
    log = Log(api, talker.id, follow=1, wait_s=0.2)
    assert log.texts() == ["x"]
    assert log.last == {"end": "time", "status": "RUNNING", "cursor": "1-1"}


def test_it_says_that_it_lives(store: Store, dispatcher: TinyDispatcher) -> None:
    with Served(store, ApiSettings(threads=8, heartbeat_s=0.05)) as api:
        log = Log(api, Talker(api, dispatcher).id, follow=1, wait_s=1.0)
        assert log.texts() == []
        assert log.blanks >= 3


def test_what_is_missing_is_told(api: Served, talker: Talker) -> None:
    talker.skip(500)
    talker.say(b"x")
    talker.say(b"y")
    talker.skip(7)
    talker.say(b"z")
    first, second, third = Log(api, talker.id)
    assert (first["left_out_bytes"], "left_out_bytes" in second, third["left_out_bytes"]) == (500, False, 7)
    (third,) = Log(api, talker.id, cursor=second["cursor"])
    assert third["left_out_bytes"] == 7


def test_a_long_log_comes_whole(api: Served, talker: Talker) -> None:
    for n in range(15):
        talker.say(b"%05d\n" % n * 10_000)
    talker.end()
    for query in ({}, {"follow": 1}):
        assert "".join(Log(api, talker.id, **query).texts()) == "".join(f"{n:05d}\n" * 10_000 for n in range(15))


def test_one_attempt_can_be_asked_for(api: Served, dispatcher: TinyDispatcher, store: Store) -> None:
    talker = Talker(api, dispatcher)
    talker.say(b"x")
    assert Log(api, talker.id, attempt=1).texts() == ["x"]
    assert Log(api, talker.id, attempt=2).texts() == []
    log = Log(api, talker.id, attempt=2, follow=1, wait_s=30)
    talker.end()
    assert log.texts() == []
    assert log.last is not None
    assert log.last["end"] == "done"


def test_machines_get_msgpack(api: Served, talker: Talker) -> None:
    talker.say(b"x\n")
    talker.end()
    answer = api.get(f"/v1/tasks/{talker.id}/logs?follow=1", headers={"Accept": "application/msgpack"})
    assert answer.headers["Content-Type"] == "application/msgpack"
    piece, last = read_msgpack(answer)
    assert (piece["text"], last["end"]) == ("x\n", "done")


@pytest.mark.parametrize(
    "query",
    [
        "cursor=x",
        "cursor=1",
        "cursor=-",
        "follow=2",
        "follow=",
        "wait_s=x",
        "wait_s=-1",
        "attempt=0",
        "attempt=x",
        "a=b",
    ],
)
def test_a_query_that_makes_no_sense_is_refused(api: Served, talker: Talker, query: str) -> None:
    assert_error(api.get(f"/v1/tasks/{talker.id}/logs?{query}"), 422, "invalid_request")


def test_unknown_and_expired_tasks(api: Served, store: Store) -> None:
    for query in ("", "?follow=1"):
        assert_error(api.get(f"/v1/tasks/{UNKNOWN_ID}/logs{query}"), 404, "unknown_task")
        assert_error(api.get(f"/v1/tasks/nonsense/logs{query}"), 404, "unknown_task")
        assert_error(api.get(f"/v1/tasks/{issued_id(store)}/logs{query}"), 410, "task_expired")


def test_places_for_streams_are_bounded_and_given_back(store: Store, dispatcher: TinyDispatcher) -> None:
    with Served(store, ApiSettings(threads=8, streams_max=1, heartbeat_s=0.05)) as api:
        talker = Talker(api, dispatcher)
        log = Log(api, talker.id, follow=1)
        assert_error(api.get(f"/v1/tasks/{talker.id}/logs?follow=1"), 429, "too_many_waiters")
        assert Log(api, talker.id).texts() == []  # without waiting there is always room
        log.response.close()  # a client that has left is noticed, and its place is free
        eventually(lambda: api.get(f"/v1/tasks/{talker.id}/logs?follow=1&wait_s=0.01").status_code == 200)
        assert api.http.head(f"{api.url}/v1/tasks/{talker.id}/logs?follow=1", timeout=30).status_code == 200
        assert Log(api, talker.id, follow=1, wait_s=0.01).texts() == []


def test_a_server_that_drains_ends_it(store: Store, dispatcher: TinyDispatcher) -> None:
    with Served(store, ApiSettings(threads=8)) as api:
        log = Log(api, Talker(api, dispatcher).id, follow=1)
        api.stop.request()
        assert log.texts() == []
        assert log.last is not None
        assert log.last["end"] == "drain"


def test_a_store_that_goes_away_ends_nobodys_log(
    store: Store, dispatcher: TinyDispatcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Served(store, ApiSettings(threads=8, reread_s=0.05)) as api:
        talker = Talker(api, dispatcher)
        log = Log(api, talker.id, follow=1)
        away = threading.Event()
        real = store.task_log

        def flaky(*args: Any, **kwargs: Any) -> LogPage | None:
            if away.is_set():
                raise StoreUnavailable("away", hint="wait")
            return real(*args, **kwargs)

        monkeypatch.setattr(store, "task_log", flaky, raising=False)
        away.set()
        talker.say(b"meanwhile")
        assert_error(api.get(f"/v1/tasks/{talker.id}/logs"), 503, "store_unavailable")
        time.sleep(0.2)
        away.clear()
        assert log.texts(1) == ["meanwhile"]


def test_a_log_that_fails_says_so(store: Store, dispatcher: TinyDispatcher, monkeypatch: pytest.MonkeyPatch) -> None:
    with Served(store, ApiSettings(threads=8)) as api:
        talker = Talker(api, dispatcher)
        log = Log(api, talker.id, follow=1)
        monkeypatch.setattr(store, "task_log", lambda *args, **kwargs: 1 / 0, raising=False)
        talker.say(b"x")
        assert log.texts() == []
        assert log.last is not None
        assert log.last["end"] == "error"


def test_progress_is_in_the_record(api: Served, dispatcher: TinyDispatcher) -> None:
    talker = Talker(api, dispatcher)

    def progress() -> Any:
        record = api.get(f"/v1/tasks/{talker.id}").json()
        assert_fits("TaskAnswer", record)
        return record["progress"]

    assert progress() is None
    talker.progress(1, 4, "a quarter")
    assert {**progress(), "at_ms": 0} == {"done": 1, "total": 4, "message": "a quarter", "at_ms": 0}
    talker.progress(2.5)
    talker.end()
    assert {**progress(), "at_ms": 0} == {"done": 2.5, "total": None, "message": "", "at_ms": 0}


def test_a_task_that_prints_wakes_nobody_who_waits_for_its_end(api: Served, dispatcher: TinyDispatcher) -> None:
    talker = Talker(api, dispatcher)
    answers: list[requests.Response] = []
    thread = threading.Thread(target=lambda: answers.append(api.get(f"/result/{talker.id}?wait=30")))
    thread.start()
    for n in range(20):
        talker.say(b"%d\n" % n)
        time.sleep(0.01)
    assert thread.is_alive()
    talker.end()
    thread.join(10)
    assert answers[0].json()["status"] == "COMPLETED"
