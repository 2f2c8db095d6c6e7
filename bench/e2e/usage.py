"""What the processes of a system use: CPU and memory, this one's included where the client counts."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path

from bench.peers.processes import cpu_times, descendants, pss_mb


def cpu_s(pids: list[int]) -> float:
    """Return the CPU seconds used so far by these processes, and by the children that they have waited for."""
    return sum(one.own_s + one.waited_s for one in cpu_times(pids).values())


def all_cpu_s() -> float:
    """Return the CPU seconds used so far by this process and everything below it."""
    return time.process_time() + cpu_s(descendants(os.getpid()))


def idle_percent(wait_s: float) -> float:
    """Do nothing for so long; return what the processes below this one use meanwhile, in % of one core."""
    pids = descendants(os.getpid())
    began, before = time.perf_counter(), cpu_s(pids)
    time.sleep(wait_s)
    return 100 * (cpu_s(pids) - before) / (time.perf_counter() - began)


def memory_mb() -> float:
    """Return the proportional set size of the processes below this one, in MB (10⁶ bytes)."""
    return sum(pss_mb(pid) for pid in descendants(os.getpid()))


def pids_of(role: str) -> list[int]:
    """Return the processes below this one that have a role: "api", "dispatcher", "worker", or "store"."""
    found = []
    for pid in descendants(os.getpid()):
        with contextlib.suppress(OSError):  # it has just ended
            words = Path(f"/proc/{pid}/cmdline").read_text().split("\0")
            if role in words or (role == "store" and "valkey" in words[0]):
                found.append(pid)
    return found
