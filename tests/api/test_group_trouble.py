"""Streams of a group's results when the store goes away, or a reader takes nothing."""

from __future__ import annotations

import socket
import threading
import time

import pytest

from everfaas_core.api import ApiSettings
from everfaas_core.api.feeds import PAGE_BYTES
from everfaas_core.api.server import UNSENT_BYTES
from everfaas_core.model.records import GroupPage
from everfaas_core.ports import Store
from tests.api.driving import Served, TinyDispatcher, assert_error, eventually, read_all
from tests.api.streaming import Stream, submit
from tests.api.test_groups import URL, free_places
from tests.api.test_store_away import Cable

SIZE = 100_000
COUNT = 100


def test_no_stream_begins_without_a_store(store: Store) -> None:
    cable = Cable(store)
    with Served(cable, ApiSettings(threads=8)) as api:  # type: ignore[arg-type]  # it is one, by delegation
        cable.cut = True
        for _ in range(3):
            began = time.monotonic()
            assert_error(api.get(URL), 503, "store_unavailable")
            assert time.monotonic() - began < 2
        eventually(lambda: free_places(api) == 100)
        cable.cut, cable.refuses = False, True
        eventually(lambda: api.get(f"{URL}?wait_s=0").json()["error"]["code"] == "store_refused")
        cable.refuses = False
        assert Stream(api, wait_s=0).end() == "time"


def test_a_stream_outlives_the_stores_absence(store: Store, dispatcher: TinyDispatcher) -> None:
    cable = Cable(store)
    settings = ApiSettings(threads=8, reread_s=60, heartbeat_s=0.2)
    with Served(cable, settings) as api:  # type: ignore[arg-type]  # it is one, by delegation
        ids = submit(api, 40)
        streams = [Stream(api, until="done", wait_s=50) for _ in range(5)]
        dispatcher.run(10)
        assert [stream.ids(10) for stream in streams] == [ids[:10]] * 5
        cable.cut = True
        dispatcher.run(10)
        time.sleep(1)
        dispatcher.run(10)
        assert api.get("/healthz").status_code == 200
        cable.cut = False
        dispatcher.run(10)
        assert [stream.ids() for stream in streams] == [ids[10:]] * 5
        assert streams[0].blanks > 0  # meanwhile it said that it was there


def test_a_stream_that_can_not_go_on_says_so(store: Store, dispatcher: TinyDispatcher) -> None:
    cable = Cable(store)
    with Served(cable, ApiSettings(threads=8)) as api:  # type: ignore[arg-type]  # it is one, by delegation
        submit(api, 2)
        stream = Stream(api, wait_s=50)
        cable.refuses = True
        dispatcher.run(1)
        assert stream.ids() == []
        assert stream.last is not None
        assert stream.last["end"] == "error"
        cable.refuses = False
        assert len(Stream(api, wait_s=0, cursor=stream.cursor).ids()) == 1


def test_one_failed_read_is_enough_for_all(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """A store that takes its time to fail does not make readers fail one after the other."""
    cable = Cable(store)
    settings = ApiSettings(threads=30, heartbeat_s=60)
    with Served(cable, settings) as api:  # type: ignore[arg-type]  # it is one, by delegation
        submit(api, 1)
        streams = [Stream(api, wait_s=2) for _ in range(20)]
        real, tries = store.group_results, []

        def slow(*args: object, **kwargs: object) -> GroupPage:
            tries.append(time.monotonic())
            time.sleep(0.5)
            cable.check()
            return real(*args, **kwargs)  # type: ignore[arg-type]  # as they came

        monkeypatch.setattr(cable, "group_results", slow, raising=False)
        cable.cut = True
        api.app.extensions["everfaas"].hub._wake_all()
        assert [stream.end() for stream in streams] == ["time"] * 20
        assert len(tries) <= 6


def backlog(api: Served) -> int:
    return sum(channel.total_outbufs_len for channel in tuple(api.server._server.active_channels.values()))


def ask(api: Served, query: str = "") -> socket.socket:
    """Begin a stream, and read nothing of it."""
    connection = socket.create_connection(("127.0.0.1", api.port), timeout=30)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 * 1024)
    connection.sendall(f"GET {URL}?{query} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    return connection


def test_a_slow_reader_gets_all_and_the_server_keeps_little(store: Store, dispatcher: TinyDispatcher) -> None:
    with Served(store, ApiSettings(threads=2)) as api:
        ids = submit(api, COUNT)
        dispatcher.run(COUNT, result=b"\xff" * SIZE)
        slow = [ask(api, "until=done") for _ in range(3)]  # more than there are threads that work
        eventually(lambda: backlog(api) > 3 * UNSENT_BYTES // 2)
        most = 0
        for _ in range(20):
            time.sleep(0.05)
            most = max(most, backlog(api))
            assert api.get("/healthz").status_code == 200
        assert most < 3 * (UNSENT_BYTES + 2 * (PAGE_BYTES + SIZE))  # of 13 MB each
        received: list[bytes] = [b""] * 3
        threads = [threading.Thread(target=lambda n=n: received.__setitem__(n, read_all(slow[n]))) for n in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        for raw in received:
            assert [raw.count(f'"task_id":"{task}"'.encode()) for task in ids] == [1] * COUNT
            assert raw.count(b'"end":"done"') == 1
        for connection in slow:
            connection.close()


def test_a_reader_that_takes_nothing_is_cut(store: Store, dispatcher: TinyDispatcher) -> None:
    with Served(store, ApiSettings(threads=2, send_s_max=0.5)) as api:
        submit(api, COUNT)
        dispatcher.run(COUNT, result=b"\xff" * SIZE)
        dead = [ask(api) for _ in range(3)]
        eventually(lambda: free_places(api) == 97)
        eventually(lambda: free_places(api) == 100)
        for connection in dead:
            assert b'"end"' not in read_all(connection)  # what had been sent, and no end
            connection.close()


def test_a_server_that_goes_does_not_wait_for_a_reader_that_takes_nothing(
    store: Store, dispatcher: TinyDispatcher
) -> None:
    api = Served(store, ApiSettings(threads=2, drain_s=0.5))
    submit(api, COUNT)
    dispatcher.run(COUNT, result=b"\xff" * SIZE)
    dead = ask(api)
    eventually(lambda: backlog(api) > UNSENT_BYTES // 2)
    before = {thread.ident for thread in threading.enumerate() if thread.name == "request"}
    assert before
    api.__exit__()
    eventually(lambda: not before & {thread.ident for thread in threading.enumerate()})
    dead.close()
