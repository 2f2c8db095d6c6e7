"""Child processes that never outlive their parent."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import resource
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

_PR_SET_PDEATHSIG: Final = 1


def death_signal_setter(signum: int = signal.SIGKILL, *, parent: int | None = None) -> Callable[[], None]:
    """Return a function for `preexec_fn`, or for a child's first lines: `signum` is sent when its parent dies.

    libc is looked up here, before the fork, because it must not be in the child. On platforms without
    PR_SET_PDEATHSIG (macOS) the function does nothing; there, supervisors end their children by themselves. A child
    that makes the function itself passes the process id that its parent told it as `parent`.
    """
    if not sys.platform.startswith("linux"):
        return lambda: None
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    expected = os.getpid() if parent is None else parent

    def set_death_signal() -> None:
        prctl(_PR_SET_PDEATHSIG, int(signum), 0, 0, 0)
        if os.getppid() != expected:  # it died between fork and prctl
            os.kill(os.getpid(), signum)

    return set_death_signal


def trim_memory() -> None:
    """Collect garbage, and give freed memory back to the system where the C library can (it keeps most of it)."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def allow_files(wanted: int) -> int:
    """Raise this process's limit on open files to `wanted`, or as far as it may; return what the limit is now."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return wanted
    allowed = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    with contextlib.suppress(OSError, ValueError):  # macOS refuses more than its own bound, whatever `hard` says
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
    return min(wanted, resource.getrlimit(resource.RLIMIT_NOFILE)[0])


def this_machine() -> str:
    """Return what tells whether two processes can see each other's process ids: the kernel's boot and the namespace.

    "" where that can't be known; then nothing is concluded from process ids.
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        namespace = Path("/proc/self/ns/pid").stat().st_ino
    except OSError:
        return ""
    return f"{boot}/{namespace}"


def is_alive(pid: int) -> bool:
    """Tell whether a process of this machine has not ended. A zombie has; one of another user is alive."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:  # it has ended just now; or there is no /proc here, and the signal has told all there is to know
        return not Path("/proc/self/stat").exists()
    return state not in ("Z", "X")
