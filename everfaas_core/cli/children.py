"""One supervised child: a role in a process of its own, which ends when we do."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final, Protocol

from everfaas_core.cli import main
from everfaas_core.runtime.forking import can_fork, fork
from everfaas_core.runtime.signals import STOP

if TYPE_CHECKING:
    from everfaas_core.registry import Registry

RESTARTS_MAX: Final = 5
RESTARTS_WINDOW_S: Final = 30.0
RESTART_DELAY_S: Final = 0.1  # before the second restart in a window; doubles with each further one
READY_LINE_BYTES_MAX: Final = 4096


class RestartBudget:
    """How often something may be started again: RESTARTS_MAX times in RESTARTS_WINDOW_S."""

    def __init__(self) -> None:
        self._restarts: list[float] = []

    def spend(self, now: float) -> float | None:
        """Return the seconds to wait before the next start, or None when the budget is used up."""
        self._restarts = [at for at in self._restarts if now - at < RESTARTS_WINDOW_S]
        count = len(self._restarts)
        if count >= RESTARTS_MAX:
            return None
        self._restarts.append(now)
        return RESTART_DELAY_S * 2 ** (count - 1) if count else 0.0


class Process(Protocol):
    """What `subprocess.Popen` and `Forked` have in common."""

    @property
    def pid(self) -> int:
        """The process id."""

    def poll(self) -> int | None:
        """Return the exit status if it has ended (negative: the signal), else None."""

    def wait(self) -> int:
        """Wait for its end; return the exit status."""

    def send_signal(self, signum: int, /) -> None:
        """Send a signal, unless it has ended."""


class Child:
    """A role as a child process.

    `phase` orders the end: all of phase 0 are gone before phase 1 is asked. `environ` may be changed between starts.
    `fds` are descriptors of ours that each of its incarnations inherits under the same numbers. With a `registry`,
    which it then uses, it is a copy of this process rather than a new interpreter, whenever this can be copied.
    """

    def __init__(
        self,
        name: str,
        arguments: Sequence[str],
        environ: Mapping[str, str],
        *,
        phase: int,
        fds: Sequence[int] = (),
        registry: Registry | None = None,
    ) -> None:
        self.name = name
        self.phase = phase
        self.environ = dict(environ)
        self.budget = RestartBudget()
        self.was_ready = False  # in any of its incarnations
        self.asked = 0  # to drain, to stop
        self.kill_at: float | None = None
        self.start_at: float | None = None  # a restart that is due then
        self.ready_fd = -1
        self._arguments = list(arguments)
        self._fds = tuple(fds)
        self._registry = registry
        self._process: Process | None = None
        self._line = b""

    @property
    def pid(self) -> int | None:
        """The process id while it runs."""
        return self._process.pid if self._process is not None else None

    def start(self) -> None:
        """Start the process, from the main thread: the kernel ends it when the thread that started it does."""
        reader, writer = os.pipe()
        os.set_blocking(reader, False)
        words = [*self._arguments, "--ready-fd", str(writer), "--parent-pid", str(os.getpid())]
        fds = (writer, *self._fds)
        try:
            registry = self._registry
            if registry is not None and can_fork():
                self._process = fork(
                    lambda: _run(words, registry), words=["everfaas", *words], environ=self.environ, fds=fds
                )
            else:
                self._process = subprocess.Popen(  # noqa: S603 - our own interpreter, our own arguments
                    [sys.executable, "-P", "-m", "everfaas_core.cli", *words],
                    stdin=subprocess.DEVNULL,
                    pass_fds=fds,
                    env=self.environ,
                    process_group=0,
                )
        except BaseException:
            os.close(reader)
            raise
        finally:
            os.close(writer)
        self.ready_fd, self._line, self.start_at = reader, b"", None

    def read_ready(self) -> str | None:
        """Read the ready line; return the address in it once it is complete. Closes the descriptor when it is done."""
        try:
            piece = os.read(self.ready_fd, READY_LINE_BYTES_MAX)
        except BlockingIOError:
            return None
        self._line += piece
        if piece and b"\n" not in self._line and len(self._line) < READY_LINE_BYTES_MAX:
            return None
        self.close_ready()
        if not self._line.endswith(b"\n"):
            return None  # it died before it was ready
        self.was_ready = True
        return str(json.loads(self._line)["address"])

    def close_ready(self) -> None:
        """Close the descriptor of the ready line. Idempotent."""
        if self.ready_fd >= 0:
            os.close(self.ready_fd)
            self.ready_fd = -1

    def reap(self) -> int | None:
        """Return the exit status (negative: the signal) if it has just ended, else None."""
        if self._process is None:
            return None
        status = self._process.poll()
        if status is not None:
            self._process = None
        return status

    def ask(self, level: int) -> None:
        """Ask it to drain, or to stop at once. Two different signals, because equal ones merge while pending."""
        if self._process is None or level <= self.asked:
            return
        self.asked = level
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGTERM)
            if level >= STOP:
                self._process.send_signal(signal.SIGINT)

    def kill(self) -> None:
        """Kill its whole process group."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)

    def wait(self) -> None:
        """Wait for the end of a child that was killed."""
        if self._process is not None:
            self._process.wait()
            self._process = None

    def schedule(self, delay_s: float) -> None:
        """Have it started again in `delay_s` seconds."""
        self.start_at = time.monotonic() + delay_s


def _run(words: Sequence[str], registry: Registry) -> int:
    """Do in a copy of this process what `python -P -m everfaas_core.cli` does in a new interpreter."""
    if not sys.flags.safe_path:
        del sys.path[:1]  # the folder of our script, or the current one: no role is to import what lies there
    return main(words[1:], command=words[0], registry=registry)


def describe_exit(status: int) -> str:
    """Return an exit status in words."""
    if status >= 0:
        return f"exited with status {status}"
    with contextlib.suppress(ValueError):
        return f"was killed by {signal.Signals(-status).name}"
    return f"was killed by signal {-status}"
