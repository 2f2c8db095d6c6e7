"""`--processes N`: several API processes on one port, with real processes over real HTTP."""

from __future__ import annotations

import http.client
import json
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
import requests

from everfaas_core.cli.supervisor import STOP_GRACE_S
from tests.unit.system import Caller, Command, everfaas, is_alive, running, until
from tests.unit.test_cli_roles import address, free_port, script, store
from tests.unit.test_cli_up import make_double, port_is_closed, ready, up


@contextmanager
def several(tmp_path: Path, *words: str, count: int = 2) -> Iterator[tuple[Command, str]]:
    """Run a store and `app.py --processes N`; yield the command and the API's URL."""
    with store(tmp_path) as (_, url):
        flags = ["--port", "0", "--processes", str(count), "--store", url, *words]
        with running(script("app.py", *flags), tmp_path) as command:
            until(lambda: f", {count} processes" in command.errors or command.process.poll() is not None)
            line = next(line for line in command.errors.splitlines() if "API on" in line)
            yield command, line.split("API on ")[1].split(",")[0]


def api_processes(command: Command) -> list[psutil.Process]:
    """Return the API processes below a command."""
    found = []
    for process in psutil.Process(command.process.pid).children():
        try:
            if "--listen-fd" in process.cmdline() and is_alive(process):
                found.append(process)
        except psutil.Error:
            continue
    return found


def clients_of(process: psutil.Process, port: int) -> int:
    """How many connections this process has accepted."""
    return sum(
        one.status == psutil.CONN_ESTABLISHED and one.laddr.port == port for one in process.net_connections("tcp")
    )


def test_clients_are_shared_out_and_all_are_answered(tmp_path: Path) -> None:
    with several(tmp_path) as (command, url):
        port = int(url.rpartition(":")[2])
        processes = until(lambda: len(found := api_processes(command)) == 2 and found)
        open_ones: list[http.client.HTTPConnection] = []
        deadline = time.monotonic() + 30
        try:
            # Which one accepts is up to the system; over many connections each gets some.
            while not all(clients_of(process, port) for process in processes):
                assert time.monotonic() < deadline, "one process got all connections"
                client = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
                client.request("GET", "/healthz")
                answer = client.getresponse()
                assert answer.status == 200
                answer.read()
                open_ones.append(client)
        finally:
            for client in open_ones:
                client.close()
        assert command.errors.count("API on ") == 1, "said once, when all of them answer"
        assert "api 1: accepting on" in command.errors
        assert "api 2: accepting on" in command.errors
        assert command.end() == 0
        assert command.alive() == []
        assert port_is_closed(url)


def test_a_killed_process_loses_no_later_request_and_is_replaced(tmp_path: Path) -> None:
    with several(tmp_path) as (command, url):
        victims = until(lambda: len(found := api_processes(command)) == 2 and found)
        failed: list[str] = []
        done = threading.Event()

        def ask() -> None:
            while not done.is_set():
                try:
                    answer = requests.get(url + "/healthz", timeout=20)  # a new connection each time
                    if answer.status_code != 200:
                        failed.append(answer.text)
                except requests.RequestException as error:
                    failed.append(repr(error))

        for victim in victims:
            victim.send_signal(signal.SIGSTOP)  # so that what comes now waits in the backlog while it dies
            victim.kill()
            client = threading.Thread(target=ask)
            client.start()
            until(lambda gone=victim: not is_alive(gone))
            until(lambda: len(api_processes(command)) == 2)
            done.set()
            client.join(30)
            done.clear()
        assert failed == []
        assert command.errors.count("was killed by SIGKILL; starting it again") == 2
        assert command.errors.count("API on ") == 1
        assert command.end() == 0
        assert command.alive() == []


def test_connections_that_wait_are_served_though_all_processes_die(tmp_path: Path) -> None:
    """One socket for all: what has not been accepted does not belong to the one that dies."""
    with several(tmp_path) as (command, url):
        processes = until(lambda: len(found := api_processes(command)) == 2 and found)
        for process in processes:
            process.send_signal(signal.SIGSTOP)
        answers: list[int] = []
        clients = [
            threading.Thread(target=lambda: answers.append(requests.get(url + "/healthz", timeout=60).status_code))
            for _ in range(8)
        ]
        for client in clients:
            client.start()
        time.sleep(0.3)
        assert answers == []
        for process in processes:
            process.kill()
        for client in clients:
            client.join(60)
        assert answers == [200] * 8


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_drains_all_of_them(tmp_path: Path, signum: int) -> None:
    with several(tmp_path) as (command, url):
        until(lambda: len(api_processes(command)) == 2)
        caller = Caller(url)
        task_id = caller.submit(make_double(), 1)  # nobody runs it
        answers: list[requests.Response] = []
        clients = [
            threading.Thread(target=lambda: answers.append(requests.get(f"{url}/result/{task_id}?wait=50", timeout=60)))
            for _ in range(12)
        ]
        for client in clients:
            client.start()
        port = int(url.rpartition(":")[2])
        until(lambda: sum(clients_of(process, port) for process in api_processes(command)) >= 12)
        time.sleep(0.3)
        began = time.monotonic()
        command.family()
        command.signal(signum)
        assert command.wait() == 0
        assert time.monotonic() - began < 9, "those who waited were answered at once"
        for client in clients:
            client.join(30)
        assert [answer.status_code for answer in answers] == [200] * 12
        assert {answer.json()["status"] for answer in answers} == {"QUEUED"}
        assert command.alive() == []


def test_a_second_signal_stops_them(tmp_path: Path) -> None:
    with several(tmp_path) as (command, url), _trickling(url):
        command.family()
        began = time.monotonic()
        command.signal(signal.SIGINT)
        until(lambda: port_is_closed(url))
        assert command.process.poll() is None, "a request that is coming in is waited for"
        command.signal(signal.SIGINT)
        assert command.wait() == 0
        assert time.monotonic() - began < 9 + STOP_GRACE_S
        assert command.alive() == []


@contextmanager
def _trickling(url: str) -> Iterator[None]:
    """Have a request that never comes in completely."""
    client = http.client.HTTPConnection("127.0.0.1", int(url.rpartition(":")[2]), timeout=20)
    client.connect()
    client.sock.sendall(b"POST /register_function HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{")
    time.sleep(0.3)
    try:
        yield
    finally:
        client.close()


def test_none_outlives_a_killed_parent(tmp_path: Path) -> None:
    with several(tmp_path, count=3) as (command, url):
        until(lambda: len(api_processes(command)) == 3)
        family = command.family()
        command.signal(signal.SIGKILL)
        until(lambda: not [process for process in family if is_alive(process)])
        until(lambda: port_is_closed(url))  # a dead process's last thread may still hold it for a moment


def test_up_with_several_processes(tmp_path: Path) -> None:
    words = up("-w", "1", "--log-format", "json", "--log-level", "info", data=tmp_path / "data")
    with running(words, tmp_path, {"EVERFAAS_PROCESSES": "2"}) as command:
        url, _ = ready(command)
        first = until(lambda: len(found := api_processes(command)) == 2 and found)
        caller = Caller(url)
        assert caller.result(caller.submit(make_double(), 21)) == 42
        first[0].kill()
        until(lambda: not is_alive(first[0]))
        assert caller.result(caller.submit(make_double(), 4)) == 8
        until(lambda: len(api_processes(command)) == 2)
        assert command.end() == 0
        assert command.alive() == []
        roles = {json.loads(line)["role"] for line in command.errors.splitlines()}
        assert {"up", "api 1", "api 2", "dispatcher"} <= roles


def test_the_api_of_up_loses_no_waiting_connection_with_one_process(tmp_path: Path) -> None:
    with running(up("-w", "1", data=tmp_path / "data"), tmp_path) as command:
        url, _ = ready(command)
        (process,) = api_processes(command)
        process.kill()
        assert requests.get(url + "/healthz", timeout=30).status_code == 200, "it waits for the next process"
        assert command.end() == 0


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["api", "--processes", "0"], "--processes can't be '0'"),
        (["api", "--processes", "2", "--store", "memory"], "lives inside one process"),
        (["api", "--processes", "2", "--store", "nonsense://x"], "nonsense"),
        (["api", "--processes", "2", "--host", "300.1.1.1", "--insecure"], "is no address to listen on"),
        (["up", "--processes", "2", "--store", "memory"], "lives in one process"),
    ],
)
def test_what_can_not_be_is_told_once(tmp_path: Path, words: list[str], told: str) -> None:
    with running(everfaas(*words, "--port", "0"), tmp_path) as command:
        assert command.wait() == 2
        assert told in command.errors
        assert command.errors.count("Error: ") == 1
        assert command.alive() == []


def test_a_taken_port_is_told_once(tmp_path: Path) -> None:
    with several(tmp_path) as (_, url):
        words = script("app.py", "--processes", "2", "--port", url.rpartition(":")[2])
        with running(words, tmp_path) as second:
            assert second.wait() == 2
            assert second.errors.count("Error: ") == 1
            assert "--port" in second.errors


def test_an_unfit_store_ends_them_with_1(tmp_path: Path) -> None:
    import redis

    with store(tmp_path) as (_, url):
        client = redis.Redis.from_url(url)
        client.config_set("maxmemory-policy", "allkeys-lru")
        client.close()
        words = script("app.py", "--port", "0", "--processes", "2", "--store", url)
        with running(words, tmp_path) as command:
            assert command.wait() == 1
            assert "starting it again" not in command.errors, "another try would not help"
            assert command.alive() == []


def test_without_a_store_all_of_them_answer_503(tmp_path: Path) -> None:
    environ = {"EVERFAAS_STORE": f"redis://127.0.0.1:{free_port()}/0"}
    words = script("app.py", "--port", "0", "--processes", "2")
    with running(words, tmp_path, environ) as command:
        url = address(command, "accepting on")
        until(lambda: ", 2 processes" in command.errors)
        assert {requests.get(url + "/readyz", timeout=10).status_code for _ in range(10)} == {503}
        command.signal(signal.SIGTERM)
        assert command.wait() == 0


def test_the_limit_on_files_is_raised(tmp_path: Path) -> None:
    with store(tmp_path) as (_, url), running(_limited(64, 4096, url), tmp_path) as command:
        address(command, "API on")
        limits = psutil.Process(command.process.pid).rlimit(psutil.RLIMIT_NOFILE)
        assert limits[0] > 2000
        assert "too few files" not in command.errors
        assert command.end() == 0


def test_a_hard_limit_on_files_is_told(tmp_path: Path) -> None:
    with store(tmp_path) as (_, url), running(_limited(256, 256, url), tmp_path) as command:
        address(command, "API on")
        assert "too few files for 2000 connections: it takes 128" in command.errors
        assert "ulimit -n 2128" in command.errors
        assert command.end() == 0


def _limited(soft: int, hard: int, url: str) -> list[str]:
    code = (
        "import resource, sys; from everfaas_core.cli import main; "
        f"resource.setrlimit(resource.RLIMIT_NOFILE, ({soft}, {hard})); "
        f"sys.exit(main(['api', '--port', '0', '--store', {url!r}]))"
    )
    return ["-c", code]
