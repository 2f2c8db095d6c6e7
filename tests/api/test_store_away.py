"""The store does not answer: 503 within two seconds, and waits that survive its return."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
import requests

import everfaas_plugins.redis as everfaas_redis
from everfaas_core.api import ApiSettings
from everfaas_core.model.errors import StoreRefused, StoreUnavailable
from everfaas_core.model.records import TaskDefaults
from everfaas_core.ports import Notice, Store, Watch
from tests.api.driving import CALL, FUNCTION, UNKNOWN_ID, Served, TinyDispatcher, assert_error, eventually


class Cable:
    """A store whose connection can be cut, watches included."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.cut = False
        self.refuses = False

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._store, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            self.check()
            made = method(*args, **kwargs)
            return CutWatch(self, made) if name == "watch" else made

        return call if name != "close" else method

    def check(self) -> None:
        if self.cut:
            raise StoreUnavailable("the cable is cut")
        if self.refuses:
            raise StoreRefused("it evicts")


class CutWatch:
    """While the cable is cut, notices are lost."""

    def __init__(self, cable: Cable, watch: Watch) -> None:
        self._cable = cable
        self._watch = watch
        self._lost = False

    def fileno(self) -> int:
        return self._watch.fileno()

    def read(self) -> Sequence[Notice]:
        notices = self._watch.read()
        if self._cable.cut:
            self._lost = True
            raise StoreUnavailable("the cable is cut")
        if self._lost:
            self._lost = False
            return [Notice(lost=True)]
        return notices

    def close(self) -> None:
        self._watch.close()


@pytest.fixture
def cable(store: Store) -> Cable:
    return Cable(store)


@pytest.fixture
def api(cable: Cable) -> Iterator[Served]:
    with Served(cable, ApiSettings(threads=16, reread_s=60)) as served:  # type: ignore[arg-type]  # it is one, by delegation
        yield served


def test_every_call_says_503(api: Served, cable: Cable) -> None:
    function_id = api.register()
    task_id = api.execute(function_id)
    call = {"function_id": function_id, "payload": CALL}
    cable.cut = True
    for method, path, body in (
        ("POST", "/register_function", {"name": "f", "payload": FUNCTION}),
        ("POST", "/execute_function", call),
        ("GET", f"/status/{task_id}", None),
        ("GET", f"/result/{task_id}", None),
        ("GET", f"/result/{task_id}?wait=30", None),
        ("POST", "/v1/functions", {"name": "f", "payload": FUNCTION}),
        ("GET", "/v1/functions", None),
        ("GET", f"/v1/functions/{function_id}", None),
        ("POST", "/v1/tasks", call),
        ("POST", "/v1/tasks", {**call, "wait_s": 30}),
        ("POST", "/v1/tasks:batch", {"tasks": [call]}),
        ("GET", "/v1/tasks", None),
        ("GET", f"/v1/tasks/{task_id}", None),
        ("POST", f"/v1/tasks/{task_id}/cancel", {}),
        ("POST", f"/v1/tasks/{task_id}/retry", {}),
        ("POST", "/v1/workers/worker-1/drain", {}),
        ("GET", "/v1/tasks?dead=true", None),
        ("POST", "/v1/tasks:wait", {"task_ids": [task_id], "wait_s": 30}),
        ("GET", "/v1/groups/g/results", None),
        ("GET", "/v1/workers", None),
        ("GET", "/readyz", None),
    ):
        began = time.monotonic()
        answer = api.http.request(method, api.url + path, json=body, timeout=60)
        error = assert_error(answer, 503, "store_unavailable")
        assert int(answer.headers["Retry-After"]) >= 1
        assert error["hint"]
        assert time.monotonic() - began < 2
    assert api.get("/healthz").status_code == 200
    page = api.get("/", headers={"Accept": "text/html"})
    assert page.status_code == 503
    assert "store does not answer" in page.text
    cable.cut, cable.refuses = False, True
    assert_error(api.get(f"/status/{task_id}"), 503, "store_refused")
    cable.refuses = False
    assert api.get(f"/status/{task_id}").status_code == 200


def test_an_unknown_id_needs_the_store_to_say_so(api: Served, cable: Cable) -> None:
    cable.cut = True
    assert_error(api.get(f"/status/{UNKNOWN_ID}"), 503, "store_unavailable")


def test_a_waiter_outlives_the_stores_absence(api: Served, cable: Cable, dispatcher: TinyDispatcher) -> None:
    """The end was published while nobody heard; the notice that something was lost makes the waiter read again."""
    task_id = api.execute(api.register())
    hub = api.app.extensions["everfaas"].hub
    answers: list[requests.Response] = []
    url = f"{api.url}/result/{task_id}?wait=50"
    thread = threading.Thread(target=lambda: answers.append(requests.get(url, timeout=60)))
    thread.start()
    eventually(lambda: len(hub._all) == 1)
    time.sleep(0.2)
    cable.cut = True
    dispatcher.run()
    time.sleep(0.5)
    cable.cut = False
    thread.join(30)
    assert answers[0].json()["status"] == "COMPLETED"


def test_a_submit_that_was_accepted_is_never_a_503(
    api: Served, cable: Cable, dispatcher: TinyDispatcher, store: Store
) -> None:
    body = {"function_id": api.register(), "payload": CALL, "wait_s": 3}  # it waits so long for the store to come back
    hub = api.app.extensions["everfaas"].hub
    answers: list[requests.Response] = []
    thread = threading.Thread(
        target=lambda: answers.append(requests.post(f"{api.url}/v1/tasks", json=body, timeout=60))
    )
    thread.start()
    eventually(lambda: len(hub._all) == 1 and store.health().queued == 1)
    cable.cut = True
    hub._wake_all()  # whatever made it read: the read fails
    thread.join(30)
    assert answers[0].status_code == 201
    assert list(answers[0].json()) == ["task_id"]
    assert dispatcher.run() == [answers[0].json()["task_id"]]


def test_the_hub_begins_before_the_store_is_there(store: Store, dispatcher: TinyDispatcher) -> None:
    cable = Cable(store)
    cable.cut = True
    with Served(cable, ApiSettings(threads=16, reread_s=60)) as api:  # type: ignore[arg-type]  # it is one, by delegation
        assert_error(api.get("/readyz"), 503, "store_unavailable")
        cable.cut = False
        task_id = api.execute(api.register())
        answers: list[requests.Response] = []
        url = f"{api.url}/result/{task_id}?wait=50"
        thread = threading.Thread(target=lambda: answers.append(requests.get(url, timeout=60)))
        thread.start()
        dispatcher.run()
        thread.join(30)
        assert answers[0].json()["status"] == "COMPLETED"


def test_nobody_listens_where_the_store_should_be() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, not listening: every connection is refused
        (provider,) = everfaas_redis.everfaas_stores()
        store = provider.factory(f"redis://127.0.0.1:{taken.getsockname()[1]}", {}, TaskDefaults())
        with Served(store, ApiSettings(threads=10)) as api:
            for path in (f"/status/{UNKNOWN_ID}", "/readyz", "/v1/tasks"):
                began = time.monotonic()
                assert_error(api.get(path), 503, "store_unavailable")
                assert time.monotonic() - began < 2
            assert api.get("/healthz").status_code == 200
        store.close()
