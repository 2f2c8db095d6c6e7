"""Listening, draining, and leaving nothing behind."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest
import requests

from everfaas_core.api import ApiServer, ApiSettings, create_app
from everfaas_core.api.connection import Connection
from everfaas_core.api.loop import TIMED_TURN_S
from everfaas_core.model.errors import ConfigError, PortInUse
from everfaas_core.ports import Store
from everfaas_core.runtime.signals import STOP
from tests.api.driving import CALL, FUNCTION, Served, TinyDispatcher, eventually, read_all

SETTINGS = ApiSettings(threads=10)


def test_port_0_is_any_free_one(store: Store) -> None:
    with Served(store, SETTINGS) as one, Served(store, SETTINGS) as two:
        assert one.port != two.port
        assert one.url == f"http://127.0.0.1:{one.port}"
        assert requests.get(one.url, timeout=30).json()["message"]


def test_a_taken_port_is_told_with_a_remedy(store: Store) -> None:
    with Served(store, SETTINGS) as other:
        with pytest.raises(PortInUse, match=f"port {other.port}") as caught:
            ApiServer(create_app(store, SETTINGS), "127.0.0.1", other.port, SETTINGS)
        assert "--port" in str(caught.value.hint)


@pytest.mark.parametrize("host", ["no such host", "300.1.1.1", "192.0.2.1"])
def test_a_wrong_address_is_told(store: Store, host: str) -> None:
    with pytest.raises(ConfigError) as caught:
        ApiServer(create_app(store, SETTINGS), host, 0, SETTINGS)
    assert "--host" in str(caught.value.hint)


@pytest.mark.parametrize("host", ["localhost", "::1", "[::1]"])
def test_names_and_ipv6(store: Store, host: str) -> None:
    if "::1" in host and not socket.has_ipv6:
        pytest.skip("no IPv6 here")
    try:
        server = ApiServer(create_app(store, SETTINGS), host, 0, SETTINGS)
    except ConfigError:
        assert host != "localhost"
        pytest.skip("no IPv6 loopback here")
    assert server.address.startswith("http://127.0.0.1:" if host == "localhost" else "http://[::1]:")
    server.close()
    server.close()


def test_a_port_is_free_again_at_once(store: Store) -> None:
    with Served(store, SETTINGS) as served:
        served.get("/")
        port = served.port
    server = ApiServer(create_app(store, SETTINGS), "127.0.0.1", port, SETTINGS)
    server.close()


def test_nothing_is_left(store: Store) -> None:
    with Served(store, SETTINGS) as served:  # lazily made things are made once
        served.get("/")
    threads, files = threading.active_count(), len(os.listdir("/proc/self/fd"))
    with Served(store, SETTINGS) as served:
        served.get(f"/result/{served.execute(served.register())}?wait=0.05")
        url = served.url
    assert threading.active_count() == threads
    eventually(lambda: len(os.listdir("/proc/self/fd")) <= files)
    with pytest.raises(requests.ConnectionError):
        requests.get(url, timeout=5)


def test_a_drain_finishes_what_runs_and_lets_nobody_in(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    api = Served(store, SETTINGS)
    function_id = api.register()
    entered, leave = threading.Event(), threading.Event()
    real = store.submit

    def slow(*given: object) -> object:
        entered.set()
        leave.wait(20)
        return real(*given)  # type: ignore[arg-type]  # as they came

    monkeypatch.setattr(store, "submit", slow, raising=False)
    answers: list[requests.Response] = []
    body = {"function_id": function_id, "payload": CALL}
    client = threading.Thread(
        target=lambda: answers.append(requests.post(api.url + "/execute_function", json=body, timeout=30))
    )
    client.start()
    assert entered.wait(20)
    api.stop.request()

    eventually(lambda: refuses(api))
    assert api.thread.is_alive()
    leave.set()
    client.join(30)
    api.__exit__()
    assert answers[0].status_code == 201
    assert answers[0].headers["Connection"] == "close"


def refuses(api: Served) -> bool:
    try:
        socket.create_connection(("127.0.0.1", api.port), timeout=5).close()
    except ConnectionRefusedError:
        return True
    return False


def test_a_drain_takes_a_request_that_has_begun_to_come_in(store: Store) -> None:
    api = Served(store, SETTINGS)
    body = json.dumps({"name": "f", "payload": FUNCTION}).encode()
    with socket.create_connection(("127.0.0.1", api.port), timeout=20) as connection:
        connection.sendall(b"POST /register_function HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n")
        connection.sendall(f"Content-Length: {len(body)}\r\n\r\n".encode() + body[:100])
        eventually(lambda: any(c.request is not None for c in api.server._server.active_channels.values()))
        api.stop.request()
        eventually(lambda: refuses(api))
        connection.sendall(body[100:])
        raw = read_all(connection)
    api.__exit__()
    assert raw.startswith(b"HTTP/1.1 201 ")
    assert b"Connection: close" in raw


def test_a_drain_is_bounded_and_a_second_request_ends_it(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    leave = threading.Event()
    monkeypatch.setattr(store, "health", lambda: leave.wait(60), raising=False)
    for drain_s, level in ((0.2, None), (60.0, STOP)):
        api = Served(store, ApiSettings(threads=10, drain_s=drain_s))
        client = threading.Thread(target=lambda url=api.url: _ignore_errors(url + "/readyz"))
        client.start()
        eventually(
            lambda served=api: any(channel.requests for channel in served.server._server.active_channels.values())
        )
        began = time.monotonic()
        api.stop.request()
        if level is not None:
            api.stop.request(level)
        api.thread.join(50)
        assert not api.thread.is_alive()
        assert time.monotonic() - began < 30
        client.join(30)
        api.stop.close()
    leave.set()


def _ignore_errors(url: str) -> None:
    with contextlib.suppress(requests.RequestException):
        requests.get(url, timeout=40)


def test_readiness_ends_with_the_drain(store: Store, dispatcher: TinyDispatcher) -> None:
    dispatcher.join()
    with Served(store, SETTINGS) as api:
        assert api.get("/readyz").status_code == 200
        api.app.extensions["everfaas"].hub.drain()
        assert api.get("/readyz").status_code == 503
        assert api.get("/healthz").status_code == 200


SCRIPT = """
from everfaas_plugins.memory import everfaas_stores
from everfaas_core.api import ApiServer, ApiSettings, create_app
from everfaas_core.api.connection import Connection
from everfaas_core.api.loop import TIMED_TURN_S
from everfaas_core.model.records import TaskDefaults
from everfaas_core.runtime.signals import StopRequest
stop = StopRequest()
stop.install()
(provider,) = everfaas_stores()
store = provider.factory("memory", {}, TaskDefaults())
server = ApiServer(create_app(store, ApiSettings()), "127.0.0.1", 0, ApiSettings())
print(server.address, flush=True)
server.run(stop)
"""


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_process_cleanly(signum: int) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        assert requests.get(url, timeout=30).status_code == 200
        process.send_signal(signum)
        _, errors = process.communicate(timeout=30)
        assert (process.returncode, errors) == (0, "")
    finally:
        process.kill()
        process.wait()


def test_requests_that_wait_for_a_thread_are_no_news(api: Served, caplog: pytest.LogCaptureFixture) -> None:
    """waitress would warn of each of them, and long polls make that an everyday thing."""
    task_id = api.execute(api.register())
    barrier = threading.Barrier(40)

    def ask() -> None:
        barrier.wait()
        requests.get(f"{api.url}/result/{task_id}?wait=1", timeout=60)

    with caplog.at_level(logging.WARNING):
        threads = [threading.Thread(target=ask) for _ in range(40)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert not [record for record in caplog.records if record.name.startswith("waitress")]


def test_connections_that_wait_are_not_asked_in_every_turn(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many there are, a request of somebody else costs what it costs alone."""
    asked: list[object] = []
    real = Connection.readable
    with Served(store, SETTINGS) as api:
        idle = [socket.create_connection(("127.0.0.1", api.port), timeout=20) for _ in range(100)]
        eventually(lambda: len(api.server._server.active_channels) == 100)
        monkeypatch.setattr(Connection, "readable", lambda self: (asked.append(self), real(self))[1])
        began = time.monotonic()
        for _ in range(20):
            assert api.get("/healthz").status_code == 200
        looks = 2 + int((time.monotonic() - began) / TIMED_TURN_S)  # at all of them, for their deadlines
        ours = {one.getsockname() for one in idle}
        those = {one for one in api.server._server.active_channels.values() if one.addr in ours}
        assert len(those) == 100
        # Not the one that asks for /healthz: how often that is looked at varies with the threads' turns.
        assert len([one for one in asked if one in those]) <= 100 * looks
        for client in idle:
            client.close()
        eventually(lambda: len(api.server._server.active_channels) <= 1)


def test_an_idle_server_does_not_turn(store: Store) -> None:
    with Served(store, SETTINGS) as api:
        assert api.get("/healthz").status_code == 200
        api.http.close()
        eventually(lambda: not api.server._server.active_channels)
        assert api.server._loop._bounded_s(None) is None
