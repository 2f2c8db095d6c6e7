"""What has gone wrong in systems like this one, with real processes: each test is a line of somebody's outage."""

from __future__ import annotations

import contextlib
import signal
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import redis
import requests

from . import functions
from .classic import Classic, deserialize, serialize
from .processes import Process, System

WAIT_S = 60.0
SHORT = ["--heartbeat", "0.1", "--liveness", "0.6", "--lease", "0.6"]
LONG_S = 6.5  # more than ten times as long as any of these


def until(check: Callable[[], Any], wait_s: float = WAIT_S) -> Any:
    end = time.monotonic() + wait_s
    while not (found := check()):
        assert time.monotonic() < end, f"not within {wait_s:g} s"
        time.sleep(0.02)
    return found


@pytest.fixture
def systems(tmp_path: Path) -> Iterator[Callable[..., System]]:
    """A maker of systems that the test may mistreat."""
    made: list[System] = []

    def make(mode: str, **options: Any) -> System:
        home = tmp_path / f"system-{len(made)}"
        home.mkdir()
        made.append(System(home, mode, **options))
        return made[-1]

    yield make
    for system in made:
        system.stop()


def record(system: System, task_id: str) -> dict[str, Any]:
    found: dict[str, Any] = requests.get(f"{system.url}/v1/tasks/{task_id}", timeout=10).json()
    return found


def second_dispatcher(system: System, slots: int = 1) -> tuple[Process, Process | None]:
    """Start another dispatcher on the same store; and a worker of its own, where the mode wants one."""
    dispatcher = system.start_dispatcher()
    if system.mode == "local":
        return dispatcher, None
    return dispatcher, system.start("run_worker.py", system.mode, str(slots), dispatcher.address)


def witness(path: str, seconds: float) -> str:
    """Leave a line for each time it was begun, with the process that did, and one for its end."""
    import os
    import time

    with open(path, "a") as file:
        print("begun", os.getpid(), file=file)
    time.sleep(seconds)
    with open(path, "a") as file:
        print("ended", os.getpid(), file=file)
    return "done"


# ── leases ───────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("mode", ["pull", "push"])
def test_a_task_ten_times_longer_than_every_timeout_runs_once(systems, mode: str, tmp_path: Path) -> None:
    """Another dispatcher looks all the time for claims whose lease has ended."""
    system = systems(mode, slots=2, flags=SHORT)
    second_dispatcher(system)
    system.await_slots(3)
    client = Classic(system.url)
    function = client.register(witness)
    ids = [client.execute(function, str(tmp_path / f"witness-{n}"), LONG_S) for n in range(3)]
    for number, task_id in enumerate(ids):
        assert client.wait(task_id)["status"] == "COMPLETED"
        assert len(record(system, task_id)["attempts"]) == 1
        assert (tmp_path / f"witness-{number}").read_text().split()[::2] == ["begun", "ended"]


def test_a_task_longer_than_the_lease_runs_once_on_one_of_two_local_dispatchers(systems, tmp_path: Path) -> None:
    """With the default settings: a lease of three seconds."""
    system = systems("local", slots=1)
    second_dispatcher(system)
    system.await_slots(2)
    time.sleep(1.5)  # until they know of each other
    client = Classic(system.url)
    task_id = client.execute(client.register(witness), str(tmp_path / "witness"), 4.0)
    assert client.wait(task_id)["status"] == "COMPLETED"
    assert (tmp_path / "witness").read_text().split()[::2] == ["begun", "ended"]


def long_the_first_time(path: str) -> str:
    """As `witness`; but whoever begins it first is to be killed within a minute."""
    import os
    import time

    seconds = 0.1 if os.path.exists(path) else 60.0
    with open(path, "a") as file:
        print("begun", os.getpid(), file=file)
    time.sleep(seconds)
    with open(path, "a") as file:
        print("ended", os.getpid(), file=file)
    return "done"


def test_tasks_are_found_when_every_trace_of_their_worker_and_dispatcher_is_gone(systems, tmp_path: Path) -> None:
    """By a dispatcher that has been up all along, and though the store lists neither of them any more."""
    system = systems("pull", slots=2, flags=["--lease", "1"])
    client = Classic(system.url)
    path = tmp_path / "witness"
    task_id = client.execute(client.register(long_the_first_time), str(path))
    until(path.exists)
    second_dispatcher(system)
    system.await_slots(3)
    for process in (system.dispatcher, *system.workers):
        for one in process.family():
            with contextlib.suppress(psutil.NoSuchProcess):  # it died with its parent
                one.kill()
    store = redis.Redis.from_url(system.store)
    address = system.dispatcher.address.encode()
    mine = [key for key in store.keys("ef:fleet:*") if address in (store.hget(key, "r") or b"")]
    assert len(mine) == 1
    store.delete(*mine)
    store.close()
    assert client.wait(task_id)["status"] == "COMPLETED"
    assert path.read_text().split()[::2] == ["begun", "begun", "ended"]


# ── the watchdog ─────────────────────────────────────────────────────────────────────────────────────────────────────

CONNECTED_BUT_NOT_CONSUMING = """
import sys
import msgspec
from everfaas_core.cli import main
from everfaas_core.runtime import dispatcher
from everfaas_core.runtime.watchdog import Watchdog
from everfaas_plugins.redis.store import RedisStore
exchange = RedisStore.exchange
RedisStore.exchange = lambda self, turn: exchange(self, msgspec.structs.replace(turn, claim=0))
dispatcher.Watchdog = lambda: Watchdog(1.5)
sys.exit(main(command="dispatcher", program="run_dispatcher.py"))
"""


def test_a_dispatcher_that_is_connected_and_does_not_consume_ends_loudly(systems) -> None:
    """Its claims come to nothing; whoever looks after it starts it again, and then all is well."""
    system = systems("local", slots=1)
    system.dispatcher.stop()
    words = ["-c", CONNECTED_BUT_NOT_CONSUMING, "-m", "local", "-w", "1", "--store", system.store]
    starved = Process(words, system.home / "starved.log")
    system.processes.append(starved)
    client = Classic(system.url)
    task_id = client.execute(client.register(functions.double), 4)
    assert starved.popen.wait(WAIT_S) == 1
    assert "the store gives us none: ending, to be started anew" in starved.log.read_text()
    system.start_dispatcher()
    assert deserialize(client.wait(task_id)["result"]) == 8


# ── restarts ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("mode", ["local", "pull", "push"])
def test_a_cancel_survives_restarts_of_dispatcher_and_store(systems, mode: str, tmp_path: Path) -> None:
    """Asked for while no dispatcher is there; then the store dies too, before the next dispatcher is up."""
    system = systems(mode, slots=2)
    client = Classic(system.url)
    function = client.register(witness)
    path = tmp_path / "witness"
    task_id = client.execute(function, str(path), 600.0)
    pid = until(lambda: path.exists() and path.read_text().split()[1:2])[0]
    slot = psutil.Process(int(pid))
    system.dispatcher.popen.kill()
    system.dispatcher.popen.wait()
    answer = requests.post(f"{system.url}/v1/tasks/{task_id}/cancel", json={}, timeout=10)
    assert answer.status_code < 300, answer.text
    (server,) = psutil.Process(system.processes[0].popen.pid).children()
    server.kill()
    server.wait()
    system.start_dispatcher(system.dispatcher.address.rpartition(":")[2] or "0")

    def status() -> bool:
        answer = requests.get(f"{system.url}/status/{task_id}", timeout=10)
        return answer.status_code == 200 and answer.json()["status"] == "CANCELLED"

    until(status)
    until(lambda: not slot.is_running() or slot.status() == psutil.STATUS_ZOMBIE)
    assert path.read_text().split()[::2] == ["begun"]
    assert client.call(functions.double, 2) == ("COMPLETED", 4)


def test_all_roles_live_through_a_flush(systems) -> None:
    system = systems("pull", slots=2)
    client = Classic(system.url)
    sleeping = client.register(functions.sleep_task)
    ids = [client.execute(sleeping, 600) for _ in range(3)]  # both slots are busy when it happens
    until(lambda: [client.status(one) for one in ids].count("RUNNING") == 2)
    store = redis.Redis.from_url(system.store)
    store.flushall()
    store.script_flush()
    store.close()
    for number in range(4):
        assert client.call(functions.double, number) == ("COMPLETED", 2 * number)
    assert [process.popen.poll() for process in system.processes] == [None] * len(system.processes)


# ── poison ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_bytecode_of_another_python_reaches_no_interpreter(client: Classic) -> None:
    """It could crash a slot three times over; stamped with its version, it is refused before it is loaded."""

    def function() -> None:
        return None

    function.__code__ = function.__code__.replace(co_code=bytes([100, 250] * 50), co_stacksize=0)
    body = {"name": "poison", "payload": serialize(function), "python": "3.9"}
    answer = client.session.post(client.url + "v1/functions", json=body, timeout=10)
    assert answer.status_code == 201, answer.text
    task_id = client.execute(answer.json()["function_id"])
    failure = deserialize(client.wait(task_id)["result"])
    assert str(failure).startswith("WorkerFailure")
    assert "Python 3.9" in str(failure)
    attempts = client.session.get(client.url + f"v1/tasks/{task_id}", timeout=10).json()["attempts"]
    assert [attempt["cause"] for attempt in attempts] == ["not_loadable"]


# ── signals, and what is left ────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("mode", ["local", "push"])
def test_a_hail_of_signals_ends_each_role_in_order(systems, mode: str) -> None:
    """Handlers that did work would be interrupted by the next signal, in the middle of it."""
    system = systems(mode, slots=2)
    client = Classic(system.url)
    function = client.register(functions.sleep_task)
    for _ in range(200):
        client.execute(function, 0.01)
    for process in reversed(system.processes):
        family = process.family()
        for number in range(100):
            if process.popen.poll() is None:
                process.popen.send_signal((signal.SIGTERM, signal.SIGINT)[number % 2])
        # 1: a worker that was stopped at once, with a task in hand; a signal: the interpreter was at its end already
        assert process.popen.wait(WAIT_S) in (0, 1, -signal.SIGTERM, -signal.SIGINT)
        assert "Traceback" not in process.log.read_text()
        assert psutil.wait_procs(family, timeout=20)[1] == []


def test_a_first_sigterm_drains_and_a_second_stops(systems, tmp_path: Path) -> None:
    system = systems("pull", slots=2)
    client = Classic(system.url)
    function = client.register(witness)
    ids = [client.execute(function, str(tmp_path / str(number)), (1.0, 600.0)[number]) for number in range(2)]
    until(lambda: all((tmp_path / str(number)).exists() for number in range(2)))
    for worker in system.workers:
        worker.popen.send_signal(signal.SIGTERM)
    assert client.wait(ids[0])["status"] == "COMPLETED"
    until(lambda: [worker.popen.poll() for worker in system.workers].count(None) == 1)
    (busy,) = (worker for worker in system.workers if worker.popen.poll() is None)
    busy.stop(signal.SIGTERM)
    assert (tmp_path / "1").read_text().split()[::2] == ["begun"]
    assert client.status(ids[1]) in ("QUEUED", "RUNNING"), "it will run elsewhere"


@pytest.mark.parametrize("mode", ["local", "pull"])
def test_no_role_that_is_killed_leaves_an_orphan(systems, mode: str, tmp_path: Path) -> None:
    """Slots that are busy with children of their own, and the server of the store."""

    def function(path: str) -> None:
        import pathlib
        import subprocess
        import time

        child = subprocess.Popen(["sleep", "600"])
        pathlib.Path(path).write_text(str(child.pid))
        time.sleep(600)

    system = systems(mode, slots=2)
    client = Classic(system.url)
    registered = client.register(function)
    paths = [tmp_path / f"child-{number}" for number in range(2)]
    for path in paths:
        client.execute(registered, str(path))
    children = [psutil.Process(int(until(lambda path=path: path.exists() and path.read_text()))) for path in paths]
    for process in reversed(system.processes):
        process.stop(signal.SIGKILL)  # demands that nothing below it is left
    assert psutil.wait_procs(children, timeout=20)[1] == []


# ── waiting clients ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_healthz_answers_beside_five_hundred_long_polls(systems) -> None:
    """More than there are threads: some wait, and the rest are told to come again."""
    system = systems("local", slots=1)
    client = Classic(system.url)
    task_id = client.execute(client.register(functions.sleep_task), 5)
    port = int(system.url.rpartition(":")[2])
    asked = f"GET /result/{task_id}?wait=50 HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n".encode()
    connections = [socket.create_connection(("127.0.0.1", port), timeout=WAIT_S) for _ in range(500)]
    try:
        for connection in connections:
            connection.sendall(asked)
        longest_s = 0.0
        for _ in range(20):
            began = time.monotonic()
            assert requests.get(f"{system.url}/healthz", timeout=WAIT_S).status_code == 200
            longest_s = max(longest_s, time.monotonic() - began)
            time.sleep(0.05)
        print(f"longest wait for /healthz: {longest_s * 1000:.0f} ms")
        assert client.wait(task_id)["status"] == "COMPLETED"
        answers = [connection.recv(64).split()[1] for connection in connections]
    finally:
        for connection in connections:
            connection.close()
    assert set(answers) == {b"200"}  # there is a place for each
    assert answers.count(b"200") >= 40
    assert longest_s < 2.0
