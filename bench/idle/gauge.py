"""CPU time, wake-ups and memory of processes, read from /proc (Linux only)."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import psutil

from bench.soak.gauge import role_of


@dataclass(frozen=True)
class Spent:
    """What one process has used so far."""

    cpu_s: float
    wakeups: int


@dataclass(frozen=True)
class Row:
    """One process over a stretch of time. `cpu_percent` is of one core; the memory is proportional and unshared."""

    name: str
    pid: int
    cpu_percent: float
    wakeups_per_s: float
    pss_bytes: int
    uss_bytes: int
    threads: int


def spent(pid: int) -> Spent:
    """Add up the threads that live. What threads have used that have ended is lost, so it is for quiet processes."""
    cpu_ns, wakeups = 0, 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        cpu_ns += int((task / "schedstat").read_text().split()[0])
        for line in (task / "status").read_text().splitlines():
            if line.startswith("voluntary_ctxt_switches"):
                wakeups += int(line.split()[1])
    return Spent(cpu_ns / 1e9, wakeups)


def descendants(pid: int | None = None) -> list[psutil.Process]:
    """Return all processes below this one, or below another one."""
    return psutil.Process(pid).children(recursive=True)


def watch(processes: list[psutil.Process], seconds: float) -> list[Row]:
    """Look twice, `seconds` apart; processes that end in between are left out."""
    began, before = time.monotonic(), {process.pid: spent(process.pid) for process in processes}
    time.sleep(seconds)
    rows = []
    for process in processes:
        try:
            after = spent(process.pid)
            passed_s = time.monotonic() - began
            memory = process.memory_full_info()
            rows.append(
                Row(
                    name=role_of(process),
                    pid=process.pid,
                    cpu_percent=100 * (after.cpu_s - before[process.pid].cpu_s) / passed_s,
                    wakeups_per_s=(after.wakeups - before[process.pid].wakeups) / passed_s,
                    pss_bytes=memory.pss,
                    uss_bytes=memory.uss,
                    threads=process.num_threads(),
                )
            )
        except (psutil.NoSuchProcess, FileNotFoundError):
            continue
    return rows
