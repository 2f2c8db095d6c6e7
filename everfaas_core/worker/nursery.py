"""The worker's end of its nursery: start it, ask for slots, hear of their births and deaths, end it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Final

import everfaas_core
from everfaas_core.ports import Selector
from everfaas_core.worker.births import Ask, Report, Request, Tell, pack_request, take_reports

CLOSE_S_MAX: Final = 4.0
"""How long `close` waits for the nursery to end what it has; then it is killed, and the slots with it."""

HIDDEN_PREFIXES: Final = ("EVERFAAS_", "REDIS", "VALKEY")
HIDDEN_SCHEMES: Final = ("redis://", "rediss://", "valkey://", "valkeys://", "redis+unix://", "unix://")
"""What slots must not see: variables with these prefixes, and any whose value holds such an address."""

# The module that the command line makes is replaced before dill is imported: dill keeps the __main__ that it finds, and
# functions of clients' scripts must land in an empty one.
_BOOT: Final = """\
import json, sys, types
settings = json.loads(sys.argv[1])
boot, sys.modules["__main__"] = sys.modules["__main__"], types.ModuleType("__main__")
sys.path.insert(0, settings["root"])
from everfaas_core.worker.nursery_process import main
main(settings)
"""


def scrubbed(environment: Mapping[str, str], keep: Collection[str] = ()) -> dict[str, str]:
    """Return the environment that slots get: without our settings, store addresses and their passwords.

    Names in `keep` pass whatever they hold.
    """

    def hidden(name: str, value: str) -> bool:
        lowered = value.lower()
        return name.upper().startswith(HIDDEN_PREFIXES) or any(scheme in lowered for scheme in HIDDEN_SCHEMES)

    return {name: value for name, value in environment.items() if name in keep or not hidden(name, value)}


class Nursery:
    """One nursery process. When it dies, `reports` says so by raising EOFError; then make a new one."""

    def __init__(self, cells_fd: int, path: Sequence[str], keep_env: Collection[str] = ()) -> None:
        self._cells_fd = cells_fd
        self._path = list(path)
        self._keep_env = keep_env
        self._control: socket.socket | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._selector: Selector | None = None
        self._incoming = bytearray()
        self._pids: dict[int, int] = {}  # birth → pid of a living slot

    def start(self, selector: Selector) -> None:
        """Start the process; slots may be asked for at once. Raises OSError if it can't be started."""
        ours, theirs = socket.socketpair()
        settings = {
            "root": str(Path(everfaas_core.__file__).parent.parent),
            "control": theirs.fileno(),
            "cells": self._cells_fd,
            "path": self._path,
        }
        with theirs:
            self._process = subprocess.Popen(  # noqa: S603 - our own interpreter and our own code
                [sys.executable, "-P", "-c", _BOOT, json.dumps(settings)],
                stdin=subprocess.DEVNULL,
                env=scrubbed(os.environ, self._keep_env),
                pass_fds=[theirs.fileno(), self._cells_fd],
                start_new_session=True,  # a Ctrl-C in the terminal is the worker's to handle
            )
        ours.setblocking(False)
        self._control, self._selector = ours, selector
        selector.register(ours.fileno())

    @property
    def pid(self) -> int | None:
        """The process id, while there is one."""
        return None if self._process is None else self._process.pid

    def fileno(self) -> int:
        """Return the descriptor on which reports come in, -1 when closed."""
        return -1 if self._control is None else self._control.fileno()

    def fork(self, birth: int, cell: int, fds: Sequence[int]) -> None:
        """Ask for a slot with these, which are copied: its ends of the channel, the tokens, stdout and stderr."""
        self._ask(Request(Ask.FORK, birth, cell), fds)

    def kill(self, birth: int) -> None:
        """Ask for a slot's death. Harmless if it is dead already."""
        self._ask(Request(Ask.KILL, birth, 0))

    def pulse(self, fence_s: float | None) -> None:
        """Say that the worker lives, and what is to happen if it does not say so again within `fence_s`."""
        self._ask(Request(Ask.PULSE, 0, 0 if fence_s is None else max(int(fence_s * 1000), 1)))

    def _ask(self, request: Request, fds: Sequence[int] = ()) -> None:
        if self._control is None:
            return
        try:
            socket.send_fds(self._control, [pack_request(request)], list(fds))
        except BlockingIOError:
            self._kill()  # it has not read for thousands of records: it hangs
        except OSError:
            pass  # it is dead: `reports` will say so

    def reports(self) -> list[Report]:
        """Return what has been told since the last call. Raises EOFError when the nursery is dead."""
        ended = self._control is None
        while self._control is not None and not ended:
            try:
                data = self._control.recv(65536)
            except BlockingIOError:
                break
            except OSError:
                data = b""
            self._incoming += data
            ended = not data
        reports = take_reports(self._incoming)
        for report in reports:
            if report.tell is Tell.BORN:
                self._pids[report.birth] = report.number
            elif report.tell is Tell.DIED:
                self._pids.pop(report.birth, None)
        if ended and not reports:
            raise EOFError
        return reports

    def epitaph(self) -> str:
        """Return how the process ended, in words."""
        status = None if self._process is None else self._process.poll()
        if status is None:
            return "is gone"
        return f"was killed by {signal.Signals(-status).name}" if status < 0 else f"exited with status {status}"

    def close(self) -> None:
        """End the nursery with all slots and their descendants, and reap it. Idempotent."""
        if self._control is not None:
            if self._selector is not None:
                self._selector.unregister(self._control.fileno())
            self._control.close()  # this is what tells it to end
            self._control = None
        if self._process is None:
            return
        try:
            self._process.wait(CLOSE_S_MAX)
        except subprocess.TimeoutExpired:
            self._kill()
            self._process.wait()
        if self._process.returncode != 0:  # it could not clean up; slots die by their death signal, their groups here
            for pid in self._pids.values():
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(pid, signal.SIGKILL)
        self._pids.clear()

    def _kill(self) -> None:
        if self._process is not None:
            self._process.kill()


def death_reason(status: int) -> str:
    """Say how a slot's process ended, from its wait status."""
    if os.WIFSIGNALED(status):
        signum = os.WTERMSIG(status)
        try:
            name = signal.Signals(signum).name
        except ValueError:
            name = "a real-time signal"
        hint = "; the system does that when memory runs out" if signum == signal.SIGKILL else ""
        return f"the slot's process was killed by signal {signum} ({name}){hint}"
    return f"the slot's process exited with status {os.waitstatus_to_exitcode(status)} in the middle of it (os._exit?)"
