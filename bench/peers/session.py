"""One system, started for one round: steps are sent to its host, and everything below this process is measured."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Any

from bench.peers import processes
from bench.peers.catalog import System
from bench.peers.environments import Environment

ROOT = Path(__file__).parents[2]
STOP_WITHIN_S = 20.0
READ_BYTES = 65536
LOOK_S = 1.0
LOG_CHARACTERS_MAX = 160


class StepFailed(Exception):
    """A peer did not do what it was asked. `over` says that its host is of no more use."""

    def __init__(self, message: str, over: bool = False) -> None:
        super().__init__(message)
        self.over = over


class Session:
    """A context manager: starts the host, and leaves no process and no file behind."""

    def __init__(self, system: System, environment: Environment, broker_binary: str) -> None:
        self._system, self._environment, self._binary = system, environment, broker_binary
        self._folder = tempfile.TemporaryDirectory(prefix="peers-", ignore_cleanup_errors=True)
        self._buffer = b""
        self._over = False

    def __enter__(self) -> Session:
        folder = Path(self._folder.name)
        self._answers, far_end = os.pipe()
        kept = {name: value for name, value in os.environ.items() if not name.startswith("EVERFAAS_")}
        arguments = [self._system.name, self._system.setting, str(folder), self._binary]
        with (folder / "host.log").open("wb") as log:
            self._host = subprocess.Popen(
                [str(self._environment.python), "-P", "-m", "bench.peers.host", *arguments, str(far_end)],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                pass_fds=(far_end,),
                cwd=folder,
                env=kept | {"PYTHONPATH": str(ROOT), "PATH": f"{self._environment.python.parent}:{os.environ['PATH']}"},
                preexec_fn=processes.die_with_parent,
            )
        os.close(far_end)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if not self._over and not isinstance(error, KeyboardInterrupt | SystemExit):
                self.ask({"do": "stop"}, STOP_WITHIN_S)
        except StepFailed:
            pass  # its figures are taken, and what would not stop is killed
        finally:
            processes.kill_all(os.getpid())
            self._host.wait()
            if self._host.stdin is not None:
                self._host.stdin.close()
            os.close(self._answers)
            self._folder.cleanup()

    def ask(self, step: dict[str, Any], within_s: float) -> dict[str, Any]:
        """Have a step done and return its figures, with `cpu_s` of everything. Raises StepFailed.

        `others_cores` is what the rest of the machine used meanwhile: a figure is worth something when it is near 0.
        """
        before, machine, began = _everything(), *_machine()
        try:
            assert self._host.stdin is not None
            self._host.stdin.write(json.dumps(step).encode() + b"\n")
            self._host.stdin.flush()
        except BrokenPipeError as error:
            raise self._ended() from error
        answer: dict[str, Any] = json.loads(self._read_line(step["do"], within_s))
        if "error" in answer:
            raise StepFailed(answer["error"])
        answer["cpu_s"] = processes.cpu_used_s(before, _everything())
        answer["others_cores"] = _others_cores(answer["cpu_s"], machine, began)
        return answer

    def rest(self, settle_s: float, seconds: float) -> dict[str, float]:
        """Do nothing; return what the system uses after it has settled, and the memory of its client apart from it."""
        time.sleep(settle_s)
        parts = self._parts()
        before, machine, began = processes.cpu_times(parts), *_machine()
        time.sleep(seconds)
        elapsed, used = time.perf_counter() - began, processes.cpu_used_s(before, processes.cpu_times(self._parts()))
        return {
            "seconds": elapsed,
            "cpu_percent": 100 * used / elapsed,
            "memory_mb": sum(processes.pss_mb(pid) for pid in parts),
            "client_mb": processes.pss_mb(self._host.pid),
            "processes": len(parts),
            "others_cores": _others_cores(used, machine, began),
        }

    def _parts(self) -> list[int]:
        client = set() if self._system.driver.scheduler_in_client else {self._host.pid}
        return [pid for pid in processes.descendants(os.getpid()) if pid not in client]

    def _read_line(self, what: str, within_s: float) -> bytes:
        until = time.monotonic() + within_s
        while b"\n" not in self._buffer:
            ready, _, _ = select.select([self._answers], [], [], min(LOOK_S, max(0.0, until - time.monotonic())))
            if ready and (data := os.read(self._answers, READ_BYTES)):
                self._buffer += data
            elif self._host.poll() is not None:  # its children may hold the pipe open, so its end is not enough
                raise self._ended()
            elif time.monotonic() > until:
                self._over = True
                raise StepFailed(f"{what} was not done within {within_s:.0f} s; {self._last_words()}", over=True)
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line

    def _ended(self) -> StepFailed:
        self._over = True
        code = self._host.wait()
        how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        return StepFailed(f"the client ended ({how}); {self._last_words()}", over=True)

    def _last_words(self) -> str:
        """Return the end of each process's log: they say why better than we could."""
        words = []
        for log in sorted(Path(self._folder.name).glob("*.log")):
            lines = log.read_text(errors="replace").split()
            words += [f"{log.name}: …{' '.join(lines)[-LOG_CHARACTERS_MAX:]}"] if lines else []
        return "; ".join(words) or "no process wrote anything"


def _everything() -> dict[int, processes.CpuTime]:
    return processes.cpu_times(processes.descendants(os.getpid()))


def _machine() -> tuple[float, float]:
    return processes.machine_cpu_s(), time.perf_counter()


def _others_cores(used_s: float, machine_s: float, began: float) -> float:
    """Return how many cores others have kept busy since then. The machine's clock is coarse, so it is never below 0."""
    now_s, now = _machine()
    return max(0.0, (now_s - machine_s - used_s) / (now - began))
