"""From records to figures: rates, percentiles, medians with their spread, ratios taken within a round. Pure."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from bench.peers.rounds import ECHO_BYTES, SPIN_S, Record

MIB = 1024**2


@dataclass(frozen=True)
class Figure:
    """One column: how it is made of a record of its work, and whether more is better."""

    key: str
    label: str
    work: str
    of: Callable[[Record], float]
    more_is_better: bool = False


def _ideal_s(record: Record, seconds: float, at_once: int) -> float:
    return float(math.ceil(record["count"] / at_once) * seconds)


FIGURES = (
    Figure("noop_per_s", "no-ops, tasks/s", "noop", lambda record: record["count"] / record["seconds"], True),
    Figure("noop_cpu_us", "CPU per no-op, µs", "noop", lambda record: record["cpu_s"] / record["count"] * 1e6),
    Figure("p50_ms", "one call, p50, ms", "roundtrip", lambda record: percentile(record["latencies_s"], 50) * 1e3),
    Figure("p99_ms", "p99, ms", "roundtrip", lambda record: percentile(record["latencies_s"], 99) * 1e3),
    Figure("sleeps_s", "20 × sleep(0.5), s", "sleeps", lambda record: record["seconds"]),
    Figure(
        "cpu_percent",
        "5 ms of CPU, % of ideal",
        "cpu",
        lambda record: 100 * _ideal_s(record, SPIN_S, record["cores"]) / record["seconds"],
        True,
    ),
    Figure(
        "echo_mib_per_s",
        "1 MiB echo, MiB/s",
        "echo",
        lambda record: record["count"] * ECHO_BYTES / MIB / record["seconds"],
        True,
    ),
    Figure("idle_mb", "idle, MB", "idle", lambda record: record["memory_mb"]),
    Figure("idle_percent", "idle, % of a core", "idle", lambda record: record["cpu_percent"]),
    Figure("first_s", "first result, s", "first", lambda record: record["seconds"]),
)
BY_KEY = {figure.key: figure for figure in FIGURES}


@dataclass(frozen=True)
class Spread:
    """The median of some rounds, with the least and the most."""

    median: float
    least: float
    most: float
    rounds: int

    def __str__(self) -> str:
        if self.rounds == 1:
            return short(self.median)
        return f"{short(self.median)} ({short(self.least)} – {short(self.most)})"


def percentile(values: Iterable[float], percent: float) -> float:
    """Return the smallest value that at least so many percent are not above (nearest rank)."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]


def short(value: float) -> str:
    """Write a figure with three digits that mean something: 11,900; 2.52; 0.04."""
    if value == 0:
        return "0"
    rounded = float(f"{value:.2e}")
    digits = min(3, max(0, 2 - math.floor(math.log10(abs(rounded)))))
    return f"{rounded:,.{digits}f}"


def rows(records: Iterable[Record]) -> dict[tuple[str, str], list[Record]]:
    """Return the records of each (system, setting), in the order of their first ones."""
    found: dict[tuple[str, str], list[Record]] = {}
    for record in records:
        found.setdefault((record["system"], record["setting"]), []).append(record)
    return found


def by_round(records: Iterable[Record], figure: Figure) -> dict[int, float]:
    """Return a row's figure for each round in which it was measured."""
    return {
        record["round"]: figure.of(record)
        for record in records
        if record["work"] == figure.work and "error" not in record
    }


def spread(records: Iterable[Record], figure: Figure) -> Spread | None:
    """Return a row's figure over its rounds, or None when there is none."""
    values = list(by_round(records, figure).values())
    if not values:
        return None
    return Spread(statistics.median(values), min(values), max(values), len(values))


def ratio(ours: Iterable[Record], peer: Iterable[Record], figure: Figure) -> Spread | None:
    """Return ours divided by the peer's, round by round: what both met at nearly the same time."""
    above, below = by_round(ours, figure), by_round(peer, figure)
    values = [above[number] / below[number] for number in above.keys() & below.keys() if below[number]]
    if not values:
        return None
    return Spread(statistics.median(values), min(values), max(values), len(values))


def errors(records: Iterable[Record]) -> dict[str, list[str]]:
    """Return what failed: for each reason what it cost, each with its rounds: "noop (1, 2)"."""
    found: dict[str, dict[str, list[int]]] = {}
    for record in records:
        if "error" in record:
            found.setdefault(record["error"], {}).setdefault(record["work"], []).append(record["round"])
    return {
        reason: [f"{work} ({', '.join(map(str, numbers))})" for work, numbers in works.items()]
        for reason, works in found.items()
    }
