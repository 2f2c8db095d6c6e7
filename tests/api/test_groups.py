"""The stream of a group's results: in order, each once, and resumable, for any number of readers."""

from __future__ import annotations

import codecs
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import requests

from everfaas_core.api import ApiSettings
from everfaas_core.model.ids import TaskId
from everfaas_core.model.records import GroupPage
from everfaas_core.model.states import Cause, Status
from everfaas_core.ports import Store
from everfaas_core.testing.servers import embedded_store
from everfaas_plugins.redis.store import RedisStore
from tests.api.driving import Served, TinyDispatcher, assert_error, eventually
from tests.api.streaming import GROUP, Stream, read_msgpack, submit

URL = "/v1/groups/sweep%201/results"


def test_results_come_in_the_order_in_which_they_end(api: Served, dispatcher: TinyDispatcher) -> None:
    one, two, three = submit(api, 3)
    claimed = {str(task.task_id): task for task in dispatcher.claim(3)}
    dispatcher.start(*claimed.values())
    stream = Stream(api, until="done")
    dispatcher.finish(claimed[two], result=b"second")
    first = next(iter(stream))
    assert (first["task_id"], first["status"], first["result"]) == (two, "COMPLETED", "c2Vjb25k\n")
    dispatcher.finish(claimed[three], status=Status.FAILED, cause=Cause.RAISED)
    dispatcher.finish(claimed[one])
    assert [(entry["task_id"], entry["status"]) for entry in stream] == [(three, "FAILED"), (one, "COMPLETED")]
    assert stream.last == {"end": "done", "tasks": 3, "pending": 0, "cursor": stream.cursor}
    late = Stream(api, until="done")
    assert late.ids() == [two, three, one]


def test_tags_come_along(api: Served, dispatcher: TinyDispatcher) -> None:
    (plain,) = submit(api, 1)
    (tagged,) = submit(api, 1, tags=["a", "map:7"])
    dispatcher.run(2)
    found = {entry["task_id"]: entry.get("tags") for entry in Stream(api, until="done")}
    assert found == {plain: None, tagged: ["a", "map:7"]}


def test_a_stream_that_was_cut_goes_on_with_its_cursor(api: Served, dispatcher: TinyDispatcher) -> None:
    ids = submit(api, 1300)
    got: list[str] = []
    cursor: dict[str, Any] = {}
    for part in (dispatcher.run(700), dispatcher.run(600)):
        for count in (57, 301):
            stream = Stream(api, **cursor)
            got += stream.ids(count)
            cursor = {"cursor": stream.cursor}
            stream.close()
        assert set(got) <= set(ids)
        del part
    got += Stream(api, until="done", **cursor).ids()
    assert len(got) == 1300
    assert set(got) == set(ids)


def test_a_stream_ends_when_its_time_is_over_and_says_what_is_left(api: Served, dispatcher: TinyDispatcher) -> None:
    ids = submit(api, 2)
    dispatcher.run(1)
    began = time.monotonic()
    stream = Stream(api, wait_s=0.3)
    assert stream.ids() == ids[:1]
    assert stream.last == {"end": "time", "tasks": 2, "pending": 1, "cursor": stream.cursor}
    assert 0.25 < time.monotonic() - began < 10
    assert Stream(api, wait_s=0, cursor=stream.cursor).ids() == []


def test_until_done_waits_for_what_is_pending_and_no_longer(api: Served, dispatcher: TinyDispatcher) -> None:
    ids = submit(api, 2)
    dispatcher.run(1)
    stream = Stream(api, until="done")
    assert stream.ids(1) == ids[:1]
    cancelled = api.post(f"/v1/tasks/{ids[1]}/cancel", {})
    assert cancelled.json()["status"] == "CANCELLED"
    ended = time.monotonic()
    assert stream.ids() == ids[1:]
    assert stream.last is not None
    assert stream.last["end"] == "done"
    assert time.monotonic() - ended < 4  # beneath the slow re-read, so it was the wake-up


def test_what_ends_while_a_page_is_read_is_not_missed(
    store: Store, dispatcher: TinyDispatcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The read says that nothing has ended, the task ends, and only then does the stream begin to wait."""
    with Served(store, ApiSettings(threads=8, reread_s=60, heartbeat_s=60)) as api:
        ids = submit(api, 1)
        real, first = store.group_results, threading.Event()

        def late(*args: object, **kwargs: object) -> GroupPage:
            found = real(*args, **kwargs)  # type: ignore[arg-type]  # as they came
            if not first.is_set():
                first.set()
                dispatcher.run()
                time.sleep(0.2)
            return found

        monkeypatch.setattr(store, "group_results", late, raising=False)
        began = time.monotonic()
        assert Stream(api, until="done").ids() == ids
        assert time.monotonic() - began < 4


def test_a_group_that_nobody_has_named_is_empty(api: Served, dispatcher: TinyDispatcher) -> None:
    stream = Stream(api, "nobody", until="done")
    assert (stream.ids(), stream.last) == ([], {"end": "done", "tasks": 0, "pending": 0, "cursor": stream.cursor})
    early = Stream(api, "later", wait_s=30)
    ids = submit(api, 2, "later")
    dispatcher.run(2)
    assert early.ids(2) == ids
    assert Stream(api, "later", wait_s=0, cursor=stream.cursor).ids() == ids
    early.close()


@pytest.mark.parametrize("group", ["a/b", "a//b/results", "grüppe", "100%", "a?b=c&d", "results", "+ {x}|", "."])
def test_any_name_of_a_group_will_do(api: Served, dispatcher: TinyDispatcher, group: str) -> None:
    ids = submit(api, 2, group)
    dispatcher.run(2)
    if group == ".":  # clients and proxies take such a segment away, however it is written
        return
    assert Stream(api, group, until="done").ids() == ids


def test_what_is_wrong_is_told_before_the_stream_begins(api: Served) -> None:
    for cursor in ("x", "-1", "1.5", "9" * 190):
        error = assert_error(api.get(f"{URL}?cursor={cursor}"), 422, "invalid_request")
        assert "leave it out" in error["message"].lower()
    for wrong in ("cursor=", "wait_s=-1", "wait_s=x", "limit=0", "limit=x", "results=1", "until=never", "colour=red"):
        assert_error(api.get(f"{URL}?{wrong}"), 422, "invalid_request")
    assert_error(api.get(f"/v1/groups/{'g' * 201}/results"), 422, "invalid_request")
    assert_error(api.get("/v1/groups/a%01b/results"), 422, "invalid_request")
    assert_error(api.post(URL, {}), 405, "method_not_allowed")
    assert free_places(api) == api.app.extensions["everfaas"].settings.streams_max


def test_msgpack_has_raw_bytes(api: Served, dispatcher: TinyDispatcher) -> None:
    ids = submit(api, 3)
    dispatcher.run(3, result=b"\x00\xff\n")
    answer = api.get(f"{URL}?until=done", headers={"Accept": "application/msgpack"})
    assert answer.headers["Content-Type"] == "application/msgpack"
    *results, last = read_msgpack(answer)
    assert [(entry["task_id"], entry["result"]) for entry in results] == [(task, b"\x00\xff\n") for task in ids]
    assert (last["end"], last["pending"]) == ("done", 0)


def test_results_can_be_left_out_and_limited(api: Served, dispatcher: TinyDispatcher) -> None:
    ids = submit(api, 700)
    dispatcher.run(700)
    stream = Stream(api, results="false", limit=600)
    entries = list(stream)
    assert [entry["task_id"] for entry in entries] == ids[:600]
    assert all(set(entry) == {"task_id", "status", "cursor"} for entry in entries)
    assert stream.last is not None
    assert stream.last["end"] == "limit"
    rest = Stream(api, limit=100, cursor=stream.cursor)
    assert rest.ids() == ids[600:]
    assert rest.last is not None
    assert rest.last["end"] == "limit"


@pytest.mark.parametrize("form", ["json", "msgpack"])
def test_a_silent_stream_says_that_it_is_there(store: Store, form: str) -> None:
    with Served(store, ApiSettings(threads=8, heartbeat_s=0.05)) as api:
        submit(api, 1)
        if form == "json":
            stream = Stream(api, wait_s=1)
            assert stream.ids() == []
            assert stream.blanks >= 2
        else:
            answer = api.get(f"{URL}?wait_s=1", headers={"Accept": "application/msgpack"})
            *silence, last = read_msgpack(answer)
            assert silence
            assert set(silence) == {None}
            assert last["end"] == "time"


def test_head_takes_no_place(api: Served) -> None:
    places = free_places(api)
    for _ in range(3):
        answer = api.http.head(api.url + URL, timeout=30)
        assert answer.status_code == 200
        assert answer.headers["Content-Type"] == "application/x-ndjson"
    assert free_places(api) == places


# ── many readers ─────────────────────────────────────────────────────────────────────────────────────────────────────


def free_places(api: Served) -> int:
    places = api.app.extensions["everfaas"].waiting._streams
    return int(places._value)


def listeners(api: Served) -> int:
    return len(api.app.extensions["everfaas"].hub._groups)


def test_many_readers_of_one_group_share_what_is_read(
    store: Store, dispatcher: TinyDispatcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    readers, tasks, batch = 20, 400, 20
    settings = ApiSettings(threads=8, reread_s=60, heartbeat_s=60)
    with Served(store, settings) as api, ThreadPoolExecutor(readers) as pool:
        ids = submit(api, tasks)
        reads: list[object] = []
        real = store.group_results
        monkeypatch.setattr(store, "group_results", lambda *a, **k: (reads.append(a), real(*a, **k))[1], raising=False)
        streams = [Stream(api, until="done", wait_s=50) for _ in range(readers)]
        found = [pool.submit(stream.ids) for stream in streams]
        for _ in range(tasks // batch):
            dispatcher.run(batch)
            time.sleep(0.05)
        assert [future.result(60) for future in found] == [ids] * readers
        # Each batch wakes all; one that is late for the page of the others reads one of its own.
        assert len(reads) < readers * tasks / batch / 2
        late = Stream(api, until="done")
        assert late.ids() == ids
        eventually(lambda: free_places(api) == settings.streams_max)
        assert listeners(api) == 0
        assert not api.app.extensions["everfaas"].hub._all


def test_fifty_streams_at_once_and_all_else_still_answers(store: Store, dispatcher: TinyDispatcher) -> None:
    """Of 50 groups, with half as many threads that work; the one beyond the limit is refused."""
    settings = ApiSettings(threads=8, streams_max=50, reread_s=60, heartbeat_s=60)
    with Served(store, settings) as api, ThreadPoolExecutor(50) as pool:
        groups = [f"group-{n}" for n in range(50)]
        ids = {group: submit(api, 2, group) for group in groups}
        streams = [Stream(api, group, until="done", wait_s=50) for group in groups]
        assert free_places(api) == 0
        refused = api.get(URL)
        error = assert_error(refused, 429, "too_many_waiters")
        assert error["hint"]
        assert int(refused.headers["Retry-After"]) >= 1
        slowest_s = 0.0
        for _ in range(20):
            began = time.monotonic()
            assert api.get("/healthz").status_code == 200
            slowest_s = max(slowest_s, time.monotonic() - began)
        assert slowest_s < 2  # a place for a stream is none of those for work
        found = [pool.submit(stream.ids) for stream in streams]
        dispatcher.run(100)
        assert {group: future.result(60) for group, future in zip(groups, found, strict=True)} == ids
        eventually(lambda: free_places(api) == 50)
        assert Stream(api, groups[0], until="done").ids() == ids[groups[0]]


def test_five_thousand_results(api: Served, dispatcher: TinyDispatcher) -> None:
    ids = submit(api, 5000)
    early = Stream(api, until="done")
    found: list[str] = []
    reader = threading.Thread(target=lambda: found.extend(early.ids()))
    reader.start()
    for _ in range(5):
        dispatcher.run(1000)
    reader.join(60)
    assert found == ids
    assert Stream(api, until="done", results="false").ids() == ids


def test_a_reader_that_leaves_gives_its_place_back(store: Store) -> None:
    settings = ApiSettings(threads=8, heartbeat_s=0.1)
    with Served(store, settings) as api:
        submit(api, 1)
        streams = [Stream(api, wait_s=50) for _ in range(10)]
        assert free_places(api) == settings.streams_max - 10
        assert listeners(api) == 1
        for stream in streams:
            stream.close()
        eventually(lambda: free_places(api) == settings.streams_max)
        assert listeners(api) == 0


def test_a_server_that_goes_ends_its_streams(store: Store, dispatcher: TinyDispatcher) -> None:
    api = Served(store, ApiSettings(threads=8, heartbeat_s=60, reread_s=60))
    ids = submit(api, 2)
    dispatcher.run(1)
    stream = Stream(api, wait_s=50)
    assert stream.ids(1) == ids[:1]
    api.stop.request()
    assert stream.ids() == []
    assert stream.last is not None
    assert (stream.last["end"], stream.last["pending"]) == ("drain", 1)
    api.__exit__()


def test_over_a_store_of_another_process(tmp_path: Path) -> None:
    """The wake-up comes by the store's own notices; nothing else would make it read within a minute."""
    with embedded_store(tmp_path / "data") as url:
        store = RedisStore(url)
        store.prepare()
        dispatcher = TinyDispatcher(store)
        with Served(store, ApiSettings(threads=8, heartbeat_s=60, reread_s=60)) as api:
            ids = submit(api, 300)
            submit(api, 10, "another")
            stream = Stream(api, until="done", wait_s=50)
            found: list[str] = []
            reader = threading.Thread(target=lambda: found.extend(stream.ids()))
            reader.start()
            for _ in range(31):
                dispatcher.run(10)
            reader.join(30)
            assert found == ids
            assert stream.end() == "done"
            record = store.results([TaskId(ids[0])])[0]
            assert record is not None
            entry = next(iter(Stream(api, until="done")))
            assert codecs.decode(entry["result"].encode(), "base64") == record.result
        store.close()


def test_requests_of_the_classic_kind_are_not_woken(api: Served, dispatcher: TinyDispatcher) -> None:
    """Who follows one group hears nothing of another, nor of tasks without one."""
    submit(api, 1)
    stream = Stream(api, wait_s=30)
    feed = next(iter(api.app.extensions["everfaas"].hub._groups.values())).__self__
    eventually(lambda: feed.version >= 0)
    time.sleep(0.2)
    before = feed.version
    submit(api, 1, "another")
    api.execute(api.register())
    dispatcher.claim(1)
    dispatcher.run(2)
    assert requests.get(api.url + "/healthz", timeout=30).status_code == 200
    time.sleep(0.2)
    assert feed.version == before
    assert GROUP in api.app.extensions["everfaas"].hub._groups
    stream.close()
