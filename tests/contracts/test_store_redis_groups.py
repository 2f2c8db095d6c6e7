"""What a group's index costs in the Redis store, and what it survives."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from everfaas_core.embedded import EmbeddedStore
from everfaas_core.testing.store_groups import GROUP, page, tasks_of
from everfaas_core.testing.store_scene import Scene, eventually
from everfaas_plugins.redis.store import RedisStore


@pytest.fixture
def store(valkey_url: str, fresh: Callable[[str], str]) -> Iterator[RedisStore]:
    store = RedisStore(fresh(valkey_url))
    store.prepare()
    yield store
    store.close()


def keys(store: RedisStore) -> set[str]:
    prefix = store._server.prefix
    return {key.decode().removeprefix(prefix) for key in store._server.command("KEYS", f"{prefix}*")}


def test_tasks_without_a_group_leave_no_trace_of_groups(store: RedisStore) -> None:
    scene = Scene(store)
    (task,) = scene.submit()
    scene.store.cancel([task])
    assert not {key for key in keys(store) if key.startswith(("e:", "g:", "ends"))}
    assert store._server.command("HGET", f"{store._server.prefix}t:{task}", "ttl") == b"86400.0"


def test_all_keys_are_gone_with_the_records(store: RedisStore) -> None:
    scene = Scene(store)
    scene.store.cancel(scene.submit(group="warm", result_ttl_s=0.0))
    scene.turn(sweep=True)
    before = keys(store)
    assert not {key for key in before if key.startswith(("e:", "g:", "t:"))}
    ids = scene.submit(300, group=GROUP, result_ttl_s=0.05) + scene.submit(20, group="b", result_ttl_s=0.05)
    scene.store.cancel(ids)
    assert {f"e:{GROUP}", "e:b"} <= keys(store)
    eventually(lambda: scene.status(ids[-1]) is None)
    scene.turn(sweep=True)
    assert keys(store) == before


@pytest.fixture
def server(tmp_path: Path) -> Iterator[EmbeddedStore]:
    with EmbeddedStore(tmp_path / "data") as server:
        yield server


def test_cursors_are_good_after_a_crash_a_flush_and_lost_writes(server: EmbeddedStore) -> None:
    store = RedisStore(server.url)
    store.prepare()
    scene = Scene(store)
    first = scene.submit(50, group=GROUP)
    store.cancel(first)
    middle, last = page(store, limit=20).cursor, page(store).cursor

    assert server.pid is not None  # what it has answered it has written (docs/decisions/0008)
    os.kill(server.pid, signal.SIGKILL)
    server.wait()
    server.start()
    assert tasks_of(page(store, middle).ended) == first[20:]
    second = scene.submit(2, group=GROUP)
    store.cancel(second)
    assert tasks_of(page(store, last).ended) == second

    # As if the last write to the counter had been lost: what ends now still comes after what a reader has seen.
    seen = page(store).cursor
    store._server.command("SET", f"{store._server.prefix}ends", "7")
    third = scene.submit(2, group=GROUP)
    store.cancel(third)
    assert tasks_of(page(store, seen).ended) == third

    seen = page(store).cursor
    store._server.command("FLUSHALL")
    assert page(store, seen).tasks == 0
    fourth = scene.submit(2, group=GROUP)
    store.cancel(fourth)
    assert tasks_of(page(store, seen).ended) == fourth
    assert page(store).pending == 0
    store.close()


def test_a_clock_that_is_set_back_makes_no_end_come_before_another(store: RedisStore) -> None:
    scene = Scene(store)
    store.cancel(scene.submit(group=GROUP))
    ahead = int(page(store).cursor) + 3_600_000_000
    store._server.command("SET", f"{store._server.prefix}ends", str(ahead))  # as if the clock had been an hour ahead
    (task,) = scene.submit(group=GROUP)
    store.cancel([task])
    assert page(store).cursor == str(ahead + 1)
    assert tasks_of(page(store, str(ahead)).ended) == [task]
