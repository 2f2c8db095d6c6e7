"""What a tree of processes has used: CPU time and memory, read from /proc (Linux only), and how it is ended.

The benchmark makes itself the reaper of whatever its children leave behind (`adopt_orphans`), so that a daemon which
detached itself is still in the tree: it is counted, and it is killed at the end.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
KILL_WITHIN_S = 10.0
LOOK_AGAIN_S = 0.02

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_libc = ctypes.CDLL(None, use_errno=True)


def adopt_orphans() -> None:
    """Become the parent of every descendant whose own parent ends."""
    _libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def die_with_parent() -> None:
    """Between fork and exec: have the kernel kill this process when its parent ends."""
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def descendants(root: int) -> list[int]:
    """Return the ids of all processes below `root`, zombies too; `root` itself is not among them."""
    children: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            fields = _stat(int(name))
            if fields:
                children.setdefault(int(fields[1]), []).append(int(name))
    found: list[int] = []
    ahead = [root]
    while ahead:
        below = children.get(ahead.pop(), [])
        found += below
        ahead += below
    return found


@dataclass(frozen=True)
class CpuTime:
    """Of one process, in seconds: its own, and that of the children it has waited for."""

    own_s: float
    waited_s: float


def cpu_times(pids: list[int]) -> dict[int, CpuTime]:
    return {pid: _cpu_time(pid) for pid in pids}


def cpu_used_s(before: dict[int, CpuTime], after: dict[int, CpuTime]) -> float:
    """Return the CPU time that a tree of processes has used between two looks at it, in seconds.

    A process that ended in between is found in its parent's waited time. Where the parent lets the kernel collect it
    (Ray does), it is found nowhere: then what is left is the time of those that live, and that is the least it was.
    """
    total = sum(one.own_s + one.waited_s for one in after.values())
    total -= sum(one.own_s + one.waited_s for one in before.values())
    living = sum(one.own_s - before.get(pid, CpuTime(0.0, 0.0)).own_s for pid, one in after.items())
    return max(total, living)


def machine_cpu_s() -> float:
    """Return the CPU time that the whole machine has used since it was started, time stolen by others included."""
    user, nice, system, _idle, _iowait, irq, softirq, steal = (
        int(field) for field in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]
    )
    return (user + nice + system + irq + softirq + steal) / _TICKS_PER_S


def pss_mb(pid: int) -> float:
    """Return a process's proportional set size in MB (10⁶ bytes): what it shares is divided by its sharers."""
    with contextlib.suppress(OSError, ProcessLookupError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024 / 1e6
    return 0.0  # a zombie has none, and one that has ended has none either


def kill_all(root: int) -> None:
    """End every process below `root` and collect what is left of it. Raises RuntimeError if one survives."""
    until = time.monotonic() + KILL_WITHIN_S
    while left := descendants(root):
        if time.monotonic() > until:
            raise RuntimeError(f"these processes would not end: {left}")
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for pid in left:
            with contextlib.suppress(ChildProcessError):  # a grandchild: its own parent, or a later turn, collects it
                os.waitpid(pid, os.WNOHANG)
        time.sleep(LOOK_AGAIN_S)


def _cpu_time(pid: int) -> CpuTime:
    fields = _stat(pid)
    if not fields:
        return CpuTime(0.0, 0.0)
    utime, stime, waited_utime, waited_stime = (int(field) for field in fields[11:15])
    own_s = (utime + stime) / _TICKS_PER_S
    with contextlib.suppress(OSError, OverflowError):
        # The process's own CPU clock has nanoseconds where /proc has hundredths of a second: a system at rest uses
        # less than that. A zombie has only the latter.
        own_s = max(own_s, time.clock_gettime((~pid << 3) | 2))
    return CpuTime(own_s, (waited_utime + waited_stime) / _TICKS_PER_S)


def _stat(pid: int) -> list[str]:
    """Return the fields of /proc/PID/stat from the state on, or nothing when the process has ended."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (OSError, ProcessLookupError):
        return []
    return text.rpartition(")")[2].split()
