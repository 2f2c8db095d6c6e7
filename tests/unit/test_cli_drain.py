"""`everfaas drain` against a real system, and what it says when something is wrong."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import requests

from tests.unit.system import everfaas, running
from tests.unit.test_cli_up import ready, until, up


def drain(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *everfaas("drain", *words)], capture_output=True, text=True, timeout=60)


def test_a_drained_worker_leaves_and_an_unknown_one_is_named(tmp_path: Path) -> None:
    with running(up("-m", "pull", "--workers", "1", "-w", "1", data=tmp_path / "data"), tmp_path) as command:
        url, _ = ready(command)

        def listed() -> list[str]:
            answer = requests.get(f"{url}/v1/workers", timeout=10).json()
            return [one["worker_id"] for one in answer["workers"]]

        (worker,) = listed()
        unknown = drain("nobody", "--url", url)
        assert (unknown.returncode, unknown.stdout) == (8, "")
        assert "nobody" in unknown.stderr
        done = drain(worker, "--url", url)
        assert (done.returncode, done.stdout) == (0, f"draining {worker}\n"), done.stderr
        until(lambda: worker not in listed())
        assert command.end() == 0
        assert command.alive() == []


def test_no_api_there_is_said_with_the_remedy() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, not listening: every connection is refused
        done = drain("w", "--url", f"http://127.0.0.1:{taken.getsockname()[1]}")
    assert done.returncode == 4
    assert "no API answers" in done.stderr
    assert "everfaas up" in done.stderr


def test_a_bad_url_and_no_worker_are_usage_errors() -> None:
    bad = drain("w", "--url", "ftp://x")
    assert bad.returncode == 2
    assert "http://127.0.0.1:8000" in bad.stderr
    assert drain().returncode == 2
