"""A child process that begins as a copy of this one, so that both share the memory of what has been imported.

It is otherwise as if it had been started anew: a process group of its own, no descriptors but the standard ones and
those that it is given, default signal handlers, an environment and a command line of its own, and a death signal.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Final, NoReturn

from everfaas_core.runtime.processes import death_signal_setter, trim_memory

EXIT_CRASHED: Final = 1  # as of an interpreter that ends with a traceback
_STDIN: Final = 0
_STANDARD_MAX: Final = 2
_ARG_START: Final = 45  # places in /proc/self/stat behind the name, where the kernel keeps the command line's addresses
_ARG_END: Final = 46


def can_fork() -> bool:
    """Tell whether a copy of this process would be a sound one: on Linux, while it has no other thread of Python's."""
    return sys.platform.startswith("linux") and threading.active_count() == 1


def native_threads() -> int:
    """Return how many threads this process has, with those that libraries have started; 0 where that is unknown."""
    try:
        return len(os.listdir("/proc/self/task"))
    except OSError:
        return 0


class Forked:
    """A child that was forked, as `subprocess.Popen` has it."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """Return the exit status if it has ended (negative: the signal), else None."""
        return self._wait(os.WNOHANG)

    def wait(self) -> int:
        """Wait for its end; return the exit status."""
        status = self._wait(0)
        assert status is not None
        return status

    def send_signal(self, signum: int) -> None:
        """Send a signal, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, signum)

    def _wait(self, options: int) -> int | None:
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, options)
            if pid:
                self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode


def fork(
    main: Callable[[], int], *, words: Sequence[str], environ: Mapping[str, str], fds: Collection[int] = ()
) -> Forked:
    """Start a child that runs `main` and exits with what that returns. Only while `can_fork`, from the main thread.

    `words` are shown as its command line. Handlers of `atexit` are not run in it.
    """
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    trim_memory()
    gc.freeze()  # collections in the child would write to each object, and so unshare its page
    set_death_signal = death_signal_setter(signal.SIGKILL)
    # No handler of ours may run in the child; a signal that comes meanwhile ends it, as it ends a new interpreter.
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        pid = os.fork()
        if pid == 0:
            _become(main, words, environ, fds, mask, set_death_signal)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    with contextlib.suppress(OSError):  # it does so, too: whoever is first
        os.setpgid(pid, pid)
    return Forked(pid)


def _become(
    main: Callable[[], int],
    words: Sequence[str],
    environ: Mapping[str, str],
    fds: Collection[int],
    mask: Collection[int],
    set_death_signal: Callable[[], None],
) -> NoReturn:
    status = EXIT_CRASHED
    try:
        set_death_signal()
        os.setpgid(0, 0)
        _close_all_but(fds)
        _reset_signals()
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        os.environ.clear()
        os.environ.update(environ)
        sys.argv = list(words)
        show_words(words)
        status = main()
    except SystemExit as error:
        status = error.code if isinstance(error.code, int) else EXIT_CRASHED
    except BaseException:  # noqa: BLE001 - the last frame of this process: nothing may return into the parent's code
        traceback.print_exc()
    finally:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(Exception):
                stream.flush()
        os._exit(status)


def _close_all_but(fds: Collection[int]) -> None:
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, _STDIN)
    for fd in [int(name) for name in os.listdir("/dev/fd")]:
        if fd > _STANDARD_MAX and fd not in fds:
            with contextlib.suppress(OSError):  # the descriptor of the listing itself
                os.close(fd)


def _reset_signals() -> None:
    signal.set_wakeup_fd(-1)
    for signum in signal.valid_signals():
        if callable(signal.getsignal(signum)):
            signal.signal(signum, signal.default_int_handler if signum == signal.SIGINT else signal.SIG_DFL)


def show_words(words: Sequence[str]) -> None:
    """Have `ps` show these words as our command line, as many as fit where the present one lies in memory."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
        start, end = int(fields[_ARG_START]), int(fields[_ARG_END])
        room = end - start - 1  # a last byte that is not 0 would mean that it goes on behind the end
        shown = b"\0".join(word.encode() for word in words)[: max(room, 0)]
        if 0 < start < end:
            ctypes.memmove(start, shown.ljust(end - start, b"\0"), end - start)
