"""Lines on which everything is dropped and nothing is closed, and lines on which only the answer is lost."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import requests

from tests.e2e import functions
from tests.e2e.classic import Classic, serialize

from .house import House, housed
from .proxy import Proxy

pytestmark = pytest.mark.xdist_group("chaos-lines")

WAIT_S = 60.0
PATIENT_S = 20.0  # what should take 2 s at most
API, DISPATCHER, WORKER = "api-0→store", "dispatcher-0→store", "worker-0-0→dispatcher-0"


def until(check: Callable[[], Any], wait_s: float = WAIT_S) -> Any:
    end = time.monotonic() + wait_s
    while not (found := check()):
        assert time.monotonic() < end, f"not within {wait_s:g} s"
        time.sleep(0.02)
    return found


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with housed(tmp_path_factory.mktemp("house"), proxies=True, slots=1) as house:
        yield house


def black_hole(proxy: Proxy) -> Callable[[], bool]:
    """Drop everything; return what tells whether whoever connects has given up a dead connection for a new one."""
    before = proxy.counts.connections
    proxy.set(drop={"up", "down"})
    return lambda: proxy.counts.connections > before


# ── nothing passes ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_api_answers_503_in_time(house: House) -> None:
    url = house.urls[0]
    client = Classic(url)
    task_id = client.execute(client.register(functions.double), 3)
    client.wait(task_id)
    given_up = black_hole(house.proxies[API])
    for path in (f"/status/{task_id}", f"/result/{task_id}?wait=30", "/v1/tasks", "/readyz"):
        began = time.monotonic()
        answer = requests.get(url + path, timeout=WAIT_S)
        assert answer.status_code == 503, path
        assert time.monotonic() - began < PATIENT_S
    assert requests.get(url + "/healthz", timeout=WAIT_S).status_code == 200
    assert given_up()
    house.heal()
    until(lambda: requests.get(f"{url}/status/{task_id}", timeout=WAIT_S).status_code == 200)
    assert client.call(functions.double, 4) == ("COMPLETED", 8)


def test_a_dispatcher_gives_up_its_connection_and_goes_on_later(house: House) -> None:
    client = Classic(house.urls[0])
    sleeping = client.register(functions.sleep_task)
    running = client.execute(sleeping, 1.0)
    until(lambda: client.status(running) == "RUNNING")
    given_up = black_hole(house.proxies[DISPATCHER])
    waiting = client.execute(sleeping, 0.0)
    until(given_up)
    time.sleep(2.0)  # the running one ends meanwhile
    house.heal()
    assert client.wait(running)["status"] == client.wait(waiting)["status"] == "COMPLETED"
    record = requests.get(f"{house.urls[0]}/v1/tasks/{running}", timeout=WAIT_S).json()
    assert len(record["attempts"]) == 1
    assert house.dispatchers[0].alive


def test_a_worker_gives_up_its_connection_and_comes_back(house: House) -> None:
    client = Classic(house.urls[0])
    sleeping = client.register(functions.sleep_task)
    ids = [client.execute(sleeping, 3.0) for _ in range(2)]  # one on each worker
    until(lambda: [client.status(one) for one in ids] == ["RUNNING"] * 2)
    given_up = black_hole(house.proxies[WORKER])
    assert [client.wait(one)["status"] for one in ids] == ["COMPLETED"] * 2  # one of them on the other worker
    until(given_up)
    house.heal()
    until(lambda: house.listed_slots() == house.slots)
    assert all(worker.alive for worker in house.workers)


# ── only the answer is lost ───────────────────────────────────────────────────────────────────────────────────────────


def submitted(house: House, *, group: str, tries: int, **fields: str) -> None:
    url, proxy = house.urls[0], house.proxies[API]
    client = Classic(url)
    function_id = client.register(functions.double)
    client.wait(client.execute(function_id, 1))  # from here on a submit is one exchange with the store
    call = {"function_id": function_id, "payload": serialize(((1,), {})), "group": group}

    def listed() -> list[dict[str, Any]]:
        answers: list[requests.Response] = []

        def answered() -> bool:  # other connections of the API may have been lost as well, and be found out only now
            answers.append(requests.get(f"{url}/v1/tasks?group={group}", timeout=WAIT_S))
            return answers[-1].status_code == 200

        until(answered)
        found: list[dict[str, Any]] = answers[-1].json()["tasks"]
        return found

    for _ in range(tries):
        assert len(listed()) <= 1  # and there is a connection now, so that the submit itself arrives
        lost = proxy.counts.answers_lost
        proxy.set(lose_answers=True)
        answer = requests.post(f"{url}/v1/tasks", json=call | fields, timeout=WAIT_S)
        proxy.heal()
        assert answer.status_code == 503
        assert proxy.counts.answers_lost > lost
        until(lambda: requests.get(f"{url}/readyz", timeout=WAIT_S).status_code == 200)
    (task,) = listed()
    if fields:
        answer = requests.post(f"{url}/v1/tasks", json=call | fields, timeout=WAIT_S)
        assert (answer.status_code, answer.json()["task_id"]) == (201, task["task_id"])
    assert client.wait(task["task_id"])["status"] == "COMPLETED"
    assert len(listed()) == 1


def test_one_lost_answer_of_the_store_makes_one_task(house: House) -> None:
    """Without a key nobody can repeat it, so nobody may: neither we nor the client library."""
    submitted(house, group="plain", tries=1)


def test_a_submit_with_a_key_is_one_task_however_often_its_answer_is_lost(house: House) -> None:
    submitted(house, group="keyed", tries=3, idempotency_key="k")
