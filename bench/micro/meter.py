"""What one operation costs: wall clock, and the CPU of each process that has a part in it."""

from __future__ import annotations

import contextlib
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

Clock = Callable[[], float]
"""Returns the CPU seconds that somebody has used so far."""


@dataclass(frozen=True)
class Cost:
    """Of one operation, in µs: medians over the repetitions, and the least and the most of the wall clock."""

    what: str
    wall_us: float
    least_us: float
    most_us: float
    cpu_us: dict[str, float]

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


class Meter:
    """Takes the time of phases, each some operations long; a phase of the same name is a repetition."""

    def __init__(self, **others: Clock) -> None:
        """Count this process's CPU as `own`, and that of `others`, by name."""
        self._clocks: Mapping[str, Clock] = {"own": time.process_time, **others}
        self._samples: dict[str, list[tuple[float, dict[str, float]]]] = {}

    @contextlib.contextmanager
    def phase(self, what: str, operations: int) -> Iterator[None]:
        """Measure what is done inside as so many operations."""
        before = {name: clock() for name, clock in self._clocks.items()}
        began = time.perf_counter()
        yield
        wall_s = time.perf_counter() - began
        self.add(what, operations, wall_s, {name: clock() - before[name] for name, clock in self._clocks.items()})

    def add(self, what: str, operations: int, wall_s: float, cpu_s: Mapping[str, float]) -> None:
        """Add a repetition that was timed elsewhere."""
        cpu_us = {name: used_s / operations * 1e6 for name, used_s in cpu_s.items()}
        self._samples.setdefault(what, []).append((wall_s / operations * 1e6, cpu_us))

    def costs(self) -> list[Cost]:
        """Return the medians, in the order in which the phases were first seen."""
        costs = []
        for what, samples in self._samples.items():
            walls = [wall_us for wall_us, _ in samples]
            cpu_us = {name: statistics.median(cpu[name] for _, cpu in samples) for name in self._clocks}
            costs.append(Cost(what, statistics.median(walls), min(walls), max(walls), cpu_us))
        return costs


def table(title: str, costs: list[Cost]) -> str:
    """Return the costs as a Markdown table."""
    names = list(costs[0].cpu_us)
    head = ["µs", "wall", "least – most", *(f"CPU: {name}" for name in names)]
    lines = [f"## {title}", "", "| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for cost in costs:
        cells = [shown(cost.wall_us), f"{shown(cost.least_us)} – {shown(cost.most_us)}"]
        cells += [shown(cost.cpu_us[name]) for name in names]
        lines.append(f"| {cost.what} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def shown(value: float) -> str:
    """Return a figure with three digits or more, never with an exponent."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"
