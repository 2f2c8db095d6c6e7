"""The figures as SVG. Needs matplotlib, which is in the extra `bench`."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

COLOURS = {"local": "#0b6e4f", "pull": "#1f5fa8", "push": "#b3541e"}
HEADROOM = 1.15
SIZE_IN = (9.0, 3.8)
BACKLOG, WORKERS = "backlog.svg", "workers.svg"

Row = dict[str, Any]


def backlog(rows: Sequence[Row], path: Path) -> None:
    """Draw rate and memory against the backlog. Raises ImportError without matplotlib."""
    figure, (rate, memory) = _figure(2)
    for mode in _modes(rows):
        sizes, rates = _medians(rows, mode, "backlog", "drained_per_s")
        rate.plot(sizes, rates, marker="o", color=COLOURS[mode], label=mode)
        sizes, peaks = _medians(rows, mode, "backlog", "dispatcher_peak_mb")
        memory.plot(sizes, peaks, marker="o", color=COLOURS[mode], label=mode)
    for axes, title, label in (
        (rate, "Draining a backlog", "no-op tasks/s"),
        (memory, "The dispatcher's memory", "peak resident set, MB"),
    ):
        _dress(axes, title, "tasks queued before a worker runs", label)
        axes.set_xscale("log")
        axes.set_ylim(0, axes.get_ylim()[1] * HEADROOM)
    _save(figure, path)


def workers(rows: Sequence[Row], path: Path) -> None:
    """Draw the rate of sleeping tasks against the slots. Raises ImportError without matplotlib."""
    figure, (axes,) = _figure(1)
    slots, ideal = _medians(rows, _modes(rows)[0], "slots", "ideal_per_s")
    axes.plot(slots, ideal, linestyle="--", color="#777777", label="ideal")
    for mode in _modes(rows):
        slots, rates = _medians(rows, mode, "slots", "per_s")
        axes.plot(slots, rates, marker="o", color=COLOURS[mode], label=mode)
    _dress(axes, "Tasks that sleep for 0.1 s", "slots", "tasks/s")
    axes.set_xticks(slots)
    axes.set_ylim(bottom=0)
    axes.legend(frameon=False)
    _save(figure, path)


def _modes(rows: Sequence[Row]) -> list[str]:
    return list(dict.fromkeys(row["mode"] for row in rows))


def _medians(rows: Sequence[Row], mode: str, at: str, what: str) -> tuple[list[float], list[float]]:
    """Return the points of a line, from left to right."""
    groups: dict[float, list[float]] = {}
    for row in rows:
        if row["mode"] == mode:
            groups.setdefault(row[at], []).append(row[what])
    places = sorted(groups)
    return places, [statistics.median(groups[place]) for place in places]


def _figure(panels: int) -> tuple[Any, Sequence[Any]]:
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams.update({"svg.hashsalt": "everfaas", "svg.fonttype": "none", "font.size": 10})
    from matplotlib import pyplot

    width_in, height_in = SIZE_IN
    figure, axes = pyplot.subplots(1, panels, figsize=(width_in if panels > 1 else width_in * 0.6, height_in))
    return figure, axes if panels > 1 else [axes]


def _dress(axes: Any, title: str, below: str, beside: str) -> None:
    axes.set_title(title, loc="left")
    axes.set_xlabel(below)
    axes.set_ylabel(beside)
    axes.grid(visible=True, color="#dddddd", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)


def _save(figure: Any, path: Path) -> None:
    from matplotlib import pyplot

    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})  # so that the same figures give the same file
    pyplot.close(figure)
