"""Real commands as child processes, and a client that has only `requests` and `dill`."""

from __future__ import annotations

import codecs
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dill
import psutil
import requests

ROOT = Path(__file__).parents[2]
WAIT_S = 30.0


class Command:
    """A running command, its lines, and its descendants."""

    def __init__(self, words: Sequence[str], cwd: Path, environ: Mapping[str, str] | None = None) -> None:
        clean = {name: value for name, value in os.environ.items() if not name.startswith("EVERFAAS_")}
        self._errors = (cwd / f"stderr-{time.monotonic_ns()}").open("w+")
        self.process = subprocess.Popen(
            [sys.executable, *words],
            cwd=cwd,
            env={**clean, "HOME": str(cwd), "XDG_STATE_HOME": str(cwd / "state"), **(environ or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
        )
        self._family: dict[int, psutil.Process] = {}

    def line(self) -> str:
        """Return the next line of stdout; "" at its end."""
        assert self.process.stdout is not None
        return self.process.stdout.readline().rstrip("\n")

    def rest(self) -> str:
        """Return what is left of stdout."""
        assert self.process.stdout is not None
        return self.process.stdout.read()

    @property
    def errors(self) -> str:
        """What has come on stderr so far."""
        return Path(self._errors.name).read_text()

    def family(self) -> list[psutil.Process]:
        """Return all descendants seen so far."""
        try:
            for process in psutil.Process(self.process.pid).children(recursive=True):
                self._family[process.pid] = process
        except psutil.NoSuchProcess:
            pass
        return list(self._family.values())

    def child(self, role: str) -> psutil.Process:
        """Return the direct child in this role."""

        def find() -> psutil.Process | None:
            for process in psutil.Process(self.process.pid).children():
                try:
                    if role in process.cmdline() or process.name().startswith(role):
                        return process
                except psutil.Error:
                    continue
            return None

        return until(find)

    def signal(self, signum: int) -> None:
        """Send a signal."""
        self.process.send_signal(signum)

    def wait(self) -> int:
        """Wait for the end; return the exit status."""
        return self.process.wait(WAIT_S)

    def end(self) -> int:
        """Ask it to end; return the exit status."""
        self.family()
        if self.process.poll() is None:
            self.signal(signal.SIGTERM)
        return self.wait()

    def alive(self) -> list[psutil.Process]:
        """Return the descendants that still live."""
        return [process for process in self.family() if is_alive(process)]


def is_alive(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


@contextmanager
def running(words: Sequence[str], cwd: Path, environ: Mapping[str, str] | None = None) -> Iterator[Command]:
    """Run a command, and leave nothing of it behind."""
    command = Command(words, cwd, environ)
    try:
        yield command
    finally:
        family = command.family()
        command.process.kill()
        command.process.wait()
        for process in family:
            if is_alive(process):
                process.kill()
        assert command.process.stdout is not None
        command.process.stdout.close()
        command._errors.close()


def everfaas(*words: str) -> list[str]:
    """Return the words of a subcommand."""
    return ["-m", "everfaas_core.cli", *words]


def until(check: Callable[[], Any], wait_s: float = WAIT_S) -> Any:
    """Call `check` until it returns something true, and return that."""
    deadline = time.monotonic() + wait_s
    while True:
        found = check()
        if found:
            return found
        assert time.monotonic() < deadline, f"{check} is still {found!r} after {wait_s} s"
        time.sleep(0.02)


def encode(thing: object) -> str:
    """Serialize as a v0 client does; a thing may bring its own stream."""
    pickled = getattr(thing, "pickled", None) or dill.dumps(thing, recurse=True)
    return codecs.encode(pickled, "base64").decode()


class Caller:
    """A v0 client that tries again while a role is being started again."""

    def __init__(self, url: str) -> None:
        self.url = url

    def _call(self, method: str, path: str, **body: object) -> Any:
        def attempt() -> Any:
            try:
                answer = requests.request(method, self.url + path, json=body or None, timeout=10)
            except requests.ConnectionError:
                return None
            return answer if answer.status_code != 503 else None

        answer = until(attempt)
        assert answer.ok, answer.text
        return answer.json()

    def submit(self, function: Callable[..., Any], *args: object) -> str:
        name = function.__name__
        registered = self._call("POST", "/register_function", name=name, payload=encode(function))
        function_id = registered["function_id"]
        task = self._call("POST", "/execute_function", function_id=function_id, payload=encode((args, {})))
        return str(task["task_id"])

    def status(self, task_id: str) -> str:
        return str(self._call("GET", f"/status/{task_id}")["status"])

    def result(self, task_id: str) -> Any:
        def ended() -> Any:
            record = self._call("GET", f"/result/{task_id}")
            return record if record["status"] in ("COMPLETED", "FAILED", "CANCELLED") else None

        record = until(ended)
        return dill.loads(codecs.decode(record["result"].encode(), "base64"))
