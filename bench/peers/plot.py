"""The plot: one panel a figure, one bar a row, ours in a colour of its own."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.peers import figures
from bench.peers.catalog import OURS, System
from bench.peers.figures import BY_KEY
from bench.peers.rounds import Record

PANELS = ("noop_per_s", "noop_cpu_us", "p50_ms", "echo_mib_per_s", "idle_mb", "first_s")
OUR_COLOUR = "#0b6e4f"
PEER_COLOUR = "#9aa5b1"
HEIGHT_OF_BAR_IN = 0.24
WIDTH_IN = 14.0


@dataclass(frozen=True)
class Bar:
    label: str
    value: figures.Spread
    ours: bool


def bars(records: list[Record], key: str) -> list[Bar]:
    """Return a panel's bars, the best first. Rows without that figure have none."""
    figure = BY_KEY[key]
    found = [
        Bar(str(System(*row)), value, row[0] in OURS)
        for row, kept in figures.rows(records).items()
        if (value := figures.spread(kept, figure)) is not None
    ]
    return sorted(found, key=lambda bar: bar.value.median, reverse=figure.more_is_better)


def draw(records: list[Record], path: Path) -> None:
    """Write the plot as SVG. Raises ImportError without matplotlib (`pip install 'everfaas[bench]'`)."""
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams["svg.fonttype"] = "none"  # letters stay letters: a tenth of the size
    mpl.rcParams["svg.hashsalt"] = "everfaas"  # the same figures make the same file
    from matplotlib import pyplot

    panels = [(key, found) for key in PANELS if (found := bars(records, key))]
    if not panels:
        return
    tallest = max(len(found) for _, found in panels)
    lines = (len(panels) + 1) // 2
    size = (WIDTH_IN, lines * (tallest * HEIGHT_OF_BAR_IN + 1))
    canvas, axes = pyplot.subplots(lines, 2, figsize=size, squeeze=False, layout="constrained")
    for axis in axes.flat[len(panels) :]:
        axis.set_visible(False)
    for axis, (key, found) in zip(axes.flat, panels, strict=False):
        _panel(axis, key, found)
    canvas.savefig(path, format="svg", metadata={"Date": None})
    pyplot.close(canvas)


def _panel(axis: Any, key: str, found: list[Bar]) -> None:
    medians = [bar.value.median for bar in found]
    spreads = [
        [bar.value.median - bar.value.least for bar in found],
        [bar.value.most - bar.value.median for bar in found],
    ]
    colours = [OUR_COLOUR if bar.ours else PEER_COLOUR for bar in found]
    places = range(len(found))
    axis.barh(places, medians, xerr=spreads, color=colours, ecolor="#444", error_kw={"elinewidth": 0.8})
    axis.set_yticks(places, [bar.label for bar in found], fontsize=8)
    axis.invert_yaxis()
    axis.set_xscale("log")
    axis.tick_params(axis="x", which="minor", labelbottom=False)
    better = "more" if BY_KEY[key].more_is_better else "less"
    axis.set_title(f"{BY_KEY[key].label} ({better} is better)", fontsize=10)
    for place, bar in zip(places, found, strict=True):
        axis.annotate(
            figures.short(bar.value.median),
            (bar.value.most, place),
            xytext=(4, 0),
            textcoords="offset points",
            va="center",
            fontsize=7,
        )
    axis.margins(x=0.12)
    axis.spines[["top", "right"]].set_visible(False)
