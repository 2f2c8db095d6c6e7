"""Long-polls: nobody polls the store, nobody misses an end, and nobody holds up the server."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest
import requests

from everfaas_core.api import ApiSettings, classic
from everfaas_core.api.hub import CROWD_ENOUGH, CROWD_MIN, Hub
from everfaas_core.model.errors import StoreUnavailable
from everfaas_core.model.ids import TaskId
from everfaas_core.ports import Store
from tests.api.driving import CALL, UNKNOWN_ID, Served, TinyDispatcher, assert_error, assert_fits, eventually, issued_id


def waiters(api: Served) -> int:
    hub: Hub = api.app.extensions["everfaas"].hub
    with hub._lock:
        assert bool(hub._all) == bool(hub._waiters), "nothing is kept for who waits no more"
        return len(hub._all)


def in_background(
    call: Callable[[], requests.Response],
) -> tuple[threading.Thread, list[tuple[requests.Response, float]]]:
    done: list[tuple[requests.Response, float]] = []

    def run() -> None:
        answer = call()
        done.append((answer, time.monotonic()))

    thread = threading.Thread(target=run)
    thread.start()
    return thread, done


def test_a_wait_ends_when_the_task_does(api: Served, dispatcher: TinyDispatcher) -> None:
    task_id = api.execute(api.register())
    thread, done = in_background(lambda: requests.get(f"{api.url}/result/{task_id}?wait=50", timeout=60))
    eventually(lambda: waiters(api) == 1)
    dispatcher.run()
    ended = time.monotonic()
    thread.join(30)
    ((answer, at),) = done
    assert answer.json()["status"] == "COMPLETED"
    assert answer.json()["result"] != ""
    assert at - ended < 4  # beneath the slow re-read, so it was the wake-up
    assert waiters(api) == 0


def test_a_poll_right_after_the_submit_waits_a_moment_for_the_end(
    api: Served, dispatcher: TinyDispatcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(classic, "YOUNG_S", 60.0)
    monkeypatch.setattr(classic, "GRACE_S", 50.0)
    task_id = api.execute(api.register())
    thread, done = in_background(lambda: requests.get(f"{api.url}/result/{task_id}", timeout=60))
    eventually(lambda: waiters(api) == 1)
    dispatcher.run()
    thread.join(30)
    assert done[0][0].json()["status"] == "COMPLETED"


def test_a_poll_of_an_older_task_is_answered_at_once(api: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(classic, "GRACE_S", 50.0)
    task_id = api.execute(api.register())
    time.sleep(2 * classic.YOUNG_S)
    began = time.monotonic()
    assert api.get(f"/result/{task_id}").json() == {"task_id": task_id, "status": "QUEUED", "result": ""}
    assert time.monotonic() - began < 10


def test_a_poll_that_has_no_place_to_wait_is_answered_all_the_same(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(classic, "YOUNG_S", 60.0)
    monkeypatch.setattr(classic, "GRACE_S", 50.0)
    with Served(store, ApiSettings(threads=4, waiters_max=1)) as api, ThreadPoolExecutor(1) as pool:
        task_id = api.execute(api.register())
        waiting = pool.submit(requests.get, f"{api.url}/result/{task_id}?wait=50", timeout=60)
        eventually(lambda: waiters(api) == 1)
        assert api.get(f"/result/{task_id}").json() == {"task_id": task_id, "status": "QUEUED", "result": ""}
        api.post(f"/v1/tasks/{task_id}/cancel", {})
        assert waiting.result(30).json()["status"] == "CANCELLED"


def test_a_wait_is_over_when_its_time_is(api: Served) -> None:
    task_id = api.execute(api.register())
    began = time.monotonic()
    answer = api.get(f"/result/{task_id}?wait=0.3")
    assert answer.json() == {"task_id": task_id, "status": "QUEUED", "result": ""}
    assert 0.25 < time.monotonic() - began < 10
    for wrong in ("-1", "x", "nan", "inf", "1e400", ""):
        assert_error(api.get(f"/result/{task_id}?wait={wrong}"), 422, "invalid_request")


def test_a_wait_is_bounded_by_the_server(store: Store) -> None:
    with Served(store, ApiSettings(threads=10, wait_s_max=0.2)) as api:
        task_id = api.execute(api.register())
        began = time.monotonic()
        assert api.get(f"/result/{task_id}?wait=80000").status_code == 200
        assert time.monotonic() - began < 10


def test_a_task_that_ends_between_register_and_read_is_not_missed(
    api: Served, dispatcher: TinyDispatcher, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The read says QUEUED, and the task ends before the wait begins."""
    task_id = api.execute(api.register())
    real, first = store.results, threading.Event()

    def late(ids: Sequence[TaskId]) -> object:
        found = real(ids)
        if not first.is_set():
            first.set()
            dispatcher.run()
            time.sleep(0.2)
        return found

    monkeypatch.setattr(store, "results", late, raising=False)
    began = time.monotonic()
    assert api.get(f"/result/{task_id}?wait=50").json()["status"] == "COMPLETED"
    assert time.monotonic() - began < 4


def test_a_hundred_waiters_cost_the_store_nothing(
    store: Store, dispatcher: TinyDispatcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Served(store, ApiSettings(threads=4, reread_s=60)) as api, ThreadPoolExecutor(100) as pool:
        function_id = api.register()
        ids = [api.execute(function_id) for _ in range(100)]
        reads: list[object] = []
        real = store.results
        monkeypatch.setattr(store, "results", lambda asked: (reads.append(asked), real(asked))[1], raising=False)
        answers = [pool.submit(requests.get, f"{api.url}/result/{task_id}?wait=50", timeout=60) for task_id in ids]
        eventually(lambda: len(reads) == 100 and waiters(api) == 100)
        time.sleep(0.5)
        assert len(reads) == 100  # one each, and no more while they wait
        assert api.get("/healthz").status_code == 200
        dispatcher.run(100)
        assert {answer.result(30).json()["status"] for answer in answers} == {"COMPLETED"}
        assert len(reads) == 200
        eventually(lambda: waiters(api) == 0)


def test_beyond_the_limit_of_waiters_429_and_all_else_still_answers(store: Store, dispatcher: TinyDispatcher) -> None:
    settings = ApiSettings(threads=4, waiters_max=4)
    with Served(store, settings) as api, ThreadPoolExecutor(60) as pool:
        function_id = api.register()
        task_id = api.execute(function_id)
        done = api.execute(function_id)
        dispatcher.claim(0)
        url = f"{api.url}/result/{task_id}?wait=50"
        answers = [pool.submit(requests.get, url, timeout=60) for _ in range(54)]
        eventually(lambda: sum(answer.done() for answer in answers) == 50)
        refused = [answer.result() for answer in answers if answer.done()]
        for answer in refused:
            assert_error(answer, 429, "too_many_waiters")
            assert int(answer.headers["Retry-After"]) >= 1
        assert api.get("/healthz").status_code == 200
        assert api.get(f"/status/{task_id}").status_code == 200
        wait_for_both = api.post("/v1/tasks:wait", {"task_ids": [task_id], "wait_s": 5})
        assert_error(wait_for_both, 429, "too_many_waiters")
        # A submit is never refused for it: it is accepted, and the client waits elsewhere.
        submitted = api.post("/v1/tasks", {"function_id": function_id, "payload": CALL, "wait_s": 5})
        assert submitted.status_code == 201
        assert list(submitted.json()) == ["task_id"]
        assert set(dispatcher.run(3)) == {task_id, done, submitted.json()["task_id"]}
        assert api.get(f"/result/{done}?wait=50").json()["status"] == "COMPLETED"  # ended: it need not wait
        assert sum(answer.result(30).status_code == 200 for answer in answers) == 4


def test_one_exchange_submits_and_waits(api: Served, dispatcher: TinyDispatcher) -> None:
    function_id = api.register()
    body = {"function_id": function_id, "payload": CALL, "wait_s": 50}
    thread, done = in_background(lambda: requests.post(f"{api.url}/v1/tasks", json=body, timeout=60))
    (task_id,) = dispatcher.run(result=b"out")
    ended = time.monotonic()
    thread.join(30)
    ((answer, at),) = done
    assert answer.status_code == 201
    assert_fits("SubmitAnswer", answer.json())
    assert answer.json() == {"task_id": task_id, "status": "COMPLETED", "result": "b3V0\n"}
    assert at - ended < 4
    late = api.post("/v1/tasks", {**body, "wait_s": 0.05}).json()
    assert (late["status"], late["result"]) == ("QUEUED", "")


def test_one_exchange_waits_for_an_earlier_task_of_its_key(api: Served, dispatcher: TinyDispatcher) -> None:
    body = {"function_id": api.register(), "payload": CALL, "idempotency_key": "k"}
    first = api.post("/v1/tasks", body).json()["task_id"]
    thread, done = in_background(lambda: requests.post(f"{api.url}/v1/tasks", json={**body, "wait_s": 50}, timeout=60))
    eventually(lambda: waiters(api) == 2)  # for its own id, then for the first one's
    assert dispatcher.run() == [first]
    thread.join(30)
    assert done[0][0].json()["task_id"] == first
    assert done[0][0].json()["status"] == "COMPLETED"


def test_wait_for_many(api: Served, dispatcher: TinyDispatcher, store: Store) -> None:
    task = {"function_id": api.register(), "payload": CALL}
    ids = api.post("/v1/tasks:batch", {"tasks": [task] * 500}).json()["task_ids"]
    expired = str(issued_id(store))
    body = {"task_ids": [*ids, ids[0], ids[1].upper(), UNKNOWN_ID, expired], "wait_s": 50}
    thread, done = in_background(lambda: requests.post(f"{api.url}/v1/tasks:wait", json=body, timeout=60))
    eventually(lambda: waiters(api) == 1)
    ended_ids = dispatcher.run(3)
    thread.join(30)
    answer = done[0][0].json()
    assert_fits("WaitAnswer", answer)
    assert {entry["task_id"] for entry in answer["ended"]} <= set(ended_ids)
    assert answer["ended"][0]["status"] == "COMPLETED"
    assert answer["ended"][0]["result"] == "cmVzdWx0\n"
    assert answer["pending"] == 500 - len(answer["ended"])
    assert (answer["unknown"], answer["expired"], answer["more"]) == ([UNKNOWN_ID], [expired], False)

    at_once = api.post("/v1/tasks:wait", {**body, "results": False}).json()
    assert {entry["task_id"] for entry in at_once["ended"]} == set(ended_ids)
    assert set(at_once["ended"][0]) == {"task_id", "status"}
    nobody = api.post("/v1/tasks:wait", {"task_ids": [UNKNOWN_ID], "wait_s": 50})  # nothing to wait for
    assert nobody.json() == {"ended": [], "pending": 0, "more": False, "unknown": [UNKNOWN_ID], "expired": []}


def test_wait_for_ten_thousand(api: Served, dispatcher: TinyDispatcher) -> None:
    task = {"function_id": api.register(), "payload": CALL}
    ids = api.post("/v1/tasks:batch", {"tasks": [task] * 10_000}).json()["task_ids"]
    assert api.post("/v1/tasks:wait", {"task_ids": ids, "wait_s": 0.1}).json()["pending"] == 10_000
    dispatcher.run(10_000)
    answer = api.post("/v1/tasks:wait", {"task_ids": ids, "wait_s": 50}).json()
    assert (len(answer["ended"]), answer["pending"]) == (10_000, 0)
    assert [entry["task_id"] for entry in answer["ended"]] == ids


def test_an_answer_has_bounded_size(api: Served, dispatcher: TinyDispatcher, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("everfaas_core.api.results.WAIT_BYTES_MAX", 25_000)
    task = {"function_id": api.register(), "payload": CALL}
    ids = api.post("/v1/tasks:batch", {"tasks": [task] * 7}).json()["task_ids"]
    dispatcher.run(7, result=b"x" * 10_000)
    left, answers = set(ids), 0
    while left:
        answer = api.post("/v1/tasks:wait", {"task_ids": sorted(left)}).json()
        assert 1 <= len(answer["ended"]) <= 2
        left -= {entry["task_id"] for entry in answer["ended"]}
        assert answer["more"] is bool(left)
        answers += 1
    assert answers == 4


def test_a_drain_wakes_all_waiters(store: Store) -> None:
    api = Served(store, ApiSettings(threads=16))
    task_id = api.execute(api.register())
    thread, done = in_background(lambda: requests.get(f"{api.url}/result/{task_id}?wait=50", timeout=60))
    eventually(lambda: waiters(api) == 1)
    began = time.monotonic()
    api.__exit__()
    thread.join(30)
    assert done[0][0].status_code == 200
    assert done[0][0].json()["status"] == "QUEUED"
    assert done[0][0].headers["Connection"] == "close"
    assert time.monotonic() - began < 9  # not drain_s


def test_a_waiter_that_leaves_gives_its_place_back(store: Store) -> None:
    with Served(store, ApiSettings(waiters_max=1, reread_s=0.2)) as api:
        task_id = api.execute(api.register())
        with pytest.raises(requests.exceptions.ReadTimeout):
            requests.get(f"{api.url}/result/{task_id}?wait=50", timeout=0.3)
        eventually(lambda: waiters(api) == 0)
        answer = api.get(f"/result/{task_id}?wait=0.1")
        assert answer.status_code == 200


def test_who_waits_for_many_is_woken_by_many_at_once(store: Store) -> None:
    hub = Hub(store)
    few = [TaskId(f"f{n}") for n in range(CROWD_MIN - 1)]
    crowd = [TaskId(f"c{n}") for n in range(CROWD_ENOUGH + 10)]
    with hub.waiter(few) as small, hub.waiter(crowd) as large:
        assert small.wake(few[0]), "a few are told of each"
        assert not any(large.wake(one) for one in crowd[: CROWD_ENOUGH - 1])
        assert large.wake(crowd[CROWD_ENOUGH]), "and many of many"
        assert large.wake(None), "what may have been missed counts at once"
    hub.close()


def test_who_waits_for_many_hears_of_the_first_soon(api: Served, dispatcher: TinyDispatcher) -> None:
    function_id = api.register()
    ids = [api.execute(function_id) for _ in range(CROWD_MIN)]
    body = {"task_ids": ids, "wait_s": 50}
    thread, done = in_background(lambda: requests.post(f"{api.url}/v1/tasks:wait", json=body, timeout=60))
    eventually(lambda: waiters(api) == 1)
    time.sleep(0.2)  # until the subscription, which wakes everybody, stands
    dispatcher.run()
    ended = time.monotonic()
    thread.join(30)
    ((answer, at),) = done
    assert [task["status"] for task in answer.json()["ended"]] == ["COMPLETED"]
    assert at - ended < 4  # beneath the slow re-read


def test_a_store_that_is_away_for_a_while_ends_no_wait(
    api: Served, dispatcher: TinyDispatcher, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    task_id = api.execute(api.register())
    failed = threading.Event()
    real = store.results

    def away(ids: Sequence[TaskId]) -> object:
        failed.set()
        raise StoreUnavailable("away")

    thread, done = in_background(lambda: requests.get(f"{api.url}/result/{task_id}?wait=50", timeout=60))
    eventually(lambda: [waiter._event._waits for waiter in tuple(api.app.extensions["everfaas"].hub._all)] == [True])
    with monkeypatch.context() as patch:
        patch.setattr(store, "results", away, raising=False)
        dispatcher.run()
        assert failed.wait(20)
    assert store.results == real
    thread.join(30)
    assert done[0][0].json()["status"] == "COMPLETED"


def test_a_store_that_stays_away_is_a_503_at_the_end_of_the_wait(
    store: Store, dispatcher: TinyDispatcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Served(store, ApiSettings(threads=4)) as api:
        ids = [api.execute(api.register()) for _ in range(2)]
        thread, done = in_background(
            lambda: requests.post(f"{api.url}/v1/tasks:wait", json={"task_ids": ids, "wait_s": 1.5}, timeout=60)
        )
        eventually(lambda: [one._event._waits for one in tuple(api.app.extensions["everfaas"].hub._all)] == [True])

        def away(_: object) -> object:
            raise StoreUnavailable("away")

        monkeypatch.setattr(store, "statuses", away, raising=False)
        dispatcher.run()
        thread.join(30)
        assert_error(done[0][0], 503, "store_unavailable")
