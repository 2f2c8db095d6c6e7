"""A real store in trouble beneath a real API: silent, full, flushed, restarted."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from everfaas_core.embedded import EmbeddedStore
from everfaas_plugins.redis.store import RedisStore
from tests.api.driving import CALL, FUNCTION, UNKNOWN_ID, Served, TinyDispatcher, assert_error, encode, eventually

PATIENT_S = 20.0  # what should take 2 s at most, on a machine that does other things too


@pytest.fixture
def server(tmp_path: Path) -> Iterator[EmbeddedStore]:
    with EmbeddedStore(tmp_path / "data") as server:
        yield server


@pytest.fixture
def store(server: EmbeddedStore) -> Iterator[RedisStore]:
    """Stands in for the memory store in all other fixtures."""
    store = RedisStore(server.url)
    store.prepare()
    yield store
    store.close()


class Waiter:
    """A long-poll for one result, in a thread; made when it waits for the hub."""

    def __init__(self, api: Served, task_id: str) -> None:
        self._answers: list[requests.Response] = []
        url = f"{api.url}/result/{task_id}?wait=50"
        self._thread = threading.Thread(target=lambda: self._answers.append(requests.get(url, timeout=90)))
        self._thread.start()
        hub = api.app.extensions["everfaas"].hub
        # Registered alone would not do: its first read may still be on the way to the store.
        eventually(lambda: [waiter._event._waits for waiter in tuple(hub._all)] == [True])

    def answer(self) -> requests.Response:
        self._thread.join(60)
        return self._answers[0]


def test_a_silent_store_is_a_503_in_time_and_all_goes_on_afterwards(
    api: Served, server: EmbeddedStore, dispatcher: TinyDispatcher
) -> None:
    function_id = api.register()
    task_id = api.execute(function_id)
    call = {"function_id": function_id, "payload": CALL}
    calls = [
        ("GET", f"/status/{task_id}", None),
        ("GET", f"/result/{task_id}?wait=5", None),
        ("GET", f"/status/{UNKNOWN_ID}", None),
        ("POST", "/execute_function", call),
        ("POST", "/v1/tasks", call),
        ("POST", "/v1/tasks:batch", {"tasks": [call]}),
        ("POST", f"/v1/tasks/{UNKNOWN_ID}/cancel", {}),
        ("POST", f"/v1/tasks/{task_id}/retry", {}),
        ("GET", "/v1/tasks?dead=true", None),
        ("GET", "/v1/workers", None),
        ("GET", "/readyz", None),
    ]
    answers: list[tuple[requests.Response, float]] = []

    def ask(method: str, path: str, body: object) -> None:
        began = time.monotonic()
        answer = requests.request(method, api.url + path, json=body, timeout=60)
        answers.append((answer, time.monotonic() - began))

    waiter = Waiter(api, task_id)
    assert server.pid is not None
    os.kill(server.pid, signal.SIGSTOP)
    try:
        threads = [threading.Thread(target=ask, args=made) for made in calls]
        for thread in threads:
            thread.start()
        assert api.get("/healthz").status_code == 200
        for thread in threads:
            thread.join()
    finally:
        os.kill(server.pid, signal.SIGCONT)
    assert len(answers) == len(calls)
    longest_s = max(seconds for _, seconds in answers)
    print(f"silent store: longest wait for a 503 {longest_s:.2f} s")
    assert longest_s < PATIENT_S
    for answer, _ in answers:
        assert_error(answer, 503, "store_unavailable")
        assert answer.headers["Retry-After"]
    assert dispatcher.run() == [task_id]
    assert waiter.answer().json()["status"] == "COMPLETED"


def test_a_full_store_refuses_submits_and_hands_out_results(
    api: Served, store: RedisStore, dispatcher: TinyDispatcher
) -> None:
    function_id = api.register()
    task_id = api.execute(function_id)
    call = {"function_id": function_id, "payload": CALL}
    store._server.command("CONFIG", "SET", "maxmemory", 1)
    for path, body in (
        ("/execute_function", call),
        ("/v1/tasks", {**call, "wait_s": 5, "idempotency_key": "k"}),
        ("/v1/tasks:batch", {"tasks": [call] * 100}),
        ("/register_function", {"name": "new", "payload": FUNCTION}),
    ):
        answer = api.post(path, body)
        assert_error(answer, 503, "store_unavailable")
        assert answer.headers["Retry-After"]
    assert dispatcher.run() == [task_id]
    assert api.get(f"/result/{task_id}?wait=30").json()["status"] == "COMPLETED"
    assert api.get(f"/status/{UNKNOWN_ID}").status_code == 404
    assert len(api.get("/v1/tasks").json()["tasks"]) == 1
    store._server.command("CONFIG", "SET", "maxmemory", 0)
    assert api.post("/v1/tasks", call).status_code == 201


def test_a_flushed_store_is_an_empty_one(api: Served, store: RedisStore, dispatcher: TinyDispatcher) -> None:
    function_id = api.register()
    old = api.execute(function_id)
    dispatcher.join()
    waiter = Waiter(api, old)
    store._server.command("FLUSHALL")
    store._server.command("SCRIPT", "FLUSH")
    call = {"function_id": function_id, "payload": CALL}
    error = assert_error(api.post("/execute_function", call), 404, "unknown_function")
    assert "register" in error["hint"]
    assert api.register() == function_id  # content-hashed: what clients hold is good again
    again = api.execute(function_id, encode(((1,), {})))
    dispatcher.join()  # hears that what it held is gone
    assert dispatcher.run() == [again]
    assert api.get(f"/result/{again}?wait=30").json()["status"] == "COMPLETED"
    assert api.get(f"/status/{old}").status_code in (404, 410)
    assert waiter.answer().status_code in (404, 410)  # within the few seconds after which waiters read again


def test_waiters_outlive_a_restart_of_the_store(api: Served, server: EmbeddedStore, dispatcher: TinyDispatcher) -> None:
    task_id = api.execute(api.register())
    waiter = Waiter(api, task_id)
    assert server.pid is not None
    os.kill(server.pid, signal.SIGKILL)
    server.wait()
    assert_error(api.get(f"/status/{task_id}"), 503, "store_unavailable")
    server.start()
    assert dispatcher.run() == [task_id]
    assert waiter.answer().json()["status"] == "COMPLETED"
