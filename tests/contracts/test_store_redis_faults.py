"""What the Redis store does when its server is flushed, restarted, silent, full, unfit, or something else."""

from __future__ import annotations

import os
import select
import signal
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from everfaas_core.embedded import EmbeddedStore
from everfaas_core.model.errors import ConfigError, EverfaasError, StoreRefused, StoreUnavailable, UnknownFunction
from everfaas_core.model.records import Finish, Start, TaskDefaults, Turn
from everfaas_core.model.states import Cause, Status
from everfaas_core.ports import Notice
from everfaas_core.testing.faults import persistently
from everfaas_core.testing.store_scene import PLENTY, WORKER, A, B, Scene, eventually, hear, hear_ended, ids_of, report
from everfaas_plugins.redis import make_store
from everfaas_plugins.redis.address import parse_url
from everfaas_plugins.redis.server import CONNECTIONS_MAX
from everfaas_plugins.redis.store import RedisStore, _fit
from everfaas_plugins.redis.turns import calls_of

PATIENT_S = 10.0  # what should take 2 s at most, on a machine that does other things too


@pytest.fixture
def server(tmp_path: Path) -> Iterator[EmbeddedStore]:
    """A server that the test may mistreat."""
    with EmbeddedStore(tmp_path / "data") as server:
        yield server


@pytest.fixture
def store(server: EmbeddedStore) -> Iterator[RedisStore]:
    store = RedisStore(server.url)
    store.prepare()
    yield store
    store.close()


@pytest.fixture
def scene(store: RedisStore) -> Scene:
    return Scene(store)


def command(store: RedisStore, *words: str) -> object:
    return store._server.command(*words)


# ── a server that forgets ────────────────────────────────────────────────────────────────────────────────────────────


def test_lost_scripts_heal_by_themselves(scene: Scene, store: RedisStore) -> None:
    tasks = scene.submit(3)
    for step in (
        lambda: scene.claim(3) and None,
        lambda: [scene.start(task) for task in tasks] and None,
        lambda: scene.turn(report=report(), sweep=True, claim=1) and None,
        lambda: scene.finish(tasks[0]) and None,
        lambda: store.cancel(tasks[1:]) and None,
        lambda: scene.record(tasks[0]) and None,
    ):
        command(store, "SCRIPT", "FLUSH")
        step()
    assert list(store.statuses(tasks)) == ["COMPLETED", "RUNNING", "RUNNING"]
    assert set(scene.turn(claim=1).cancels) == set(tasks[1:])


def test_a_flushed_store_starts_anew(scene: Scene, store: RedisStore) -> None:
    task = scene.running()
    scene.turn(report=report())
    command(store, "FLUSHALL")
    command(store, "SCRIPT", "FLUSH")
    assert scene.finish(task) is False
    assert scene.status(task) is None
    with pytest.raises(UnknownFunction):
        store.submit([scene.spec(scene.function("gone")), scene.spec(type(task)("never"))], PLENTY)  # type: ignore[arg-type]
    assert scene.turn(report=report(), claim=1).evicted is True  # its claims are gone with all the rest
    again = scene.running()
    assert scene.turn(report=report(), sweep=True).evicted is False
    assert scene.finish(again)
    assert store.secret() != scene.secret


# ── a server that goes away ──────────────────────────────────────────────────────────────────────────────────────────


def test_all_is_well_after_a_restart(server: EmbeddedStore, scene: Scene, store: RedisStore) -> None:
    tasks = scene.submit(2)
    scene.claim(1)
    scene.start(tasks[0])
    with_watch = store.watch("ended")
    assert server.pid is not None
    os.kill(server.pid, signal.SIGKILL)
    server.wait()
    for _ in range(3):
        with pytest.raises(StoreUnavailable, match="everfaas store"):
            scene.turn(claim=1)
    assert select.select([with_watch.fileno()], [], [], PATIENT_S)[0]
    with pytest.raises(StoreUnavailable):
        with_watch.read()
    with pytest.raises(StoreUnavailable):
        with_watch.read()
    with pytest.raises(StoreUnavailable):
        store.watch("work")
    server.start()
    assert list(with_watch.read()) == [Notice(lost=True)]
    assert ids_of(scene.claim(5)) == tasks[1:]
    assert scene.finish(tasks[0])
    assert hear_ended(with_watch, 1) == [tasks[0]]
    with_watch.close()


def test_connections_that_the_server_closed_are_not_used(server: EmbeddedStore, scene: Scene) -> None:
    (task,) = scene.submit()
    server.stop()
    server.start()  # at the same address, and nobody noticed
    assert scene.status(task) == Status.QUEUED


def test_a_watch_that_the_server_dropped_is_made_again(store: RedisStore, scene: Scene) -> None:
    watch = store.watch("ended")
    before = watch.fileno()
    command(store, "CLIENT", "KILL", "TYPE", "pubsub")
    assert hear(watch) == [Notice(lost=True)]
    assert watch.fileno() == before
    (task,) = scene.submit()
    store.cancel([task])
    assert hear_ended(watch, 1) == [task]
    watch.close()


def test_a_silent_server_is_given_up_in_time_and_nothing_claimed_is_lost(server: EmbeddedStore, scene: Scene) -> None:
    tasks = scene.submit(6)
    scene.turn(report=report())
    assert server.pid is not None
    os.kill(server.pid, signal.SIGSTOP)
    try:
        for _ in range(2):
            begun = time.monotonic()
            with pytest.raises(StoreUnavailable):
                scene.claim(3)  # the server finds it when it wakes, and its answer meets nobody
            assert time.monotonic() - begun < PATIENT_S
    finally:
        os.kill(server.pid, signal.SIGCONT)
    first = scene.claim(3)
    rest = scene.claim(9)
    assert ids_of(first) == tasks[:3]
    assert ids_of(rest) == tasks[3:]
    assert all(scene.start(task) for task in tasks)


def test_a_turn_that_arrives_after_a_later_one_is_not_applied(scene: Scene, store: RedisStore) -> None:
    tasks = scene.submit(6)
    scene.turn(report=report())
    tags = store._tags_of(A)
    start = Start(task_id=tasks[0], attempt=1, worker=WORKER)
    turn = Turn(dispatcher_id=A, starts=(start,), sweep=True, claim=2, lease_s=60.0)
    tags.begin(time.time_ns() // 1000)
    late = calls_of(turn, tags, store._conclusions)
    assert ids_of(scene.claim(2)) == tasks[:2]
    store._server.run(*late)
    assert ids_of(scene.claim(9)) == tasks[2:]
    assert scene.status(tasks[0]) == Status.QUEUED
    assert all(scene.start(task) for task in tasks)


def test_nobody_listens(tmp_path: Path) -> None:
    for url in ("redis://127.0.0.1:1/0", f"unix://{tmp_path}/none.sock"):
        with pytest.raises(StoreUnavailable, match="everfaas store"):
            RedisStore(url).prepare()


# ── something that is not a store ────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("answer", "kind"),
    [(b"HTTP/1.1 400 Bad Request\r\n\r\n", StoreRefused), (b"", StoreUnavailable), (None, StoreUnavailable)],
)
def test_another_kind_of_server(answer: bytes | None, kind: type[EverfaasError]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        over = threading.Event()

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                if answer is None:
                    over.wait(30.0)
                else:
                    connection.recv(4096)
                    connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            port = listener.getsockname()[1]
            begun = time.monotonic()
            with pytest.raises(kind, match=str(port)):
                RedisStore(f"redis://127.0.0.1:{port}/0").prepare()
            assert time.monotonic() - begun < PATIENT_S
        finally:
            over.set()
            thread.join()


def test_a_login_that_is_refused(server: EmbeddedStore, store: RedisStore) -> None:
    command(store, "CONFIG", "SET", "requirepass", "geheim")
    path = server.url.removeprefix("unix://")
    for url in (server.url, f"unix://:falsch@{path}"):
        with pytest.raises(StoreRefused, match="USER:PASSWORD") as caught:
            RedisStore(url).prepare()
        assert "falsch" not in str(caught.value)
    with_password = RedisStore(f"unix://:geheim@{path}")
    with_password.prepare()
    assert with_password.health().kind.startswith("valkey 9")
    with_password.close()


def test_a_server_that_evicts_is_refused(store: RedisStore) -> None:
    command(store, "CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
    with pytest.raises(StoreRefused, match="maxmemory-policy noeviction"):
        store.prepare()


@pytest.mark.parametrize(
    ("info", "word"),
    [
        ({"redis_version": "6.2.14", "maxmemory_policy": "noeviction"}, "6.2.14"),
        ({"maxmemory_policy": "noeviction"}, "unknown"),
        ({"redis_version": "7.0.0", "maxmemory_policy": "noeviction", "redis_mode": "cluster"}, "cluster"),
        ({"redis_version": "7.0.0"}, "unknown"),
    ],
)
def test_an_unfit_server_is_refused(info: dict[str, str], word: str) -> None:
    with pytest.raises(StoreRefused, match=word):
        _fit("redis://here", info)


def test_fit_servers() -> None:
    fit = {"maxmemory_policy": "noeviction", "redis_mode": "standalone"}
    assert _fit("x", fit | {"redis_version": "7.0.15"}) == "redis 7.0.15"
    assert _fit("x", fit | {"redis_version": "8.2.1"}) == "redis 8.2.1"
    assert _fit("x", fit | {"redis_version": "7.2.4", "valkey_version": "7.2.5"}) == "valkey 7.2.5"


# ── a server at its limits ───────────────────────────────────────────────────────────────────────────────────────────


def test_many_threads_share_few_connections(scene: Scene, store: RedisStore) -> None:
    function = scene.function()
    failures: list[Exception] = []

    def work() -> None:
        try:
            for _ in range(5):
                (task,) = store.submit([scene.spec(function)], PLENTY)
                assert list(store.statuses([task])) == ["QUEUED"]
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(64)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert store.health().queued == 64 * 5
    clients = command(store, "CLIENT", "LIST")
    assert isinstance(clients, bytes)
    assert 1 <= len(clients.splitlines()) <= CONNECTIONS_MAX
    store.close()
    with pytest.raises(StoreUnavailable):
        store.health()
    store.close()


def test_a_claim_stops_at_so_many_bytes(scene: Scene) -> None:
    tasks = scene.submit(5, payload=b"x" * (12 * 1024 * 1024))
    reply = scene.turn(claim=5)
    assert ids_of(list(reply.claimed)) == tasks[:3]
    assert reply.next_due_s == 0  # there is more
    assert ids_of(scene.claim(5)) == tasks[3:]
    result = b"r" * (12 * 1024 * 1024)
    assert all(scene.start(task) for task in tasks)
    finishes = tuple(
        Finish(task_id=task, attempt=1, status=Status.COMPLETED, cause=Cause.OK, result=result) for task in tasks
    )
    assert all(persistently(lambda: scene.turn(finishes=finishes).finished))  # a slow disk may cost a timeout or two
    assert scene.result(tasks[-1]) == result


def test_nothing_is_left_of_what_has_expired(scene: Scene, store: RedisStore) -> None:
    function = scene.function()
    scene.turn(A, report=report(A))

    def keys() -> set[bytes]:
        names = command(store, "KEYS", "*")
        assert isinstance(names, list)
        return {name for name in names if not name.startswith(b"ef:turn:")}  # these expire by themselves

    before = keys()
    for n in range(3):
        fields = {"group": f"g{n}", "idempotency_key": f"k{n}", "deadline_s": 60.0, "result_ttl_s": 0.0}
        done = scene.submit(1, function, **fields)
        scene.claim(1)
        scene.start(done[0])
        scene.finish(done[0])
        stopped = scene.submit(1, function, result_ttl_s=0.0, delay_s=9.0)
        store.cancel(stopped)
    killed = scene.running(result_ttl_s=0.0)
    store.cancel([killed])
    scene.finish(killed, cause=Cause.CANCELLED)
    scene.lapse(A)
    scene.turn(B, report=report(B), sweep=True)
    store.resign(B)
    scene.turn(A, report=report(A), sweep=True)
    scene.turn(A, report=report(A), sweep=True)
    assert keys() <= before | {b"ef:queued", b"ef:orphans", b"ef:ends", b"ef:concluded"}  # counters


def test_stores_with_different_prefixes_do_not_meet(server: EmbeddedStore, scene: Scene) -> None:
    (task,) = scene.submit()
    for other in (RedisStore(f"{server.url}?prefix=x:"), make_store(f"{server.url}?prefix=y:", {}, TaskDefaults())):
        assert list(other.statuses([task])) == [None]
        assert other.health().queued == 0
        assert other.secret() != scene.secret
        other.close()


# ── addresses ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_urls() -> None:
    address = parse_url("redis://me:p%40ss@example:6380/3?prefix=a:")
    assert address.shown == "redis://example:6380/3"
    assert address.prefix == "a:"
    assert {name: address.settings[name] for name in ("host", "port", "db", "username", "password")} == {
        "host": "example",
        "port": 6380,
        "db": 3,
        "username": "me",
        "password": "p@ss",
    }
    assert parse_url("redis://").shown == "redis://127.0.0.1:6379/0"
    assert parse_url("redis://[::1]:7/0").settings["host"] == "::1"
    assert parse_url("unix:///a%20b.sock?db=2").settings == {"path": "/a b.sock", "db": 2}
    assert parse_url("rediss://h?ssl_ca_certs=/ca.pem").settings["ssl_ca_certs"] == "/ca.pem"


@pytest.mark.parametrize(
    "url",
    [
        "http://x",
        "redis://x:port/0",
        "redis://x/zero",
        "unix://",
        "redis://x?socket_timeout=9",
        "redis://x?ssl_ca_certs=a",
    ],
)
def test_urls_that_are_wrong(url: str) -> None:
    with pytest.raises(ConfigError):
        RedisStore(url)


def test_a_report_is_gone_when_its_dispatcher_is(scene: Scene, store: RedisStore) -> None:
    scene.turn(A, report=report(A))
    store.resign(A)
    eventually(lambda: list(store.fleet()) == [])
    assert store.health().slots == 0
