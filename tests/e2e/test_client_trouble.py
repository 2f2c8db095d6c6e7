"""The Python client when something breaks: nothing is lost, nothing runs twice, and nobody waits for ever."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from everfaas_core import ApiUnreachable, Client, TaskVanished
from everfaas_core.client import collector
from tests.chaos.proxy import Proxy

from .processes import System, clean_env

COUNT = 300


@pytest.fixture(scope="module")
def own_system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """A system whose parts may be killed."""
    system = System(tmp_path_factory.mktemp("trouble"), "local")
    yield system
    system.stop()


@pytest.fixture
def proxy(own_system: System) -> Iterator[Proxy]:
    made = Proxy(("127.0.0.1", int(own_system.url.rpartition(":")[2])))
    yield made
    made.close()


def note(folder: str, number: int) -> int:
    """Write down that call `number` was begun."""
    import os
    import time

    file = os.open(os.path.join(folder, str(number)), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(file, b"x")
    os.close(file)
    time.sleep(0.01)
    return number * 2


def begun(folder: Path) -> dict[int, int]:
    """Return how often each call was begun."""
    return {int(file.name): file.stat().st_size for file in folder.iterdir()}


def restart_api(system: System) -> None:
    port = system.url.rpartition(":")[2]
    system.api.popen.send_signal(signal.SIGKILL)
    system.api.stop()
    time.sleep(0.5)
    system.api = system.start("app.py", "--port", port, "--store", system.store)


def test_the_api_dies_in_the_middle_of_a_map(own_system: System, tmp_path: Path) -> None:
    with Client(own_system.url) as client:
        results = client.map(note, itertools.repeat(str(tmp_path)), range(COUNT), buffersize=100)
        got = [next(results) for _ in range(20)]
        restart_api(own_system)
        got += results
    assert got == [n * 2 for n in range(COUNT)]
    assert begun(tmp_path) == dict.fromkeys(range(COUNT), 1)


def test_an_api_that_is_away_is_waited_for(own_system: System, proxy: Proxy) -> None:
    with Client(proxy.url("http")) as client, Client(proxy.url("http"), patience_s=0.4) as impatient:
        assert [each.submit(pow, 2, 3).result(30) for each in (client, impatient)] == [8, 8]
        assert client.submit(divmod, 7, 3).result(30) == (2, 1)
        proxy.set(refuse=True)
        proxy.reset()
        waiting = [client.submit(pow, 2, n) for n in range(20)]
        with pytest.raises(ApiUnreachable, match="everfaas up"):
            impatient.submit(pow, 2, 5).result(30)
        with pytest.raises(ApiUnreachable):
            impatient.submit(abs, 5)  # a function that is not registered yet
        assert not any(future.done() for future in waiting)
        threading.Timer(0.5, proxy.heal).start()
        assert client.submit(abs, -5).result(30) == 5
        assert [future.result(30) for future in waiting] == [2**n for n in range(20)]


def test_a_call_whose_answer_was_lost_is_made_once(own_system: System, proxy: Proxy, tmp_path: Path) -> None:
    with Client(proxy.url("http")) as client:
        assert client.submit(note, str(tmp_path), 0).result(30) == 0
        proxy.set(lose_answers=True)
        futures = [client.submit(note, str(tmp_path), n) for n in range(1, 120)]
        deadline = time.monotonic() + 20
        while proxy.counts.answers_lost < 4:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        proxy.heal()
        assert [future.result(30) for future in futures] == [2 * n for n in range(1, 120)]
    assert begun(tmp_path) == dict.fromkeys(range(120), 1)


def test_a_stream_that_is_reset_goes_on(own_system: System, proxy: Proxy, tmp_path: Path) -> None:
    with Client(proxy.url("http")) as client:
        results = client.map(note, itertools.repeat(str(tmp_path)), range(COUNT), buffersize=200)
        got = []
        for value in results:
            got.append(value)
            if len(got) % 60 == 0:
                proxy.reset()
    assert got == [n * 2 for n in range(COUNT)]
    assert begun(tmp_path) == dict.fromkeys(range(COUNT), 1)


SCRIPT = """
import os, sys
from everfaas_core import Client

class Doubled:
    factors = {{"two", "deux", "zwei"}}

    def __init__(self, number):
        self.number = number * 2

def note(number):
    import os, time
    file = os.open(os.path.join({folder!r}, str(number)), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(file, b"x")
    time.sleep(0.005)
    return Doubled(number) if number in {{1, 2, 3}} else number * 2

client = Client({url!r}, idempotency_key={key!r})
for value in client.map(note, range({count}), buffersize=100):
    print(value.number if isinstance(value, Doubled) else value, flush=True)
"""


def test_a_client_that_was_killed_in_the_middle_of_a_map(own_system: System, tmp_path: Path) -> None:
    """Its results are there for others, each once; begun again, the map finds what was done, and does the rest."""
    key, folder = uuid.uuid4().hex, tmp_path / "begun"
    folder.mkdir()
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.format(folder=str(folder), url=own_system.url, key=key, count=COUNT))

    def start() -> subprocess.Popen[str]:
        words = [sys.executable, str(script)]
        return subprocess.Popen(words, env=clean_env(tmp_path), stdout=subprocess.PIPE, text=True)

    first = start()
    assert first.stdout is not None
    said = [next(first.stdout) for _ in range(40)]
    first.kill()
    first.communicate()
    assert said == [f"{2 * n}\n" for n in range(40)]
    with Client(own_system.url) as client:
        left = list(client.attach(key).results())
        numbers = sorted(task.number for task in left if task.number is not None)
        assert numbers == list(range(len(numbers)))
        assert 40 <= len(numbers) == len(left) < COUNT
        found = [getattr(value, "number", value) for value in client.attach(key).in_order()]
        assert found == [2 * n for n in numbers]
    again = start()
    assert again.communicate(timeout=60)[0] == "".join(f"{2 * n}\n" for n in range(COUNT))
    assert begun(folder) == dict.fromkeys(range(COUNT), 1)


def test_a_map_that_has_ended_is_begun_again_at_once(own_system: System, tmp_path: Path) -> None:
    """Its stream gives all that has ended before the later calls are made: they are not left waiting for it."""
    with Client(own_system.url, idempotency_key=uuid.uuid4().hex) as client:
        for _ in range(3):
            began = time.monotonic()
            assert list(client.map(pow, range(3_000), [2] * 3_000, buffersize=400)) == [n * n for n in range(3_000)]
            assert time.monotonic() - began < 25  # a second or so; a look at the store comes after 60


def test_a_store_that_was_emptied_is_told(own_system: System, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collector, "STREAM_S", 0.5)
    with Client(own_system.url) as client, redis.Redis.from_url(own_system.store) as store:
        assert client.submit(pow, 2, 3).result(30) == 8
        lost = [client.options(delay_s=600).submit(pow, 2, n) for n in range(30)]
        assert client.flush(30)
        store.flushall()
        store.script_flush()
        for future in lost:
            with pytest.raises(TaskVanished, match="no longer knows"):
                future.result(30)
        assert client.submit(pow, 2, 4).result(30) == 16  # the function is registered again


def test_a_forked_child_is_told_to_make_a_client_of_its_own(own_system: System) -> None:
    with Client(own_system.url) as client:
        assert client.submit(pow, 2, 3).result(30) == 8
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                client.submit(pow, 2, 3)
            except Exception as error:
                status = 0 if "forked" in str(error) else 2
            os._exit(status)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        assert client.submit(pow, 2, 5).result(30) == 32


def test_more_groups_than_are_remembered(own_system: System, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collector, "READERS_MAX", 3)
    with Client(own_system.url) as client:
        for _ in range(2):
            for number in range(8):
                futures = client.options(group=f"few-{number}").submit_each(pow, range(6), [2] * 6)
                assert [future.result(30) for future in futures] == [n * n for n in range(6)]


def test_no_place_for_a_stream_is_free(own_system: System, monkeypatch: pytest.MonkeyPatch) -> None:
    from everfaas_core.client.errors import ApiRefused
    from everfaas_core.client.http import Api

    def refuse(self: Api, path: str, query: Any = None) -> Any:
        raise ApiRefused("all places for streams are taken", status=429, reason="too_many_waiters")

    monkeypatch.setattr(Api, "stream", refuse)
    with Client(own_system.url) as client:
        assert list(client.map(pow, range(300), [2] * 300)) == [n * n for n in range(300)]
