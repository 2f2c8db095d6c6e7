"""How the tests call commands: in this process, in a pipe, and in a terminal of some width."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import dill
import pytest

from everfaas_core.cli import main
from everfaas_core.client.http import Api
from tests.unit.system import WAIT_S

UNKNOWN_ID = "00000000-0000-0000-0000-000000000000"


class Shown:
    """What a command has printed, and its exit status."""

    def __init__(self, status: int, out: bytes, err: bytes) -> None:
        self.status = status
        self.raw = out
        self.out = out.decode(errors="surrogateescape")
        self.err = err.decode()

    @property
    def lines(self) -> list[str]:
        return self.out.splitlines()

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def objects(self) -> list[Any]:
        return [json.loads(line) for line in self.lines]


class Line:
    """Runs commands in this process; submits what they are to find."""

    def __init__(self, url: str, captured: pytest.CaptureFixture[bytes]) -> None:
        self.url = url
        self.api = Api(url)
        self._captured = captured

    def __call__(self, *words: str, status: int | None = 0) -> Shown:
        """Run a command; it must exit with `status`, unless that is None."""
        self._captured.readouterr()
        found = main(words)
        shown = Shown(found, *self._captured.readouterr())
        assert status is None or found == status, (found, shown.out, shown.err)
        assert "Traceback" not in shown.err or found == 5 or "can't be imported" in shown.err
        return shown

    def submit(self, function: Callable[..., Any], *args: object, name: str = "", **fields: object) -> str:
        """Submit a call; the function travels by value if it was made by another function."""
        body = {"name": name or function.__name__, "payload": dill.dumps(function, recurse=True)}
        function_id = self.api.post("/v1/functions", body)["function_id"]
        call = {"function_id": function_id, "payload": dill.dumps((args, {})), **fields}
        return str(self.api.post("/v1/tasks", call)["task_id"])

    def ended(self, task_id: str) -> dict[str, Any]:
        """Wait for the end of a task; return its record."""
        self.api.get(f"/result/{task_id}", {"wait": WAIT_S})
        record: dict[str, Any] = self.api.get(f"/v1/tasks/{task_id}")
        assert record["ended_ms"], record
        return record


def environment(url: str, cwd: Path, more: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the environment of a command as a user has it."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("EVERFAAS_")}
    ours = {"EVERFAAS_URL": url, "HOME": str(cwd), "TERM": "xterm-256color", "NO_COLOR": "1"}
    return {**clean, **ours, **(more or {})}


def piped(
    words: Sequence[str], url: str, cwd: Path, *, stdin: bytes = b"", environ: Mapping[str, str] | None = None
) -> Shown:
    """Run `everfaas …` to its end in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "everfaas_core.cli", *words],
        cwd=cwd,
        env=environment(url, cwd, environ),
        input=stdin,
        capture_output=True,
        timeout=60,
    )
    return Shown(done.returncode, done.stdout, done.stderr)


class Screen:
    """A command that runs in a terminal of its own."""

    def __init__(
        self,
        words: Sequence[str],
        url: str,
        cwd: Path,
        *,
        width: int = 80,
        height: int = 24,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))
        self.process = subprocess.Popen(
            [sys.executable, "-m", "everfaas_core.cli", *words],
            cwd=cwd,
            env=environment(url, cwd, {"COLUMNS": str(width), "LINES": str(height), **(environ or {})}),
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0) and None,
        )
        os.close(slave)
        self._data = b""
        self.text = ""

    def __enter__(self) -> Screen:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self._master)

    def until(self, wanted: str, wait_s: float = WAIT_S) -> str:
        """Read until this has been shown; return everything that was."""
        deadline = time.monotonic() + wait_s
        while wanted not in self.text:
            assert time.monotonic() < deadline, f"{wanted!r} is not in {self.text!r}"
            if not self._read(0.5) and self.process.poll() is not None:
                self._read(0.1)
                assert wanted in self.text, f"{wanted!r} is not in {self.text!r}"
        return self.text

    def end(self, wait_s: float = WAIT_S) -> int:
        """Read to the end; return the exit status."""
        deadline = time.monotonic() + wait_s
        while self.process.poll() is None:
            assert time.monotonic() < deadline, self.text
            self._read(0.2)
        while self._read(0.05):
            pass
        return self.process.returncode

    def type(self, text: str) -> None:
        """Type on the keyboard; "\\x03" is Ctrl-C."""
        os.write(self._master, text.encode())

    def interrupt(self) -> None:
        """Send SIGINT, as Ctrl-C does."""
        os.killpg(self.process.pid, signal.SIGINT)

    def _read(self, wait_s: float) -> bool:
        if not select.select([self._master], [], [], wait_s)[0]:
            return False
        try:
            data = os.read(self._master, 65536)
        except OSError:  # the other side is closed
            return False
        self._data += data  # what was read may end in the midst of a line's end, or of a character
        self.text = self._data.decode(errors="replace").replace("\r\n", "\n")
        return bool(data)
