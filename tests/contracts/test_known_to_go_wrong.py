"""What has gone wrong in systems like this one, on a real server: locks, races, idle waits, lost notices, leftovers."""

from __future__ import annotations

import os
import random
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from pathlib import Path
from typing import Any

import pytest

from everfaas_core.embedded import EmbeddedStore
from everfaas_core.model.ids import DispatcherId, TaskId
from everfaas_core.model.records import Start, TaskDefaults
from everfaas_core.model.states import Status
from everfaas_core.ports import Notice, Watch
from everfaas_core.testing.house import House
from everfaas_core.testing.mode import Parts
from everfaas_core.testing.store_scene import LONG_S, SHORT_S, WORKER, B, C, Scene, eventually, hear, ids_of, report
from everfaas_plugins import least_loaded, local, memory, pull, push, round_robin
from everfaas_plugins.redis import server as server_module
from everfaas_plugins.redis.store import RedisStore

PARTS = {
    "local": Parts(*local.everfaas_modes(), *round_robin.everfaas_strategies()),
    "pull": Parts(*pull.everfaas_modes(), *round_robin.everfaas_strategies(), *pull.everfaas_transports()),
    "push": Parts(*push.everfaas_modes(), *least_loaded.everfaas_strategies(), *push.everfaas_transports()),
}


@pytest.fixture
def server(tmp_path: Path) -> Iterator[EmbeddedStore]:
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


# ── recovery ─────────────────────────────────────────────────────────────────────────────────────────────────────────

SWEEPER = """
import sys
from everfaas_core.model.ids import DispatcherId
from everfaas_core.testing.store_scene import Scene, report
from everfaas_plugins.redis.store import RedisStore
scene, me = Scene(RedisStore(sys.argv[1])), DispatcherId(sys.argv[2])
print("sweeping", flush=True)
while True:
    scene.turn(me, report=report(me), sweep=True, lease_s=0.3)
"""


def test_a_sweeper_that_is_killed_within_a_sweep_switches_no_recovery_off(server: EmbeddedStore, scene: Scene) -> None:
    """Four times a dispatcher dies with claims, and whoever is about to take them over is killed in the act."""
    chance = random.Random(4)
    submitted: list[TaskId] = []
    for number in range(4):
        words = [sys.executable, "-c", SWEEPER, server.url, f"sweeper-{number}"]
        with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as sweeper:
            try:
                assert sweeper.stdout is not None
                assert sweeper.stdout.readline() == "sweeping\n"
                dead = DispatcherId(f"dead-{number}")
                submitted += scene.submit(40)
                claimed = ids_of(scene.claim(200, dead, lease_s=SHORT_S))
                starts = tuple(Start(task_id=task, attempt=1, worker=WORKER) for task in claimed[::2])
                scene.turn(dead, starts=starts, lease_s=SHORT_S)
                time.sleep(SHORT_S + chance.uniform(0.0, 0.01))  # it is about to sweep them, sweeps them, or just has
            finally:
                sweeper.kill()
    found: set[TaskId] = set()

    def recovered() -> bool:
        reply = scene.turn(B, report=report(B), sweep=True, claim=200)
        found.update(item.task.task_id for item in reply.adopted)
        found.update(ids_of(list(reply.claimed)))
        return found == set(submitted)

    eventually(recovered)


def test_of_two_that_reclaim_in_one_millisecond_one_gets_each_claim(server: EmbeddedStore, scene: Scene) -> None:
    """Thirty races; a lease that has ended and one that has not, but whose holder is known to be dead."""
    other = RedisStore(server.url)
    other.prepare()
    barrier = threading.Barrier(2)

    def reclaim(hand: Scene, me: DispatcherId, dead: DispatcherId) -> list[TaskId]:
        barrier.wait()
        reply = hand.turn(me, report=report(me), sweep=True, claim=12, dead=(dead,))
        return [item.task.task_id for item in reply.adopted] + ids_of(list(reply.claimed))

    with ThreadPoolExecutor(2) as pool:
        for number in range(30):
            dead = DispatcherId(f"dead-{number}")
            ids = scene.submit(12)
            claim = ids_of(scene.claim(12, dead, lease_s=0.001 if number % 2 else LONG_S))
            starts = [Start(task_id=task, attempt=1, worker=WORKER, bound=at < 4) for at, task in enumerate(claim[:8])]
            scene.turn(dead, starts=tuple(starts), lease_s=0.001 if number % 2 else LONG_S)
            hands = ((scene, B), (Scene(other), C))
            taken = list(pool.map(lambda hand, dead=dead: reclaim(*hand, dead), hands))
            taken.append(ids_of(scene.claim(12, B)))
            assert sorted(chain.from_iterable(taken)) == sorted(ids), f"race {number}"
    other.close()


# ── waits ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_an_idle_watch_outlasts_the_timeout_of_its_socket(
    scene: Scene, store: RedisStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_module, "SOCKET_TIMEOUT_S", 0.1)
    watch = store.watch("work")
    scene.claim(1)
    before = store._server.command("CLIENT", "LIST", "TYPE", "pubsub").split(b" ")[0]
    until = time.monotonic() + 1.0
    while (left_s := until - time.monotonic()) > 0:
        select.select([watch.fileno()], [], [], min(left_s, 0.3))
        assert list(watch.read()) == []
    scene.submit()
    assert hear(watch) == [Notice(bell=True)]
    assert store._server.command("CLIENT", "LIST", "TYPE", "pubsub").split(b" ")[0] == before, "the same connection"
    watch.close()


@pytest.mark.parametrize("word", ["BLPOP", "BRPOP", "BLMOVE", "BLMPOP", "BZPOP", "BZMPOP", "BLOCK", "WAIT "])
def test_no_command_blocks_in_the_store(word: str) -> None:
    folder = Path(server_module.__file__).parent
    texts = {path.name: path.read_text() for path in folder.iterdir() if path.suffix in (".lua", ".py")}
    assert len(texts) > 15
    assert [name for name, text in texts.items() if f"'{word}" in text or f'"{word}' in text] == []


class Mute:
    """A store whose notices all get lost on the way, without a word."""

    def __init__(self, store: Any) -> None:
        self._store = store

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def watch(self, topic: str) -> Watch:
        return MuteWatch(self._store.watch(topic))  # type: ignore[return-value]  # it is one


class MuteWatch:
    def __init__(self, watch: Watch) -> None:
        self._watch = watch
        self._silence, self._end = os.pipe()

    def fileno(self) -> int:
        return self._silence

    def read(self) -> list[Notice]:
        self._watch.read()
        return []

    def close(self) -> None:
        self._watch.close()
        os.close(self._silence)
        os.close(self._end)


def test_work_is_found_without_a_notice(store: RedisStore) -> None:
    with House(Mute(store), *PARTS["pull"], slots=1, lease_s=0.6) as house:  # type: ignore[arg-type]
        for number in range(3):
            time.sleep(0.1)  # idle, so that nothing but the slow look at the store can find the next one
            assert house.call(lambda n: n, number)[1] == number


# ── the store is down when a task ends ───────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("mode", PARTS)
def test_a_result_is_held_while_the_store_is_down(server: EmbeddedStore, mode: str, tmp_path: Path) -> None:
    def function(go: str, ran: str) -> bytes:
        import os
        import time

        while not os.path.exists(go):
            time.sleep(0.005)
        with open(ran, "a") as file:
            file.write("once\n")
        return b"result" * 10_000

    store = RedisStore(server.url)
    go, ran = tmp_path / "go", tmp_path / "ran"
    with House(store, *PARTS[mode], slots=1) as house:
        (task,) = house.submit(house.register(function), (str(go), str(ran)))
        house.until(lambda: store.statuses([task]) == [Status.RUNNING])
        assert server.pid is not None
        os.kill(server.pid, signal.SIGKILL)
        server.wait()
        go.touch()
        house.until(ran.exists)
        time.sleep(0.5)  # the outcome meets no store, several times
        server.start()
        (record,) = house.wait(task)
        assert (record.status, len(record.attempts)) == (Status.COMPLETED, 1)
        assert house.result(task) == b"result" * 10_000
        assert ran.read_text() == "once\n"
    store.close()


# ── a long task and short ones ───────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("mode", PARTS)
def test_short_tasks_do_not_wait_behind_a_long_one(mode: str, tmp_path: Path) -> None:
    """It ends when all short ones have: a single one that waits for it in its slot would wait for ever."""

    def function(gate: str | None) -> None:
        import os
        import time

        while gate and not os.path.exists(gate):
            time.sleep(0.005)

    (provider,) = memory.everfaas_stores()
    store = provider.factory("memory", {}, TaskDefaults())
    sizes = {"slots": 4} if mode == "local" else {"slots": 2, "workers": 2}
    with House(store, *PARTS[mode], **sizes) as house:  # type: ignore[arg-type]
        registered = house.register(function)
        house.wait(*house.submit(registered, *[(None,)] * 300))  # whoever learns from the past expects a short one
        for position in (0, 50, 97):
            gate = tmp_path / f"gate-{position}"
            calls: list[tuple[str | None]] = [(None,)] * 101
            calls[position] = (str(gate),)
            ids = house.submit(registered, *calls)
            long = ids.pop(position)
            assert {record.status for record in house.wait(*ids)} == {Status.COMPLETED}
            assert store.statuses([long]) == [Status.RUNNING]
            gate.touch()
            (record,) = house.wait(long)
            assert len(record.attempts) == 1
    store.close()


# ── nothing is left ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_keys_and_memory_are_back_after_the_retention(store: RedisStore) -> None:
    """Tasks of every end, then their retention; `python -m bench.soak` does it with a million."""

    def used() -> tuple[int, int]:
        info: bytes = store._server.command("INFO", "memory")
        memory = next(line for line in info.decode().splitlines() if line.startswith("used_memory:"))
        return int(store._server.command("DBSIZE")), int(memory.partition(":")[2])

    def run(house: House, count: int) -> None:
        fields: dict[str, Any] = {"result_ttl_s": 0.5, "group": "g", "tags": ("t",)}
        ids = house.submit(good, *[("x" * 2000,)] * count, deadline_s=600.0, **fields)
        ids += house.submit(bad, *[("x" * 2000,)] * (count // 10), **fields)
        delayed = house.submit(good, *[("x" * 2000,)] * (count // 10), delay_s=600.0, **fields)
        store.cancel(delayed)
        house.until(lambda: not any(status in ("QUEUED", "RUNNING") for status in store.statuses(ids)))

    def fail(text: str) -> None:
        raise ValueError(text)

    with House(store, *PARTS["pull"], slots=2, lease_s=0.6) as house:
        good, bad = house.register(lambda text: text), house.register(fail)
        keys, _ = used()
        run(house, 300)
        few = keys + 10  # counters and secrets, whatever was done
        house.until(lambda: used()[0] <= few)
        _, memory = used()
        run(house, 1_500)
        house.until(lambda: used()[0] <= few)
        house.until(lambda: used()[1] <= memory + 1024**2)
