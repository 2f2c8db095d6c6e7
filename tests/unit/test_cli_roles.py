"""The classic commands, each a process of its own: one store, an API, dispatchers, workers."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.unit.system import ROOT, Caller, Command, everfaas, running, until
from tests.unit.test_cli_up import make_double, port_is_closed


@contextmanager
def store(tmp_path: Path, *words: str) -> Iterator[tuple[Command, str]]:
    """Run `everfaas store` on a free port; yield it and its URL."""
    data = tmp_path / "data"
    with running(everfaas("store", "--port", "0", "--data", str(data), *words), tmp_path) as command:
        line = command.line().split()
        assert line[0] == "ready", command.errors
        assert line[2:] == [f"data={data}", "fsync=everysec"]
        yield command, line[1]


def address(command: Command, what: str) -> str:
    """Wait until a role has logged where it is; return its address."""

    def found() -> str | None:
        for line in command.errors.splitlines():
            if what in line:
                return line.rpartition(" ")[2]
        return None

    return str(until(found))


def script(name: str, *words: str) -> list[str]:
    return [str(ROOT / name), *words]


@pytest.mark.parametrize("mode", ["local", "pull", "push"])
def test_the_classic_commands_work_together(tmp_path: Path, mode: str) -> None:
    with ExitStack() as stack:
        _, url = stack.enter_context(store(tmp_path))
        environ = {"EVERFAAS_STORE": url}
        api = stack.enter_context(running(script("app.py", "--port", "0"), tmp_path, environ))
        words = ["-m", mode, "-w", "1", "--task-deadline", "20"] if mode == "local" else ["-m", mode, "-p", "0"]
        dispatcher = stack.enter_context(running(script("run_dispatcher.py", *words), tmp_path, environ))
        roles = [api, dispatcher]
        if mode != "local":
            joins = address(dispatcher, " on tcp://")
            for _ in range(2):
                worker = script("run_worker.py", mode, "1", joins.replace("127.0.0.1", "localhost"))
                roles.append(stack.enter_context(running(worker, tmp_path)))
        caller = Caller(address(api, "API on"))
        tasks = [caller.submit(make_double(), n) for n in range(6)]
        assert [caller.result(task_id) for task_id in tasks] == [0, 2, 4, 6, 8, 10]
        for role in reversed(roles):
            assert role.end() == 0, role.errors
            assert role.alive() == []
            assert "Traceback" not in role.errors


def test_store_stops_cleanly_and_keeps_its_data(tmp_path: Path) -> None:
    import redis

    with store(tmp_path) as (command, url):
        client = redis.Redis.from_url(url)
        client.set("kept", "yes")
        client.close()
        victim = command.child("valkey")
        victim.kill()
        until(lambda: "the store runs again" in command.errors or "starting it again" in command.errors)
        client = redis.Redis.from_url(url)
        until(lambda: _reads(client, b"yes"))
        client.close()
        command.family()
        command.signal(signal.SIGINT)
        assert command.wait() == 0
        assert command.alive() == []
        assert port_is_closed(url.removesuffix("/0"))


def _reads(client: object, expected: bytes) -> bool:
    import redis

    try:
        return bool(client.get("kept") == expected)  # type: ignore[attr-defined]
    except redis.ConnectionError:
        return False


def test_store_on_a_taken_port_exits_with_2(tmp_path: Path) -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        words = everfaas("store", "--port", str(holder.getsockname()[1]), "--data", str(tmp_path / "data"))
        with running(words, tmp_path) as command:
            assert command.wait() == 2
            assert "is in use" in command.errors
            assert command.rest() == ""


def test_two_stores_do_not_share_a_folder(tmp_path: Path) -> None:
    with store(tmp_path):
        words = everfaas("store", "--port", "0", "--data", str(tmp_path / "data"))
        with running(words, tmp_path) as second:
            assert second.wait() == 2
            assert "in use" in second.errors


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_roles_wait_for_a_store_and_say_how_to_start_one(tmp_path: Path) -> None:
    port = free_port()
    environ = {"EVERFAAS_STORE": f"redis://127.0.0.1:{port}/0"}
    with (
        running(script("app.py", "--port", "0"), tmp_path, environ) as api,
        running(script("run_dispatcher.py", "-w", "1"), tmp_path, environ) as dispatcher,
    ):
        for role in (api, dispatcher):
            until(lambda role=role: "everfaas store" in role.errors)
            assert f"127.0.0.1:{port}" in role.errors
            assert role.process.poll() is None
        caller = Caller(address(api, "API on"))
        words = everfaas("store", "--port", str(port), "--data", str(tmp_path / "data"))
        with running(words, tmp_path) as late:
            assert late.line().startswith("ready"), late.errors
            assert caller.result(caller.submit(make_double(), 7)) == 14
            assert dispatcher.end() == 0
            assert api.end() == 0


@pytest.mark.parametrize("words", [["app.py", "--port", "0"], ["run_dispatcher.py"]])
def test_a_role_without_a_store_stops_at_once_when_asked(tmp_path: Path, words: list[str]) -> None:
    environ = {"EVERFAAS_STORE": f"redis://:secret@127.0.0.1:{free_port()}/0"}
    with running(script(*words), tmp_path, environ) as role:
        until(lambda: "everfaas store" in role.errors)
        role.signal(signal.SIGINT)
        assert role.wait() == 0
        assert "Traceback" not in role.errors
        assert "secret" not in role.errors


def test_an_unfit_store_is_refused_with_1(tmp_path: Path) -> None:
    import redis

    with store(tmp_path) as (_, url):
        client = redis.Redis.from_url(url)
        client.config_set("maxmemory-policy", "allkeys-lru")
        client.close()
        for words in (["app.py", "--port", "0"], ["run_dispatcher.py", "-w", "1"]):
            with running(script(*words), tmp_path, {"EVERFAAS_STORE": url}) as role:
                assert role.wait() == 1
                assert "maxmemory-policy" in role.errors
        with running(everfaas("up", "--port", "0", "--store", url), tmp_path) as up:
            assert up.wait() == 1
            assert up.alive() == []


def test_up_on_a_redis_server(tmp_path: Path) -> None:
    server = shutil.which("redis-server")
    if server is None:
        pytest.skip("redis-server is not installed (apt-get install redis-server)")
    port = free_port()
    words = [server, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(tmp_path)]
    import subprocess

    redis_server = subprocess.Popen(words, stdout=subprocess.DEVNULL, cwd=tmp_path)
    try:
        until(lambda: not port_is_closed(f"redis://127.0.0.1:{port}"))
        url = f"redis://127.0.0.1:{port}/0"
        with running(everfaas("up", "--port", "0", "--store", url, "-w", "1"), tmp_path) as up:
            line = up.line()
            assert line.startswith("ready"), up.errors
            assert f"data={url}" in line
            caller = Caller(line.split()[1])
            assert caller.result(caller.submit(make_double(), 8)) == 16
            assert up.end() == 0
    finally:
        redis_server.kill()
        redis_server.wait()


def test_a_worker_says_what_it_waits_for_and_stops_when_asked(tmp_path: Path) -> None:
    words = script("run_worker.py", "pull", "1", f"tcp://127.0.0.1:{free_port()}", "--log-format", "json")
    with running(words, tmp_path) as worker:
        until(lambda: "no dispatcher answers" in worker.errors)
        worker.family()
        worker.signal(signal.SIGINT)
        assert worker.wait() == 0
        assert worker.alive() == []
        assert all(json.loads(line)["role"] == "worker" for line in worker.errors.splitlines())


def test_a_ready_line_tells_whoever_started_a_role(tmp_path: Path) -> None:
    """The mechanism of `everfaas up`, for other supervisors: one line of JSON on an inherited descriptor."""
    with store(tmp_path) as (_, url):
        reader, writer = os.pipe()
        import subprocess
        import sys

        process = subprocess.Popen(
            [sys.executable, *everfaas("api", "--port", "0", "--store", url, "--ready-fd", str(writer))],
            pass_fds=[writer],
            cwd=tmp_path,
        )
        os.close(writer)
        with os.fdopen(reader) as pipe:
            assert json.loads(pipe.readline())["address"].startswith("http://127.0.0.1:")
            assert pipe.read() == ""
        process.terminate()
        assert process.wait(20) == 0
