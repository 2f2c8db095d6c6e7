"""Trouble on real servers of both kinds: full, read-only, unable to save, slow, silent, flushed, killed under load."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from redis._parsers.base import BaseParser

from everfaas_core.embedded import EmbeddedStore
from everfaas_core.model.errors import EverfaasError, StoreUnavailable
from everfaas_core.model.ids import TaskId, WorkerId
from everfaas_core.model.output import Printed, Progressed, Stream
from everfaas_core.model.records import (
    Adopt,
    Finish,
    FunctionOptions,
    FunctionRecord,
    Start,
    TaskFilter,
    TaskSpec,
    Turn,
)
from everfaas_core.model.states import Cause, Status
from everfaas_core.ports import Notice
from everfaas_core.testing.house import House
from everfaas_core.testing.servers import embedded_store, redis_server
from everfaas_core.testing.store_scene import (
    PLENTY,
    WORKER,
    A,
    B,
    Scene,
    eventually,
    hear,
    hear_ended,
    ids_of,
    report,
)
from everfaas_plugins import local, round_robin
from everfaas_plugins.redis import server as server_module
from everfaas_plugins.redis import turns as turns_module
from everfaas_plugins.redis.scripts import load_scripts
from everfaas_plugins.redis.store import RedisStore

PATIENT_S = 20.0  # what should take 2 s at most, on a machine that does other things too
LETS_NEW_WORK_IN = {"submit", "retry", "put_function"}
CAN_DO_WITHOUT = {"output"}  # what there is no memory for is left out
ONLY_READS = {"fleet", "functions", "group", "list", "log", "records", "results"}


@pytest.fixture(params=["valkey", "redis"])
def data(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """A server of each kind that the test may mistreat, and the directory in which it saves."""
    if request.param == "redis" and shutil.which("redis-server") is None:
        pytest.skip("there is no redis-server on PATH")
    with embedded_store(tmp_path) if request.param == "valkey" else redis_server(tmp_path) as url:
        yield url, tmp_path


@pytest.fixture
def store(data: tuple[str, Path]) -> Iterator[RedisStore]:
    store = RedisStore(data[0])
    store.prepare()
    yield store
    store.close()


@pytest.fixture
def scene(store: RedisStore) -> Scene:
    return Scene(store)


def command(store: RedisStore, *words: str | int) -> Any:
    return store._server.command(*words)


def info(store: RedisStore, section: str, name: str) -> str:
    for line in command(store, "INFO", section).decode().splitlines():
        if line.startswith(f"{name}:"):
            return str(line.partition(":")[2])
    raise AssertionError(f"INFO {section} has no {name}")


def keys(store: RedisStore) -> set[bytes]:
    return {key for key in command(store, "KEYS", "*") if not key.startswith(b"ef:turn:")}


def new_work(scene: Scene, failed: TaskId) -> list[Callable[[], object]]:
    """Return all calls that let new work in."""
    specs = [scene.spec(scene.function()), scene.spec(delay_s=9.0, group="g", deadline_s=99.0, idempotency_key="k")]
    record = FunctionRecord(function_id=specs[0].function_id, name="new", payload=b"", options=FunctionOptions())
    renamed = FunctionRecord(function_id=type(record.function_id)("new"), name="n", payload=b"", options=record.options)
    return [
        lambda: scene.store.submit(specs, PLENTY),
        lambda: scene.store.submit(specs[1:], PLENTY),
        lambda: scene.store.put_function(renamed),
        lambda: scene.store.retry(failed, scene.new_id()),
    ]


def ended_task(scene: Scene) -> TaskId:
    task = scene.running()
    assert scene.finish(task, cause=Cause.RAISED)
    return task


# ── out of memory ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_scripts_say_what_they_may_do() -> None:
    for name, script in load_scripts().items():
        first = script.text.partition("\n")[0]
        if name in LETS_NEW_WORK_IN | CAN_DO_WITHOUT:
            assert not first.startswith("#!"), name
        else:
            assert first == ("#!lua flags=no-writes" if name in ONLY_READS else "#!lua flags=allow-oom"), name


def test_a_full_server_lets_nothing_in_and_drains(scene: Scene, store: RedisStore) -> None:
    failed = ended_task(scene)
    ids = scene.submit(8, scene.function("other"))
    calls = new_work(scene, failed)
    scene.turn(A, report=report(A))
    assert len(scene.claim(3)) == 3
    assert scene.start(ids[0])
    assert scene.start(ids[1])
    before = keys(store)
    command(store, "CONFIG", "SET", "maxmemory", "1")
    for call in calls:
        with pytest.raises(StoreUnavailable, match="maxmemory"):
            call()
    assert keys(store) == before
    known = scene.record(ids[3])
    assert store.submit([TaskSpec(task_id=ids[3], function_id=known.function_id, payload=b"again")], PLENTY) == [
        ids[3]
    ]  # a repeated submit writes nothing
    assert store.secret() == scene.secret
    # what is in goes on, in every way there is
    assert scene.start(ids[2])
    assert scene.finish(ids[0], result=b"r" * 100_000)
    scene.requeue(ids[1], delay_s=0.01)
    assert list(store.cancel([ids[2], ids[7]])) == ["RUNNING", "CANCELLED"]
    assert store.drain_worker(WORKER)
    reply = scene.turn(A, report=report(A), sweep=True)
    assert (reply.cancels, reply.drains) == ((ids[2],), (WORKER,))
    (adopted,) = scene.turn(B, adopts=(Adopt(task_id=ids[2], attempt=1, worker=WORKER),)).adoptions
    assert adopted is not None
    assert scene.finish(ids[2], cause=Cause.CANCELLED, dispatcher=B)
    assert len(scene.claim(2)) == 2
    store.resign(A)
    assert scene.turn(B, sweep=True).adopted == ()
    claimed = eventually(lambda: len(store.tasks(ids)) and scene.claim(9, B))
    claimed += scene.claim(9, B)
    assert set(ids_of(claimed)) <= {ids[1], *ids[3:7]}
    for task in claimed:
        assert scene.start(task.task_id, task.attempt + 1, B)
        assert scene.finish(task.task_id, task.attempt + 1, dispatcher=B)
    command(store, "CONFIG", "SET", "maxmemory", "0")
    for call in calls:
        call()


def test_on_a_full_server_output_is_left_out_and_keeps_nothing_from_its_end(scene: Scene, store: RedisStore) -> None:
    task = scene.running()
    scene.turn(printed=(Printed(task, 1, Stream.STDOUT, 0, b"before"),), progress=(Progressed(task, 1, 1),))
    command(store, "CONFIG", "SET", "maxmemory", "1")
    scene.turn(printed=(Printed(task, 1, Stream.STDOUT, 6, b"full"),), progress=(Progressed(task, 1, 2),))
    end = Finish(task_id=task, attempt=1, status=Status.COMPLETED, cause=Cause.OK, result=b"r")
    assert scene.turn(printed=(Printed(task, 1, Stream.STDOUT, 10, b"full"),), finishes=(end,)).finished == (True,)
    command(store, "CONFIG", "SET", "maxmemory", "0")
    page = store.task_log(task, None, bytes_max=1000)
    assert page is not None
    assert [piece.text for piece in page.pieces] == [b"before"]
    assert page.status == Status.COMPLETED
    assert scene.record(task).progress is not None


def test_output_costs_keys_only_where_there_is_some_and_leaves_none(scene: Scene, store: RedisStore) -> None:
    quiet = scene.running()
    scene.finish(quiet)
    before = keys(store)
    loud = scene.running(result_ttl_s=0.05)
    scene.turn(printed=(Printed(loud, 1, Stream.STDOUT, 0, b"x"),), progress=(Progressed(loud, 1, 1),))
    assert {key for key in keys(store) - before if b":l:" in key} == {f"ef:l:{loud}".encode()}
    scene.finish(loud)
    eventually(lambda: scene.turn(sweep=True) and keys(store) == before)


def test_a_submit_is_all_or_nothing_wherever_memory_ends(scene: Scene, store: RedisStore) -> None:
    """The limit lies a little higher each time: before the script, within it, behind it."""
    function = scene.function()
    fields = {"payload": b"p" * 2000, "deadline_s": 900.0, "group": "g", "tags": ("t",)}
    stored, refused, crossed = 0, 0, 0
    for offset in range(0, 400_000, 16_000):
        specs = [
            scene.spec(function, delay_s=n % 2 * 500.0, idempotency_key=f"{offset}-{n}", **fields) for n in range(60)
        ]  # type: ignore[arg-type]
        limit = int(info(store, "memory", "used_memory")) + offset
        command(store, "CONFIG", "SET", "maxmemory", limit)
        with contextlib.suppress(StoreUnavailable):
            store.submit(specs, PLENTY)
        crossed += int(info(store, "memory", "used_memory")) > limit
        command(store, "CONFIG", "SET", "maxmemory", "0")
        statuses = set(store.statuses([spec.task_id for spec in specs]))
        assert statuses in ({None}, {"QUEUED"})
        stored += statuses == {"QUEUED"}
        refused += statuses == {None}
        assert store.health().queued == 60 * stored
        assert len(command(store, "KEYS", "ef:t:*")) == len(command(store, "KEYS", "ef:idem:*")) == 60 * stored
    assert stored
    assert refused
    assert crossed, "the limit never lay within the script"
    assert len(scene.claim(2000)) == 30 * stored


# ── it answers, and accepts nothing ──────────────────────────────────────────────────────────────────────────────────


def test_a_replica_is_unavailable_and_still_tells(scene: Scene, store: RedisStore) -> None:
    failed = ended_task(scene)
    calls = new_work(scene, failed)
    task = scene.running()
    calls += [lambda: scene.finish(task), lambda: scene.turn(A, report=report(A)), lambda: store.cancel([task])]
    command(store, "REPLICAOF", "127.0.0.1", "1")
    for call in calls:
        with pytest.raises(StoreUnavailable, match="name the primary"):
            call()
    assert scene.status(task) == Status.RUNNING
    assert scene.result(failed) == b"result"
    assert store.secret() == scene.secret
    assert store.health().queued == 0
    command(store, "REPLICAOF", "NO", "ONE")
    assert scene.finish(task)
    for call in calls[:4]:
        call()


def test_a_server_that_lacks_replicas_is_unavailable(scene: Scene, store: RedisStore) -> None:
    failed = ended_task(scene)
    calls = new_work(scene, failed)
    task = scene.running()
    command(store, "CONFIG", "SET", "min-replicas-to-write", "1")
    for call in [*calls, lambda: scene.finish(task)]:
        with pytest.raises(StoreUnavailable, match="min-replicas-to-write"):
            call()
    assert scene.status(task) == Status.RUNNING
    command(store, "CONFIG", "SET", "min-replicas-to-write", "0")
    assert scene.finish(task)


def test_a_server_that_can_not_save_is_unavailable(scene: Scene, store: RedisStore, data: tuple[str, Path]) -> None:
    failed = ended_task(scene)
    calls = new_work(scene, failed)
    task = scene.running()
    blocker = data[1] / "dump.rdb"
    blocker.mkdir()
    (blocker / "in the way").touch()
    command(store, "CONFIG", "SET", "save", "3600 1")
    command(store, "BGSAVE")
    eventually(lambda: info(store, "persistence", "rdb_last_bgsave_status") == "err")
    for call in [*calls, lambda: scene.finish(task)]:
        with pytest.raises(StoreUnavailable, match="disk"):
            call()
    assert scene.status(task) == Status.RUNNING
    shutil.rmtree(blocker)
    command(store, "BGSAVE")
    eventually(lambda: info(store, "persistence", "rdb_last_bgsave_status") == "ok")
    assert scene.finish(task)
    for call in calls:
        call()


# ── slow, and silent ─────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_slow_server_is_waited_for(scene: Scene, store: RedisStore) -> None:
    task = scene.running()
    command(store, "CLIENT", "PAUSE", "700", "ALL")
    begun = time.monotonic()
    assert scene.finish(task)
    assert time.monotonic() - begun >= 0.5


def test_no_call_waits_longer_than_two_seconds_for_a_silent_server(scene: Scene, store: RedisStore) -> None:
    """More callers at once than there are connections; all are told in time, and all goes on afterwards."""
    assert server_module.POOL_WAIT_S + server_module.SOCKET_TIMEOUT_S < 2
    (task,) = scene.submit()
    pid = int(info(store, "server", "process_id"))
    waits: list[float] = []

    def ask() -> None:
        begun = time.monotonic()
        with contextlib.suppress(StoreUnavailable):
            scene.status(task)
        waits.append(time.monotonic() - begun)

    os.kill(pid, signal.SIGSTOP)
    try:
        threads = [threading.Thread(target=ask) for _ in range(2 * server_module.CONNECTIONS_MAX)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        os.kill(pid, signal.SIGCONT)
    print(f"silent server: longest wait {max(waits):.2f} s")
    assert max(waits) < PATIENT_S
    assert scene.status(task) == Status.QUEUED


# ── flushed ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_dispatcher_learns_that_the_store_was_flushed(scene: Scene, store: RedisStore) -> None:
    """Its claims are gone, as if others had taken them: it is told once, and starts anew."""
    task = scene.running()
    assert scene.turn(A, report=report(A)).evicted is False
    command(store, "FLUSHALL")
    command(store, "SCRIPT", "FLUSH")
    (fresh,) = scene.submit()
    reply = scene.turn(A, report=report(A), claim=1)
    assert (reply.evicted, reply.claimed) == (True, ())
    assert scene.finish(task) is False
    assert scene.status(task) is None
    reply = scene.turn(A, report=report(A), claim=1)
    assert (reply.evicted, ids_of(list(reply.claimed))) == (False, [fresh])
    assert scene.start(fresh)
    assert scene.finish(fresh)
    assert scene.turn(A, report=report(A)).evicted is False


def test_a_lost_answer_about_a_flush_is_given_again(scene: Scene, store: RedisStore) -> None:
    scene.turn(A, report=report(A))
    command(store, "FLUSHALL")
    turn = {"report": report(A)}
    assert scene.turn(A, **turn).evicted is True
    store.reply_lost(Turn(dispatcher_id=A, report=report(A)))
    assert scene.turn(A, **turn).evicted is True
    assert scene.turn(A, **turn).evicted is False


def test_a_newcomer_and_one_that_resigned_are_not_told_of_a_flush(scene: Scene, store: RedisStore) -> None:
    assert scene.turn(A, report=report(A)).evicted is False
    store.resign(A)
    assert scene.turn(A, report=report(A)).evicted is False
    command(store, "FLUSHALL")
    assert scene.turn(B, report=report(B)).evicted is False


def test_a_watch_lives_through_a_flush(scene: Scene, store: RedisStore) -> None:
    ended, work = store.watch("ended"), store.watch("work")
    scene.claim(1)
    command(store, "FLUSHALL")
    scene.claim(1)
    assert scene.turn(A, claim=1).evicted is False
    (task,) = scene.submit()
    assert hear(work) == [Notice(bell=True)]
    store.cancel([task])
    assert hear_ended(ended, 1) == [task]
    ended.close()
    work.close()


def test_a_house_lives_through_a_flush(store: RedisStore) -> None:
    with House(store, *local.everfaas_modes(), *round_robin.everfaas_strategies(), slots=2, lease_s=0.6) as house:
        assert house.call(pow, 2, 3)[1] == 8
        sleeping = house.register(time.sleep)
        house.submit(sleeping, (600,), (600,))  # they hold both slots, and nobody will ever want to know how they end
        house.until(lambda: sum(w.busy for fleet in store.fleet() for w in fleet.workers) == 2)
        command(store, "FLUSHALL")
        command(store, "SCRIPT", "FLUSH")
        for n in range(3):
            assert house.call(pow, 2, n)[1] == 2**n


# ── killed under load ────────────────────────────────────────────────────────────────────────────────────────────────


def test_what_was_accepted_survives_kills_of_the_server_under_load(tmp_path: Path) -> None:
    """Clients repeat what was not answered, a dispatcher goes on where it was; each task runs once and ends once."""
    kills, clients, each = 4, 3, 120
    with EmbeddedStore(tmp_path / "data") as server:
        store = RedisStore(server.url)
        store.prepare()
        scene = Scene(store)
        function = scene.function()
        accepted: list[TaskId] = []
        done = threading.Event()
        errors: list[Exception] = []
        outages: list[Exception] = []

        def again(call: Callable[[], Any]) -> Any:
            until = time.monotonic() + 60
            while True:
                try:
                    return call()
                except StoreUnavailable as error:
                    outages.append(error)
                    assert time.monotonic() < until
                    time.sleep(0.01)

        def submit(number: int) -> None:
            for n in range(each):
                key = f"{number}-{n}"
                accepted.extend(
                    again(lambda key=key: store.submit([scene.spec(function, idempotency_key=key)], PLENTY))
                )

        def dispatch() -> None:
            while not done.is_set() or store.health().queued:
                claimed = ids_of(list(again(lambda: scene.turn(A, report=report(A), sweep=True, claim=20).claimed)))
                starts = tuple(Start(task_id=task, attempt=1, worker=WorkerId("w")) for task in claimed)
                begun = again(lambda starts=starts: scene.turn(A, starts=starts).started)
                for task, is_ours in zip(claimed, begun, strict=True):
                    if is_ours:
                        again(lambda task=task: scene.finish(task))

        def guarded(target: Callable[..., None], *arguments: object) -> None:
            try:
                target(*arguments)
            except Exception as error:
                errors.append(error)

        dispatcher = threading.Thread(target=guarded, args=(dispatch,))
        threads = [threading.Thread(target=guarded, args=(submit, number)) for number in range(clients)]
        for thread in [dispatcher, *threads]:
            thread.start()
        for n in range(kills):
            eventually(lambda n=n: len(accepted) > n * clients * each // (kills + 1) or errors, 60)
            assert server.pid is not None
            os.kill(server.pid, signal.SIGKILL)
            server.wait()
            server.start()
        for thread in threads:
            thread.join()
        done.set()
        dispatcher.join()
        assert not errors
        assert len(outages) >= kills, "nobody was hurt"
        assert len(set(accepted)) == len(accepted) == clients * each
        records = store.tasks(accepted)
        assert {record.status for record in records if record} == {Status.COMPLETED}
        assert {len(record.attempts) for record in records if record} == {1}
        assert all(records)
        assert len(store.list_tasks(TaskFilter(), None, 1000).tasks) == len(accepted)  # no second one of any key
        store.close()


# ── small print ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_drain_is_forgotten_when_its_worker_is_long_gone(
    scene: Scene, store: RedisStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene.turn(A, report=report(A))
    assert store.drain_worker(WORKER)
    scene.turn(A, report=report(A, workers=0))
    assert b"ef:drains" in keys(store)
    monkeypatch.setattr(turns_module, "DRAIN_KEPT_S", 0.05)
    time.sleep(0.1)
    assert scene.turn(A, report=report(A)).drains == (WORKER,)
    time.sleep(0.1)
    scene.turn(A, report=report(A, workers=0))
    assert b"ef:drains" not in keys(store)


@pytest.mark.parametrize(
    ("text", "kind", "remedy"),
    [
        ("MASTERDOWN Link with MASTER is down", StoreUnavailable, "primary"),
        ("BUSY Redis is busy running a script", StoreUnavailable, "script"),
        ("UNKILLABLE Sorry the script already executed write commands", StoreUnavailable, "script"),
        ("LOADING Redis is loading the dataset in memory", StoreUnavailable, "soon"),
        ("ERR unknown command", EverfaasError, "log"),
    ],
)
def test_what_servers_say_has_a_remedy(text: str, kind: type[EverfaasError], remedy: str) -> None:
    store = RedisStore("redis://127.0.0.1:1/0")
    found = store._server.explain(BaseParser.parse_error(text))
    assert isinstance(found, kind)
    assert remedy in str(found)
    store.close()
