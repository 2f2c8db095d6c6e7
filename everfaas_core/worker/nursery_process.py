"""The nursery: a small single-threaded process, warm with what slots need, that forks them and sees them die.

The worker starts one. It holds no task and no payload. It exists so that a slot costs a fork and not an interpreter,
that no slot inherits anything of the worker, that a death is known with its exit status at once even while a
grandchild keeps the slot's pipe open, and that nothing is left when the worker dies, however it dies.

Slots adopt what their tasks leave behind, and the nursery adopts what slots leave behind (PR_SET_CHILD_SUBREAPER), so
a process of the nursery that is not a slot is a descendant of a dead one, and is killed.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import selectors
import signal
import socket
import sys
import time
import traceback
from collections import deque
from collections.abc import Sequence
from typing import Any, Final, NoReturn

from everfaas_core.runtime.processes import death_signal_setter
from everfaas_core.worker import slot
from everfaas_core.worker.births import (
    FORK_FDS,
    REQUEST_BYTES,
    Ask,
    Report,
    Request,
    Tell,
    Why,
    pack_report,
    take_requests,
)
from everfaas_core.worker.cells import BEGUN, Cells

READ_RECORDS_MAX: Final = 64
FDS_MAX: Final = FORK_FDS * READ_RECORDS_MAX
REPORTS_BYTES_MAX: Final = 1 << 20
"""Reports that wait for a worker which does not read. At this mark the nursery ends, and all slots with it."""

END_S_MAX: Final = 2.0
"""How long the end waits for killed processes to be gone; only one stuck in the kernel takes so long."""

START_FAILED: Final = 70  # exit status of a slot that failed before it could wait for tasks
_PR_SET_CHILD_SUBREAPER: Final = 36


class NurseryProcess:
    """Runs until the control socket ends. `cells` are those of the slots."""

    def __init__(self, control: socket.socket, cells: Cells) -> None:
        self._control = control
        self._selector = selectors.DefaultSelector()
        self._cells = cells
        self._births: dict[int, Request] = {}  # pid → what it was born of
        self._pids: dict[int, int] = {}  # birth → pid
        self._why: dict[int, Why] = {}  # pid → who killed it
        self._incoming = bytearray()
        self._fds: deque[int] = deque()
        self._outgoing = bytearray()
        self._fence_at: float | None = None
        self._ended = False
        self._prctl = ctypes.CDLL(None, use_errno=True).prctl if sys.platform.startswith("linux") else None
        self._set_death_signal = death_signal_setter()

    def run(self) -> None:
        """Serve until the worker is gone, then leave nothing behind."""
        self._adopt_orphans()
        reader, writer = os.pipe()
        for fd in (reader, writer):
            os.set_blocking(fd, False)
        signal.signal(signal.SIGCHLD, lambda *_: None)  # the wake-up below is what matters
        signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        self._control.setblocking(False)
        self._selector.register(self._control, selectors.EVENT_READ)
        self._selector.register(reader, selectors.EVENT_READ)
        gc.freeze()
        while not self._ended:
            timeout_s = None if self._fence_at is None else max(self._fence_at - time.monotonic(), 0.0)
            for key, _ in self._selector.select(timeout_s):
                if key.fd == reader:
                    self._clear(reader)
                else:
                    self._read()
            self._reap()
            self._fence()
            self._write()
        self._end()

    def _adopt_orphans(self) -> None:
        if self._prctl is not None:
            self._prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)

    @staticmethod
    def _clear(reader: int) -> None:
        with contextlib.suppress(BlockingIOError):
            while os.read(reader, 4096):
                pass

    # ── the worker asks ──────────────────────────────────────────────────────────────────────────────────────────────

    def _read(self) -> None:
        try:
            data, fds, _, _ = socket.recv_fds(self._control, REQUEST_BYTES * READ_RECORDS_MAX, FDS_MAX)
        except BlockingIOError:
            return
        except ConnectionError:
            data, fds = b"", []
        for fd in fds:
            os.set_inheritable(fd, False)
        self._fds.extend(fds)
        if not data:
            self._ended = True
            return
        self._incoming += data
        for request in take_requests(self._incoming):
            match request.ask:
                case Ask.FORK:
                    self._fork(request, [self._fds.popleft() for _ in range(FORK_FDS)])
                case Ask.KILL:
                    pid = self._pids.get(request.birth)
                    if pid is not None:
                        self._kill(pid, Why.ASKED)
                case Ask.PULSE:
                    self._fence_at = time.monotonic() + request.number / 1000 if request.number else None

    def _fork(self, request: Request, fds: Sequence[int]) -> None:
        failure = 0
        try:
            pid = os.fork()
        except OSError as error:
            pid, failure = -1, error.errno or 0
        if pid == 0:
            self._become_slot(fds, request.number)
        for fd in fds:
            os.close(fd)
        if pid < 0:
            self._tell(Report(Tell.STILLBORN, Why.ITSELF, request.birth, failure, 0))
            return
        self._births[pid] = request
        self._pids[request.birth] = pid
        self._tell(Report(Tell.BORN, Why.ITSELF, request.birth, pid, 0))

    def _become_slot(self, fds: Sequence[int], cell: int) -> NoReturn:
        fd, tokens_fd, out_fd, err_fd = fds
        status = START_FAILED
        try:
            os.setsid()  # a group of its own: killed with its children, and out of reach of the terminal's Ctrl-C
            self._set_death_signal()
            self._adopt_orphans()
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            self._selector.close()
            self._control.close()
            os.dup2(out_fd, 1)
            os.dup2(err_fd, 2)
            for other in [int(name) for name in os.listdir("/dev/fd")]:
                if other > 2 and other not in (fd, tokens_fd):
                    with contextlib.suppress(OSError):  # the descriptor of the listing itself
                        os.close(other)
            slot.serve(socket.socket(fileno=fd), tokens_fd, self._cells.cell(cell))
            status = 0
        except BaseException:  # noqa: BLE001 - the last frame of this process: nothing may return into the nursery
            traceback.print_exc()
        finally:
            os._exit(status)

    # ── slots die ────────────────────────────────────────────────────────────────────────────────────────────────────

    def _reap(self) -> None:
        reaped = False
        while True:
            try:
                info = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:
                break
            if info is None:
                break
            reaped = True
            pid = info.si_pid
            request = self._births.pop(pid, None)
            if request is not None:  # while it is a zombie, its group's number can't be anybody else's
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(pid, signal.SIGKILL)
            _, status = os.waitpid(pid, 0)
            if request is not None:
                del self._pids[request.birth]
                why = self._why.pop(pid, Why.ITSELF)
                self._tell(Report(Tell.DIED, why, request.birth, status, self._cells.cell(request.number)[BEGUN]))
        if reaped:
            self._kill_strays()

    def _kill(self, pid: int, why: Why) -> None:
        """Kill a slot and its group. Its death is told when it is seen."""
        self._why.setdefault(pid, why)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)
        with contextlib.suppress(ProcessLookupError, PermissionError):  # it may not have a group yet
            os.killpg(pid, signal.SIGKILL)

    def _kill_strays(self) -> None:
        """Kill what dead slots left behind. The children of those come to us next, and their deaths wake us."""
        try:
            with open("/proc/thread-self/children") as file:
                children = [int(word) for word in file.read().split()]
        except OSError:  # not Linux, or without CONFIG_PROC_CHILDREN: process groups have to do
            return
        for pid in children:
            if pid not in self._births:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, signal.SIGKILL)

    def _fence(self) -> None:
        if self._fence_at is not None and time.monotonic() >= self._fence_at:
            self._fence_at = None
            for pid in list(self._births):
                self._kill(pid, Why.FENCED)

    # ── the worker is told ───────────────────────────────────────────────────────────────────────────────────────────

    def _tell(self, report: Report) -> None:
        self._outgoing += pack_report(report)

    def _write(self) -> None:
        if not self._outgoing:
            return
        try:
            sent = self._control.send(self._outgoing)
        except BlockingIOError:
            sent = 0
        except (BrokenPipeError, ConnectionError):
            self._ended = True
            return
        del self._outgoing[:sent]
        self._ended = self._ended or len(self._outgoing) > REPORTS_BYTES_MAX
        interest = selectors.EVENT_READ | (selectors.EVENT_WRITE if self._outgoing else 0)
        self._selector.modify(self._control, interest)

    def _end(self) -> None:
        """Kill and reap everything below us."""
        signal.set_wakeup_fd(-1)
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
        for pid in list(self._births):
            self._kill(pid, Why.ASKED)
        deadline = time.monotonic() + END_S_MAX
        while (left_s := deadline - time.monotonic()) > 0:
            self._reap()
            self._kill_strays()
            try:
                if os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
                    signal.sigtimedwait({signal.SIGCHLD}, left_s)
            except ChildProcessError:
                return  # nobody is left


def main(settings: dict[str, Any]) -> NoReturn:
    """Run a nursery. `settings`: `root` (where everfaas_core lies), `control` and `cells` (descriptors), `path`."""
    control = socket.socket(fileno=settings["control"])
    control.set_inheritable(False)
    sys.argv = [""]
    root = settings["root"]
    sys.path.remove(root)  # it was first only so that we are this very version of everfaas
    sys.path[:0] = settings["path"]
    if root not in sys.path:
        sys.path.append(root)
    cells = Cells(settings["cells"])
    os.close(settings["cells"])
    NurseryProcess(control, cells).run()
    os._exit(0)
