"""How much work is done for each figure, and the work itself: for the pool, and `spin` for ours too, by reference."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass

SLOTS = 4


@dataclass(frozen=True)
class Sizes:
    """What the goals are stated for; smaller ones are for trying the benchmark out."""

    tasks: int = 10_000
    calls: int = 300
    naps: int = 20
    nap_s: float = 0.5
    spins: int = 1_000
    spin_s: float = 0.005
    echoes: int = 200
    echo_bytes: int = 1024 * 1024
    idle_s: float = 30.0

    @property
    def spins_ideal_s(self) -> float:
        """How long the CPU work takes at best, on as many cores as there are and can be used."""
        return self.spins * self.spin_s / min(SLOTS, os.cpu_count() or 1)

    @property
    def echoed_mib(self) -> float:
        return self.echoes * self.echo_bytes / 2**20


def noop() -> None:
    return None


def noop_of(_: object) -> None:
    return None


def spin(cpu_s: float) -> None:
    """Use so much CPU time of this process, however long it takes."""
    until = time.process_time() + cpu_s
    while time.process_time() < until:
        pass


def echo(blob: bytes) -> bytes:
    return blob


def nap(wait_s: float) -> None:
    time.sleep(wait_s)
