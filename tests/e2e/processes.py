"""Starting roles as a user would, on free ports, and making sure that nothing of them is left."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parents[2]
READY_S = 30.0
STOP_S = 20.0


def clean_env(home: Path) -> dict[str, str]:
    """The environment of a user who has set nothing: no EVERFAAS_* of whoever runs the tests."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("EVERFAAS_")}
    return env | {"HOME": str(home), "XDG_STATE_HOME": str(home / "state"), "XDG_CONFIG_HOME": str(home / "config")}


class Process:
    """One role. `address` is where it listens, as it told us itself."""

    def __init__(self, command: Sequence[str], log: Path, *, cwd: Path = ROOT, wait: bool = True) -> None:
        reader, writer = os.pipe()
        self.log = log
        self.command = command
        with log.open("ab") as out:
            self.popen = subprocess.Popen(
                [sys.executable, *command, "--ready-fd", str(writer)],
                cwd=cwd,
                env=clean_env(log.parent),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                pass_fds=[writer],
                start_new_session=True,
            )
        os.close(writer)
        self._reader = reader
        self.address = self._await_ready() if wait else ""

    def _await_ready(self) -> str:
        readable, _, _ = select.select([self._reader], [], [], READY_S)
        line = os.read(self._reader, 4096) if readable else b""
        if not line:
            self.stop(signal.SIGKILL)
            raise AssertionError(f"{self.command} did not become ready:\n{self.log.read_text()}")
        return str(json.loads(line)["address"])

    def family(self) -> list[psutil.Process]:
        """This process and all its descendants."""
        try:
            process = psutil.Process(self.popen.pid)
            return [process, *process.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

    def stop(self, signum: int = signal.SIGTERM) -> int:
        """End it and demand that no descendant outlives it. Returns the exit status."""
        family = self.family()
        if self.popen.poll() is None:
            self.popen.send_signal(signum)
        try:
            status = self.popen.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self.popen.kill()
            self.popen.wait()
            raise AssertionError(f"{self.command} did not stop:\n{self.log.read_text()[-4000:]}") from None
        finally:
            if self._reader >= 0:
                os.close(self._reader)
                self._reader = -1
        _, alive = psutil.wait_procs(family, timeout=3)
        for process in alive:
            process.kill()
        assert not alive, f"{self.command} left {alive} behind"
        return status


class System:
    """A store, an API, a dispatcher and, where the mode wants them, two workers: each a process of its own."""

    def __init__(self, home: Path, mode: str, *, store: str | None = None, slots: int = 4, flags: Sequence[str] = ()):
        self.home = home
        self.mode = mode
        self.flags = list(flags)
        self.processes: list[Process] = []
        try:
            self.store = store or self.start("everfaas", "store", "--port", "0", "--data", str(home / "data")).address
            self.api = self.start("app.py", "--port", "0", "--store", self.store)
            self.url = self.api.address.rstrip("/")
            self.slots = slots
            self.dispatcher = self.start_dispatcher()
            self.workers = [] if mode == "local" else [self.start_worker(slots // 2) for _ in range(2)]
            self.await_slots(slots)
        except BaseException:
            self.stop()
            raise

    def start(self, *command: str, cwd: Path = ROOT) -> Process:
        if command[0] == "everfaas":
            command = ("-m", "everfaas_core.cli", *command[1:])
        name = command[2] if command[0] == "-m" else command[0]
        log = self.home / f"{len(self.processes)}-{name.replace('.py', '')}.log"
        process = Process(command, log, cwd=cwd)
        self.processes.append(process)
        return process

    def start_dispatcher(self, port: str = "0") -> Process:
        where = ["-w", str(self.slots)] if self.mode == "local" else ["-p", port]
        return self.start("run_dispatcher.py", "-m", self.mode, *where, "--store", self.store, *self.flags)

    def start_worker(self, slots: int, *flags: str) -> Process:
        return self.start("run_worker.py", self.mode, str(slots), self.dispatcher.address, *flags)

    def await_slots(self, slots: int) -> None:
        import requests

        until = time.monotonic() + READY_S
        while True:
            workers = requests.get(f"{self.url}/v1/workers", timeout=10).json()["workers"]
            if sum(worker["slots"] for worker in workers) >= slots:
                return
            assert time.monotonic() < until, f"the workers did not join: {workers}"
            time.sleep(0.02)

    def stop(self) -> None:
        failures = []
        for process in reversed(self.processes):
            try:
                process.stop()
            except AssertionError as error:
                failures.append(str(error))
        assert not failures, "\n".join(failures)
