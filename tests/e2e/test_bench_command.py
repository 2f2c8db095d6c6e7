"""`everfaas bench` against a real system, and what it says and exits with when something is wrong."""

from __future__ import annotations

import http.server
import json
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import requests

from everfaas_core.cli import bench, main, workload
from everfaas_core.cli.workload import NONE, Workload
from everfaas_core.client.errors import ApiFailed
from everfaas_core.client.http import Api
from tests.unit.system import everfaas, running
from tests.unit.test_cli_up import ready, up

SLOTS = 2


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    home = tmp_path_factory.mktemp("bench")
    with running(up("-w", str(SLOTS), data=home / "data"), home) as command:
        yield ready(command)[0]
        assert command.end() == 0
        assert command.alive() == []


pytestmark = pytest.mark.xdist_group("bench-command")  # one system for all


def test_a_user_gets_all_figures_and_hears_what_is_done(url: str, tmp_path: Path) -> None:
    words = everfaas("bench", "--tasks", "1200", "--json")
    done = subprocess.run(
        [sys.executable, *words],
        cwd=tmp_path,
        env={"EVERFAAS_URL": url},
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout)
    assert (figures["url"], figures["slots"], figures["tasks"], figures["sleeps"]) == (url, SLOTS, 1200, 10)
    assert figures["sleeps_s"] >= figures["sleeps_ideal_s"] == 2.5
    assert 0 < figures["call_p50_ms"] <= figures["call_p99_ms"]
    assert figures["tasks_per_s"] > 0
    assert figures["payload_mib_per_s"] > 0
    for word in ("valkey", "warming up", "throughput: 1,200", "latency", "fairness", "payloads"):
        assert word in done.stderr


def test_the_table_is_what_is_printed_otherwise(
    url: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"CALLS": 5, "NAP_S": 0.01, "ECHOES": 9}.items():
        monkeypatch.setattr(bench, name, value)
    monkeypatch.setattr(workload, "BATCH_TASKS", 10)  # more batches than may be ahead
    assert main(["bench", "--url", url + "/", "--tasks", "150"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("  ")[0] for line in lines] == [
        "no-op tasks in batches (150)",
        "single call, median",
        "single call, 99 of 100 within",
        "10 sleeps of 0.01 s",
        "arguments of 1 MiB echoed",
    ]
    assert all(unit in line for unit, line in zip(["tasks/s", "ms", "ms", "ideal 0.05 s", "MiB/s"], lines, strict=True))


def test_nothing_of_it_is_kept_for_long_and_its_functions_are_registered_once(url: str) -> None:
    def registered() -> list[Any]:
        found = requests.get(url + "/v1/functions", timeout=10).json()["functions"]
        return [one for one in found if one["name"].startswith("everfaas-bench-")]

    with Api(url) as api:
        Workload(api).warm_up(1)
        ours = registered()
        Workload(api)
    assert registered() == ours
    assert {one["name"].rpartition("-")[2] for one in ours} == {"echo", "nap", "noop"}
    assert {one["options"]["result_ttl_s"] for one in ours} == {workload.RESULT_TTL_S}
    newest = requests.get(url + "/v1/tasks?limit=1", timeout=10).json()["tasks"][0]
    assert newest["expires_ms"] - newest["ended_ms"] == workload.RESULT_TTL_S * 1000


def test_its_functions_travel_by_value(tmp_path: Path) -> None:
    import dill

    payloads = {name: dill.dumps(one, recurse=True) for name, one in workload.functions().items()}
    (tmp_path / "payloads").write_bytes(dill.dumps(payloads))
    check = (
        "import dill, sys; sys.modules['everfaas_core'] = None\n"
        "found = {name: dill.loads(one) for name, one in dill.load(open('payloads', 'rb')).items()}\n"
        "assert found['noop']() is None and found['nap'](0.0) is None and found['echo'](b'x') == b'x'\n"
    )
    subprocess.run([sys.executable, "-c", check], cwd=tmp_path, check=True, timeout=60)


def test_a_task_that_fails_is_told_with_its_reason(url: str) -> None:
    def make() -> object:
        return lambda: 1 // 0

    with Api(url) as api, pytest.raises(ApiFailed, match="FAILED: ZeroDivisionError"):
        Workload(api, {"boom": make()}).run_s("boom", [((), NONE)])  # type: ignore[dict-item]


def test_a_wrong_result_is_not_a_figure(url: str) -> None:
    with Api(url) as api, pytest.raises(ApiFailed, match="not the one"):
        Workload(api).run_s("echo", [((b"here",), b"here"), ((b"there",), b"elsewhere")])


# ── what can be wrong ────────────────────────────────────────────────────────────────────────────────────────────────


def refused(words: list[str], capsys: pytest.CaptureFixture[str], status: int) -> str:
    """Run `everfaas bench`, demand this exit status and nothing on stdout, and return what it said."""
    assert main(["bench", *words]) == status
    shown = capsys.readouterr()
    assert shown.out == ""
    return shown.err


def test_nobody_there_is_said_with_the_remedy(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, not listening: every connection is refused
        said = refused(["--url", f"http://127.0.0.1:{taken.getsockname()[1]}"], capsys, 4)
    assert "no API answers" in said
    assert "everfaas up" in said
    assert "EVERFAAS_URL" in said


def test_usage_errors_exit_with_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert "http://127.0.0.1:8000" in refused(["--url", "ftp://x"], capsys, 2)
    assert "http://127.0.0.1:8000" in refused(["--url", "http://x:y"], capsys, 2)
    assert "--tasks" in refused(["--tasks", "0"], capsys, 2)


def test_a_system_without_workers_is_refused_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = up("-m", "pull", "--workers", "0", "-p", "0", data=tmp_path / "data")
    with running(words, tmp_path) as command:
        line = command.line()
        assert line.startswith("waiting for workers at"), command.errors
        said = refused(["--url", line.split("API ")[1].split(";")[0]], capsys, 1)
        assert "refused (503)" in said
        assert "Hint:" in said
        assert command.end() == 0


@contextmanager
def stranger(status: int, content: bytes, kind: str) -> Iterator[str]:
    """Run a web server that is not our API."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize(
    ("status", "content", "kind"),
    [
        (200, b"<html>hello</html>", "text/html"),
        (200, b'{"fine": true}', "application/json"),
        (404, b"not found", "text/plain"),
    ],
)
def test_another_web_server_is_not_measured(
    status: int, content: bytes, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with stranger(status, content, kind) as url:
        said = refused(["--url", url], capsys, 4)
    assert "is not this API" in said
    assert "--url" in said


@pytest.mark.parametrize(
    ("count", "share", "expected"), [(1, 0.99, 0), (100, 0.99, 98), (101, 0.99, 99), (300, 0.99, 296), (10, 0.5, 4)]
)
def test_percentiles(count: int, share: float, expected: int) -> None:
    assert bench.percentile(list(map(float, range(count))), share) == expected
