"""`everfaas up` with real processes and the real embedded store: it begins, survives its roles, and leaves nothing."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import requests

from tests.unit.system import Caller, Command, everfaas, is_alive, running, until


def make_double() -> Callable[[int], int]:
    return lambda x: x * 2


def make_nap() -> Callable[[float], float]:
    def nap(seconds: float) -> float:
        import time

        time.sleep(seconds)
        return seconds

    return nap


def up(*words: str, data: Path) -> list[str]:
    return everfaas("up", "--port", "0", "--data", str(data), *words)


def ready(command: Command) -> tuple[str, dict[str, str]]:
    """Wait for the ready line; return the API's URL and the line's other fields."""
    line = command.line()
    assert line.startswith("ready http://127.0.0.1:"), (line, command.errors)
    _, url, *fields = line.split()
    return url, dict(field.split("=", 1) for field in fields)


def port_is_closed(url: str) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", int(url.rpartition(":")[2]))) != 0


@pytest.mark.parametrize("mode", ["local", "pull", "push"])
def test_up_is_ready_runs_a_function_and_leaves_nothing(tmp_path: Path, mode: str) -> None:
    data = tmp_path / "data"
    with running(up("-m", mode, "-w", "2", data=data), tmp_path) as command:
        url, fields = ready(command)
        assert requests.get(url + "/readyz", timeout=10).status_code == 200, "ready means ready"
        assert (fields["mode"], fields["slots"]) == (mode, "2")
        assert fields["docs"] == url + "/docs"
        assert Path(fields["data"]) == data
        assert ("workers_url" in fields) == (mode != "local")
        caller = Caller(url)
        assert caller.result(caller.submit(make_double(), 21)) == 42
        assert command.end() == 0
        assert command.rest().splitlines() == ["draining: running tasks get 10 s to finish", "stopped"]
        assert command.errors == ""
        assert command.alive() == []
        assert port_is_closed(url)
        assert not [path for path in data.rglob("*") if path.is_socket()]


def test_data_survives_a_restart(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with running(up("-w", "1", data=data), tmp_path) as command:
        caller = Caller(ready(command)[0])
        task_id = caller.submit(make_double(), 4)
        assert caller.result(task_id) == 8
        command.signal(signal.SIGINT)
        assert command.wait() == 0
    with running(up("-w", "1", data=data), tmp_path) as command:
        assert Caller(ready(command)[0]).result(task_id) == 8


@pytest.mark.parametrize("mode", ["local", "pull"])
def test_nothing_outlives_a_killed_up(tmp_path: Path, mode: str) -> None:
    data = tmp_path / "data"
    with running(up("-m", mode, "-w", "2", data=data), tmp_path) as command:
        url, _ = ready(command)
        caller = Caller(url)
        task_id = caller.submit(make_nap(), 60)
        until(lambda: caller.status(task_id) == "RUNNING")
        family = command.family()
        assert len(family) >= 5
        command.signal(signal.SIGKILL)
        until(lambda: not [process for process in family if is_alive(process)], wait_s=20)
        assert port_is_closed(url)


@pytest.mark.parametrize("role", ["api", "dispatcher", "worker", "valkey"])
def test_a_role_that_is_killed_comes_back(tmp_path: Path, role: str) -> None:
    with running(up("-m", "pull", "-w", "1", data=tmp_path / "data"), tmp_path) as command:
        url, _ = ready(command)
        caller = Caller(url)
        assert caller.result(caller.submit(make_double(), 1)) == 2
        victim = command.child(role)
        victim.kill()
        until(lambda: not is_alive(victim))
        assert caller.result(caller.submit(make_double(), 2)) == 4, "under the same address"
        until(lambda: "was killed by SIGKILL; starting it again" in command.errors)
        assert command.end() == 0
        assert command.alive() == []


def test_a_role_that_keeps_dying_ends_it(tmp_path: Path) -> None:
    with running(up("-w", "1", data=tmp_path / "data"), tmp_path) as command:
        ready(command)
        command.family()
        deadline = time.monotonic() + 60
        while command.process.poll() is None and time.monotonic() < deadline:
            for process in command.family():
                try:
                    if is_alive(process) and "dispatcher" in process.cmdline():
                        process.kill()
                except Exception:  # it has died by itself
                    continue
            time.sleep(0.02)
        assert command.wait() == 1
        assert "the dispatcher was killed by SIGKILL, after 5 restarts within 30 s: giving up" in command.errors
        until(lambda: command.alive() == [])  # a nursery that was just starting sees the death of its dispatcher then


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="roles are forked on Linux only")
def test_roles_are_copies_of_it_that_have_nothing_of_it(tmp_path: Path) -> None:
    with running(up("-m", "pull", "-w", "1", data=tmp_path / "data"), tmp_path) as command:
        ready(command)
        for role in ("dispatcher", "api", "worker"):
            process = command.child(role)
            assert process.cmdline()[:2] == ["everfaas", role]
            assert os.getpgid(process.pid) == process.pid
            files = {one.path for one in process.open_files()}
            assert not any("lock" in path or path.endswith((".aof", ".log")) for path in files), files
        assert command.end() == 0
        assert command.alive() == []


@pytest.mark.parametrize("flags", [["--port", "PORT"], ["-m", "pull", "-p", "PORT"]])
def test_a_taken_port_is_one_clear_error(tmp_path: Path, flags: list[str]) -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = str(holder.getsockname()[1])
        words = [port if word == "PORT" else word for word in flags]
        with running(up(*words, data=tmp_path / "data"), tmp_path) as command:
            until(lambda: command.family() or command.process.poll() is not None)
            assert command.wait() == 2
            assert command.rest() == ""
            assert command.errors.count("Error: ") == 1
            assert f"port {port}" in command.errors
            assert "Traceback" not in command.errors
            assert command.alive() == []


@pytest.mark.parametrize("mode", ["local", "push"])
def test_a_drain_lets_running_tasks_end(tmp_path: Path, mode: str) -> None:
    data = tmp_path / "data"
    with running(up("-m", mode, "-w", "1", data=data), tmp_path) as command:
        caller = Caller(ready(command)[0])
        running_id, queued_id = caller.submit(make_nap(), 1.0), caller.submit(make_nap(), 0.1)
        until(lambda: caller.status(running_id) == "RUNNING")
        assert command.end() == 0
    with running(up("-w", "1", data=data), tmp_path) as command:
        caller = Caller(ready(command)[0])
        assert caller.status(running_id) == "COMPLETED"
        assert caller.result(queued_id) == 0.1, "what had not begun runs later"


@pytest.mark.parametrize("mode", ["local", "pull"])
def test_a_second_signal_stops_at_once_and_loses_nothing(tmp_path: Path, mode: str) -> None:
    data = tmp_path / "data"
    marker = tmp_path / "marker"

    def nap_once(path: str) -> str:
        import os
        import time

        if os.path.exists(path):
            return "again"
        open(path, "w").close()
        time.sleep(600)
        return "first"

    with running(up("-m", mode, "-w", "1", data=data), tmp_path) as command:
        caller = Caller(ready(command)[0])
        task_id = caller.submit(nap_once, str(marker))
        until(marker.exists)
        command.family()
        command.signal(signal.SIGINT)
        assert command.line().startswith("draining")
        command.signal(signal.SIGINT)
        assert command.wait() == 0
        assert command.alive() == []
    with running(up("-m", mode, "-w", "1", data=data), tmp_path) as command:
        assert Caller(ready(command)[0]).result(task_id) == "again"


def test_tasks_that_take_longer_than_the_drain_are_stopped(tmp_path: Path) -> None:
    with running(up("-w", "1", "--drain", "0.2", data=tmp_path / "data"), tmp_path) as command:
        caller = Caller(ready(command)[0])
        task_id = caller.submit(make_nap(), 600)
        until(lambda: caller.status(task_id) == "RUNNING")
        assert command.end() == 0
        assert "takes too long: stopping it" in command.errors
        assert command.alive() == []


def test_workers_may_come_from_elsewhere(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = up("-m", "push", "--workers", "0", "-p", str(port), data=tmp_path / "data")
    with running(words, tmp_path) as command:
        assert command.line().startswith(f"waiting for workers at tcp://127.0.0.1:{port}; API http://127.0.0.1:")
        with running(everfaas("worker", "push", "1", f"tcp://127.0.0.1:{port}"), tmp_path) as worker:
            caller = Caller(ready(command)[0])
            assert caller.result(caller.submit(make_double(), 3)) == 6
            assert worker.end() == 0
            assert worker.alive() == []
        assert command.end() == 0


def test_memory_runs_in_one_process(tmp_path: Path) -> None:
    with running(everfaas("up", "--port", "0", "--store", "memory", "-w", "1"), tmp_path) as command:
        url, fields = ready(command)
        assert fields["data"] == "memory"
        caller = Caller(url)
        assert caller.result(caller.submit(make_double(), 5)) == 10
        assert command.end() == 0
        assert command.rest().splitlines()[-1] == "stopped"
        assert port_is_closed(url)
        assert command.alive() == []


def test_functions_by_reference_are_found_in_the_current_folder_and_on_path(tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    (tmp_path / "lib").mkdir()
    (tmp_path / "here/in_cwd.py").write_text("def triple(x):\n    return x * 3\n")
    (tmp_path / "lib/on_path.py").write_text("def quarter(x):\n    return x / 4\n")

    words = everfaas("up", "--port", "0", "--store", "memory", "-w", "1", "--path", str(tmp_path / "lib"))
    with running(words, tmp_path / "here") as command:
        caller = Caller(ready(command)[0])
        assert caller.result(caller.submit(ByReference("in_cwd", "triple"), 2)) == 6
        assert caller.result(caller.submit(ByReference("on_path", "quarter"), 8)) == 2.0


class ByReference:
    """Pickles as a function of an importable module does: as nothing but its name."""

    def __init__(self, module: str, name: str) -> None:
        self.__name__ = name
        self.pickled = f"c{module}\n{name}\n.".encode()

    def __call__(self) -> None:
        """Callable only to pass for a function."""


def test_beyond_loopback_needs_insecure_and_is_warned_of(tmp_path: Path) -> None:
    words = up("--host", "0.0.0.0", "--insecure", "-w", "1", data=tmp_path / "data")
    with running(words, tmp_path) as command:
        line = command.line()
        assert line.startswith("ready http://0.0.0.0:"), command.errors
        assert command.errors.count("Warning: the API listens on 0.0.0.0 without authentication") == 1
        assert command.end() == 0


def test_json_logs_are_objects(tmp_path: Path) -> None:
    words = up("-w", "1", "--log-format", "json", "--log-level", "info", data=tmp_path / "data")
    with running(words, tmp_path, {"EVERFAAS_SLOT": "2"}) as command:
        ready(command)
        assert command.end() == 0
        lines = [json.loads(line) for line in command.errors.splitlines()]
        assert {"up", "api", "dispatcher"} <= {line["role"] for line in lines}
        assert any("EVERFAAS_SLOT is not a setting" in line["message"] for line in lines)
        assert all(line["ts"] and line["level"] and line["pid"] for line in lines)


def test_it_lives_on_when_nobody_reads_its_output(tmp_path: Path) -> None:
    with running(up("-w", "1", data=tmp_path / "data"), tmp_path) as command:
        url, _ = ready(command)
        assert command.process.stdout is not None
        command.process.stdout.close()
        caller = Caller(url)
        assert caller.result(caller.submit(make_double(), 6)) == 12
        assert command.end() == 0
