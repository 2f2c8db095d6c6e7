"""Child processes that never outlive their parent."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Callable
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
