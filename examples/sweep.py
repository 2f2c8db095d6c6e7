"""A parameter sweep: an epidemic for each combination of two parameters, drawn as a map. Writes sweep.png here.

    pip install matplotlib
    python examples/sweep.py [URL]

The address is the first argument, or EVERFAAS_URL, or http://127.0.0.1:8000. The function simulates a year day by day;
the picture shows the largest share of people who are ill at once, by infections a day and days of illness.
"""

from __future__ import annotations

import sys
from itertools import product

from matplotlib.figure import Figure  # not pyplot: a file needs no screen
from matplotlib.ticker import PercentFormatter

from everfaas_core import ApiUnreachable, Client

INFECTIONS_A_DAY = [n / 50 for n in range(2, 42)]
DAYS_ILL = range(21)  # zero days make no sense: the function says so, and the sweep goes on
PICTURE = "sweep.png"


def peak(infections_a_day: float, days_ill: int) -> float:
    """Return the largest share of the people that is ill at once, within a year."""
    if days_ill <= 0:
        raise ValueError("an illness lasts at least a day")
    healthy, ill, most = 0.999, 0.001, 0.0
    for _ in range(365):
        new = min(infections_a_day * healthy * ill, healthy)
        healthy, ill = healthy - new, ill + new - ill / days_ill
        most = max(most, ill)
    return most


def draw(shares: dict[tuple[float, int], float]) -> None:
    """Write the picture. Combinations that have no share stay grey."""
    rows = [[shares.get((rate, days), float("nan")) for rate in INFECTIONS_A_DAY] for days in DAYS_ILL]
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    axes.set_facecolor("0.8")
    field = axes.pcolormesh(INFECTIONS_A_DAY, list(DAYS_ILL), rows, cmap="viridis", vmin=0, vmax=1)
    lines = axes.contour(INFECTIONS_A_DAY, list(DAYS_ILL), rows, levels=[0.1, 0.3, 0.5, 0.7], colors="white")
    axes.clabel(lines, fmt=lambda level: f"{level:.0%}")
    figure.colorbar(field, format=PercentFormatter(1), label="ill at once, at most")
    axes.set(title="How many are ill on the worst day", xlabel="infections a day, by each who is ill")
    axes.set(ylabel="days of illness", yticks=range(0, 21, 5))
    figure.savefig(PICTURE, dpi=120)


def main() -> None:
    combinations = list(product(INFECTIONS_A_DAY, DAYS_ILL))
    with Client(sys.argv[1] if len(sys.argv) > 1 else None) as client:
        # A call takes a tenth of a millisecond, so twenty make one task. What raises comes back in its place.
        results = list(client.map(peak, *zip(*combinations, strict=True), chunksize=20, return_exceptions=True))

    shares = {at: one for at, one in zip(combinations, results, strict=True) if not isinstance(one, Exception)}
    draw(shares)
    failed = len(combinations) - len(shares)
    print(f"{len(combinations)} combinations, {failed} failed: {next(e for e in results if isinstance(e, Exception))}")
    (rate, days), share = max(shares.items(), key=lambda item: item[1])
    print(f"worst: {share:.1%} ill at once, at {rate:g} infections a day and {days} days, see {PICTURE}")


if __name__ == "__main__":
    try:
        main()
    except ApiUnreachable as error:  # it says how to start one
        sys.exit(str(error))
