"""top, doctor, config: what they show, and what they exit with."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from everfaas_core.cli import main
from everfaas_core.cli.doctor import Check
from everfaas_core.cli.doctor_here import port_owner
from everfaas_core.cli.top import Look, Throughput
from tests.cli.driving import Line, Screen, piped
from tests.cli.functions import MADE
from tests.unit.system import Command, running
from tests.unit.test_cli_up import ready, up

pytestmark = pytest.mark.xdist_group("cli-watch")


# ── top ──────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_top_in_a_pipe_prints_one_snapshot(line: Line) -> None:
    task_id = line.submit(MADE["double"], 1)
    line.ended(task_id)
    lines = line("top").lines
    assert lines[0].startswith(line.url)
    assert " tasks/s  0 queued  " in lines[1]
    assert "1 dispatcher  1 worker  0 of 2 slots busy" in lines[2]
    found = line("top", "--json").json
    assert found["health"]["ended"] >= 1
    assert found["tasks_per_s"] == 0
    assert found["tasks"][0]["task_id"] == task_id
    assert len(found["workers"]) == len(found["dispatchers"]) == 1


@pytest.mark.parametrize(("width", "key"), [(80, "q"), (120, "\x03")])
def test_top_draws_a_screen_until_a_key_ends_it(line: Line, tmp_path: Path, width: int, key: str) -> None:
    task_id = line.submit(MADE["nap"], 60)
    try:
        with Screen(["top", "--every", "0.2"], line.url, tmp_path, width=width) as screen:
            screen.until("1 of 2 slots busy")
            screen.until(task_id)
            screen.until("q leaves")
            screen.type(key)
            assert screen.end() == 0
        assert screen.text.count("q leaves") >= 1
        assert screen.text.rstrip().endswith("\x1b[?25h") or "\x1b[?1049l" in screen.text  # the screen is given back
    finally:
        line("cancel", task_id)


def test_top_goes_on_when_the_api_is_away_and_says_so(tmp_path: Path) -> None:
    with running(up("-w", "1", data=tmp_path / "data"), tmp_path) as command:
        url = ready(command)[0]
        with Screen(["top", "--every", "0.2"], url, tmp_path) as screen:
            screen.until("q leaves")
            assert command.end() == 0
            screen.until("what is shown is old")
            screen.type("q")
            assert screen.end() == 0


def test_throughput_is_what_has_ended_in_the_last_seconds() -> None:
    looks = [Look(health={"ended": ended}, at_s=at_s) for at_s, ended in ((0.0, 100), (1.0, 150), (2.0, 200))]
    assert Throughput(looks[:1]).per_s is None
    assert Throughput(looks).per_s == 50
    later = Throughput([*looks, Look(health={"ended": 1200}, at_s=12.0), Look(health={"ended": 1300}, at_s=13.0)])
    assert later.per_s == pytest.approx(1100 / 11)
    assert Throughput([*looks, Look(health={"ended": 3}, at_s=3.0)]).per_s is None  # another store


# ── doctor ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_doctor_of_a_system_that_is_well(line: Line, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "work.py").write_text("def f(): return 1\n")
    words = ["doctor", "work.py::f", "--port", "0", "--store-port", "0", "--data", str(tmp_path)]
    found = line(*words, "--json").json
    assert found["ok"] is True
    states = {check["name"]: check["state"] for check in found["checks"]}
    assert states == dict.fromkeys(
        [
            "settings",
            "plugins",
            "files",
            "disk",
            "sys.path",
            "function",
            "API",
            "clock",
            "ready",
            "store",
            "python",
            "dill",
        ],
        "ok",
    )
    lines = line(*words).lines
    assert lines[0].startswith("ok   settings  no config file")
    assert any(text.startswith("ok   API       answers at ") for text in lines)


def test_doctor_when_no_api_is_there(line: Line, tmp_path: Path) -> None:
    shown = line("doctor", "--url", "http://127.0.0.1:9", "--data", str(tmp_path), status=1)
    assert "fail API       no API answers at http://127.0.0.1:9" in shown.out
    assert "→ start one with `everfaas up`" in shown.out


def test_doctor_when_nothing_would_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = up("-m", "pull", "--workers", "0", "-p", "0", data=tmp_path / "data")
    with running(words, tmp_path) as command:
        url = command.line().split("API ")[1].split(";")[0]
        assert main(["doctor", "--url", url, "--data", str(tmp_path)]) == 1
        out = capsys.readouterr().out
        assert "fail ready     no worker has joined a dispatcher" in out
        assert "→ start one: python run_worker.py" in out
        assert command.end() == 0


def test_doctor_of_folders_that_hide_modules(line: Line, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "json.py").touch()
    (tmp_path / "redis").mkdir()
    (tmp_path / "redis" / "__init__.py").touch()
    (tmp_path / "queue").mkdir()  # no package: it hides nothing
    (tmp_path / "mine.py").touch()
    out = line("doctor", "--data", str(tmp_path)).out
    assert f"warn sys.path  {tmp_path}/json.py, {tmp_path}/redis hide a module" in out
    assert "→ rename it" in out


def test_doctor_of_a_port_that_something_else_has(line: Line, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        owner = port_owner(port)
        assert owner is not None
        assert owner.startswith(str(os.getpid()))
        out = line("doctor", "--port", str(port), "--data", str(tmp_path)).out
        assert f"{port}" in out
    assert f"{port} (API) is free" in line("doctor", "--port", str(port), "--data", str(tmp_path)).out


def test_doctor_of_a_store(everything: tuple[str, Command], line: Line, tmp_path: Path) -> None:
    store = everything[1].process  # the embedded one, by its socket
    socket_path = next(Path(everything[1]._errors.name).parent.joinpath("data").glob("*.sock"))
    assert store.poll() is None
    out = line("doctor", "--store", f"unix://{socket_path}", "--data", str(tmp_path)).out
    assert f"ok   store     unix://{socket_path}: valkey" in out
    out = line("doctor", "--store", "redis://:secret@127.0.0.1:9/0", "--data", str(tmp_path), status=1).out
    assert "fail store     redis://***@127.0.0.1:9/0:" in out
    assert "secret" not in out


def test_doctor_of_settings_that_are_wrong(line: Line, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVERFAAS_SLOTS", "many")
    out = line("doctor", "--data", str(tmp_path), status=1).out
    assert out == (
        "fail settings  --slots can't be 'many' from EVERFAAS_SLOTS\n"
        "               → allowed: a whole number from 1 to 1024\n"
    )
    monkeypatch.delenv("EVERFAAS_SLOTS")
    monkeypatch.setenv("EVERFAAS_SLOT", "4")
    assert (
        "warn settings  EVERFAAS_SLOT is not a setting; did you mean EVERFAAS_SLOTS?"
        in line("doctor", "--data", str(tmp_path)).out
    )


def test_doctor_of_a_function_that_does_not_travel(line: Line, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "work.py").write_text("import threading\nlock = threading.Lock()\ndef f(): return lock\n")
    out = line("doctor", "work.py::f", status=1).out
    assert "fail function  " in out
    assert "lock" in out
    assert "fail function  work.py has no 'g'" in line("doctor", "work.py::g", status=1).out


@pytest.mark.parametrize(
    ("workers", "name", "text"),
    [
        (
            [{"python": "3.8.1", "dill": "0.4.1", "draining": False}],
            "python",
            "workers run Python 3.8.1",
        ),
        ([{"python": "3.11.1", "dill": "0.1", "draining": False}], "dill", "workers have dill 0.1"),
        ([{"python": "3.11.1", "dill": "0.1", "draining": True, "worker_id": "w"}], "workers", "will leave: w"),
    ],
)
def test_doctor_of_workers_that_differ(workers: list[dict[str, object]], name: str, text: str) -> None:
    from everfaas_core.cli.doctor_there import _workers

    found = {check.name: check for check in _workers(workers)}
    assert found[name].state == "warn"
    assert text in found[name].text
    assert found[name].remedy


def test_doctor_of_clocks_and_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    from everfaas_core.cli.doctor_there import _clock, _store_kind

    class Away:
        """An API whose clock is an hour behind."""

        def head(self, path: str) -> dict[str, str]:
            import email.utils
            import time

            return {"Date": email.utils.formatdate(time.time() - 3600, usegmt=True)}

    check = _clock(Away())  # type: ignore[arg-type]  # it has what is asked of it
    assert (check.state, "1 h behind" in check.text) == ("warn", True)
    assert [check.state for check in _store_kind("memory")] == ["warn"]
    assert Check("a", "ok", "b").remedy == ""


# ── config ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_config_tells_where_each_value_comes_from(tmp_path: Path) -> None:
    (tmp_path / "everfaas.toml").write_text(
        'slots = 8\nurl = "http://head:1"\nstore = "redis://:secret@store:6379/0"\n[plugin.pull]\nx = 1\n'
    )
    environ = {"EVERFAAS_PORT": "9000", "EVERFAAS_PULL_X": "2"}
    shown = piped(["config", "--heartbeat", "0.25"], "", tmp_path, environ=environ)
    assert shown.status == 0, shown.err
    rows = {row.split("\t")[0]: row.split("\t")[1:] for row in shown.lines}
    file = str(tmp_path / "everfaas.toml")
    assert rows["slots"] == ["8", file]
    assert rows["url"] == ["http://head:1", file]
    assert rows["store"] == ["redis://***@store:6379/0", file]
    assert rows["port"] == ["9000", "EVERFAAS_PORT"]
    assert rows["heartbeat"] == ["0.25", "--heartbeat"]
    assert rows["liveness"] == ["1.25", "5 heartbeats"]
    assert rows["mode"] == ["local", "default"]
    assert rows["task_deadline"] == ["none", "default"]
    assert rows["plugin.pull.x"] == ["1", file]
    assert "EVERFAAS_PULL_X" in rows
    assert "secret" not in shown.out
    found = piped(["config", "--json"], "", tmp_path, environ=environ).json
    assert found["config_file"] == file
    assert found["settings"]["slots"] == {"value": 8, "from": file}


def test_config_of_a_command_has_its_own_defaults(tmp_path: Path) -> None:
    def store(*words: str) -> object:
        return piped(["config", *words, "--json"], "", tmp_path).json["settings"]["store"]

    assert store() == {"value": "redis://127.0.0.1:6379/0", "from": "default"}
    assert store("up") == {"value": "embedded", "from": "default of up"}
    assert store("up", "--store", "memory") == {"value": "memory", "from": "--store"}
    wrong = piped(["config", "--slots", "many"], "", tmp_path)
    assert (wrong.status, wrong.out) == (2, "")
    assert "--slots can't be 'many'" in wrong.err


def test_config_fits_into_a_terminal(tmp_path: Path) -> None:
    with Screen(["config"], "http://head:1", tmp_path) as screen:
        assert screen.end() == 0
    lines = screen.text.splitlines()
    assert lines[0].split() == ["key", "value", "from"]
    assert any(row.split() == ["url", "http://head:1", "EVERFAAS_URL"] for row in lines)
    assert max(map(len, lines)) <= 80


def test_a_reader_who_leaves_is_no_error(line: Line, tmp_path: Path) -> None:
    import subprocess
    import sys

    from tests.cli.driving import environment

    done = subprocess.run(
        f"{sys.executable} -m everfaas_core.cli config | head -n 1",
        shell=True,
        cwd=tmp_path,
        env=environment(line.url, tmp_path),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stdout.count("\n") == 1
    assert "Traceback" not in done.stderr
