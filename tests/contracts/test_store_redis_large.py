"""Where the Redis store keeps large payloads and results: no script sees them, and none stays behind."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from everfaas_core.embedded import EmbeddedStore
from everfaas_core.model.errors import IdempotencyConflict, QueueFull, StoreUnavailable, UnknownFunction
from everfaas_core.model.ids import FunctionId, TaskId
from everfaas_core.model.records import Finish
from everfaas_core.model.states import Cause, Status
from everfaas_core.testing.store_large import BIG, OTHER
from everfaas_core.testing.store_scene import A, B, Scene, eventually
from everfaas_plugins.redis import blobs
from everfaas_plugins.redis.blobs import BLOB_BYTES, ORPHAN_S
from everfaas_plugins.redis.store import RedisStore


@pytest.fixture(params=["valkey_url", "redis_url"])
def store(request: pytest.FixtureRequest, fresh: Callable[[str], str]) -> Iterator[RedisStore]:
    store = RedisStore(fresh(request.getfixturevalue(request.param)))
    store.prepare()
    yield store
    store.close()


@pytest.fixture
def scene(store: RedisStore) -> Scene:
    return Scene(store)


def command(store: RedisStore, name: str, key: str, *rest: str) -> Any:
    return store._server.command(name, store._server.prefix + key, *rest)


def large_keys(store: RedisStore) -> dict[str, int]:
    """Return the keys of large payloads and results, and the seconds that each has left; -1: for good."""
    prefix = store._server.prefix
    found = [key.decode().removeprefix(prefix) for key in store._server.command("KEYS", f"{prefix}[pr]:*")]
    return {key: command(store, "TTL", key) for key in sorted(found)}


def test_scripts_see_sizes_only(store: RedisStore, scene: Scene) -> None:
    task = scene.running(payload=BIG)
    assert scene.finish(task, result=OTHER)
    assert large_keys(store) == {f"p:{task}": -1, f"r:{task}:1": -1}
    assert command(store, "HMGET", f"t:{task}", "pl", "res", "plb", "rsb") == [None, None, b"%d" % 2**20, b"%d" % 2**20]


def test_from_the_limit_on(store: RedisStore, scene: Scene) -> None:
    scene.submit(1, payload=b"x" * (BLOB_BYTES - 1))
    assert large_keys(store) == {}
    (task,) = scene.submit(1, payload=b"x" * BLOB_BYTES)
    assert large_keys(store) == {f"p:{task}": -1}


def test_all_is_gone_with_the_records(store: RedisStore, scene: Scene) -> None:
    task = scene.running(payload=BIG, result_ttl_s=0.1)
    scene.finish(task, result=OTHER)
    (cancelled,) = scene.submit(1, payload=BIG, result_ttl_s=0.1)
    scene.store.cancel([cancelled])
    assert len(large_keys(store)) == 3
    eventually(lambda: scene.status(cancelled) is None and scene.status(task) is None)
    scene.turn(sweep=True)
    assert large_keys(store) == {}


def test_a_retry_shares_nothing_with_the_first(store: RedisStore, scene: Scene) -> None:
    task = scene.running(payload=BIG)
    scene.finish(task, cause=Cause.RAISED, result=OTHER)
    new = scene.store.retry(task, scene.new_id())
    assert scene.store.retry(task, new) == new  # type: ignore[arg-type]  # asked again after a lost answer
    assert large_keys(store) == {f"p:{task}": -1, f"p:{new}": -1, f"r:{task}:1": -1}


def test_what_no_script_has_made_count_goes_by_itself(store: RedisStore, scene: Scene) -> None:
    spec = scene.spec(payload=BIG)
    key = f"p:{spec.task_id}"
    store._blobs.put({store._server.prefix + key: BIG})  # and here the client dies
    assert 0 < large_keys(store)[key] <= ORPHAN_S
    scene.store.submit([spec], 10)
    assert large_keys(store) == {key: -1}
    store._blobs.put({store._server.prefix + key: BIG})  # a repeated submit, cut off as well
    assert large_keys(store) == {key: -1}


def test_orphans_are_gone_after_their_time(store: RedisStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blobs, "ORPHAN_S", 1)
    store._blobs.put({f"{store._server.prefix}p:x": BIG})
    eventually(lambda: not large_keys(store))


def test_a_stale_attempts_result_is_dropped_at_once(store: RedisStore, scene: Scene) -> None:
    task = scene.running()
    scene.requeue(task)
    scene.claim(1, B)
    assert scene.start(task, 2, B)
    assert not scene.finish(task, 1, result=OTHER)
    assert large_keys(store) == {}
    assert scene.finish(task, 2, dispatcher=B, result=BIG)
    assert not scene.finish(task, 1, result=OTHER)
    assert large_keys(store) == {f"r:{task}:2": -1}


def test_a_repeated_finish_takes_nothing_away(store: RedisStore, scene: Scene) -> None:
    task = scene.running()
    assert scene.finish(task, result=BIG)
    assert scene.finish(task, result=BIG)
    assert not scene.finish(task, cause=Cause.RAISED, result=OTHER)
    assert large_keys(store) == {f"r:{task}:1": -1}
    assert scene.result(task) == BIG


def test_refused_payloads_are_dropped_at_once(store: RedisStore, scene: Scene) -> None:
    function = scene.function()
    (kept,) = scene.submit(1, function, payload=BIG, idempotency_key="k")
    with pytest.raises(QueueFull):
        store.submit([scene.spec(function, payload=BIG) for _ in range(2)], 2)
    with pytest.raises(UnknownFunction):
        store.submit([scene.spec(function, payload=BIG), scene.spec(FunctionId("none"), payload=BIG)], 10)
    with pytest.raises(IdempotencyConflict):
        scene.submit(1, function, payload=OTHER, idempotency_key="k")
    assert scene.submit(1, function, payload=BIG, idempotency_key="k") == [kept]
    assert large_keys(store) == {f"p:{kept}": -1}


@pytest.mark.parametrize("cut", [0, 1000])
def test_what_was_lost_before_its_script_goes_through_it(
    store: RedisStore, scene: Scene, monkeypatch: pytest.MonkeyPatch, cut: int
) -> None:
    """It was not written (0), or not all of it: out of memory, evicted, expired in a stopped process."""
    put = store._blobs.put
    monkeypatch.setattr(store._blobs, "put", lambda given: put({key: data[:cut] for key, data in given.items() if cut}))
    small = scene.running()
    task = scene.running(payload=BIG)
    assert all(scene.turn(finishes=_ends((small, b"small"), (task, OTHER))).finished)
    assert (scene.result(small), scene.result(task)) == (b"small", OTHER)
    assert scene.record(task).payload_size_bytes == len(BIG)
    failed = scene.running(payload=BIG)
    scene.finish(failed, cause=Cause.RAISED)
    new = scene.store.retry(failed, scene.new_id())
    assert [(one.task_id, one.payload) for one in scene.claim(9)] == [(new, BIG)]


def _ends(*ends: tuple[TaskId, bytes]) -> tuple[Finish, ...]:
    return tuple(
        Finish(task_id=task, attempt=1, status=Status.COMPLETED, cause=Cause.OK, result=result) for task, result in ends
    )


def test_a_payload_that_somebody_deleted_ends_its_task_only(store: RedisStore, scene: Scene) -> None:
    (task,) = scene.submit(1, payload=BIG)
    command(store, "DEL", f"p:{task}")
    (claimed,) = scene.claim(1)
    assert (claimed.task_id, claimed.payload) == (task, b"")  # which does not load, and says so
    assert scene.start(task)
    assert scene.finish(task, cause=Cause.NOT_LOADABLE, dispatcher=A)


def test_a_full_server_takes_no_new_work_and_drains(tmp_path: Path) -> None:
    with EmbeddedStore(tmp_path / "data") as server:
        store = RedisStore(server.url)
        store.prepare()
        scene = Scene(store)
        task = scene.running(payload=BIG)
        store._server.command("CONFIG", "SET", "maxmemory", "1mb")
        with pytest.raises(StoreUnavailable, match="out of memory"):
            scene.submit(1, payload=BIG)
        assert scene.finish(task, result=OTHER)
        assert scene.result(task) == OTHER
        store.close()


def test_large_ones_are_there_after_a_crash(tmp_path: Path) -> None:
    with EmbeddedStore(tmp_path / "data") as server:
        store = RedisStore(server.url)
        store.prepare()
        scene = Scene(store)
        task = scene.running(payload=BIG)
        scene.finish(task, result=OTHER)
        (waiting,) = scene.submit(1, payload=BIG)
        assert server._process is not None
        server._process.kill()
        server._process.wait()
        server.start()
        assert eventually(lambda: _read(scene, task)) == OTHER
        assert [(one.task_id, one.payload) for one in scene.claim(9)] == [(waiting, BIG)]
        assert large_keys(store) == {f"p:{task}": -1, f"p:{waiting}": -1, f"r:{task}:1": -1}
        store.close()


def _read(scene: Scene, task: TaskId) -> bytes | None:
    try:
        return scene.result(task)
    except StoreUnavailable:
        return None
