"""From rounds to a table: medians, spread, and which goals are met."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence

from bench.e2e.goals import GOALS, RATIO, Goal

POOL = "pool"
COMMAND = "startup"  # figures of the command line, which have no mode
Rounds = Mapping[str, Sequence[Mapping[str, float]]]


def with_ratios(rounds: Rounds, modes: Sequence[str]) -> dict[str, list[dict[str, float]]]:
    """Return the rounds with each mode's throughput compared with the pool's of the same round."""
    found = {name: [dict(figures) for figures in each] for name, each in rounds.items()}
    for mode in modes:
        for ours, pool in zip(found[mode], found[POOL], strict=True):
            ours[RATIO] = ours["batch_per_s"] / pool["batch_per_s"]
    return found


def table(rounds: Rounds, modes: Sequence[str]) -> str:
    """Return the table of goals in Markdown. `met` says for which modes a goal is not."""
    lines = [
        "| what | goal | " + " | ".join(modes) + " | met | ProcessPoolExecutor |",
        "|---|---|" + "---|" * len(modes) + "---|---|",
    ]
    for goal in GOALS:
        columns = [COMMAND] if goal.key in rounds[COMMAND][0] else list(modes)
        cells = [cell(goal, rounds[name]) for name in columns]
        cells += [""] * (len(modes) - len(cells))
        lines.append(f"| {goal.what} | {goal.text} | " + " | ".join([*cells, met(goal, rounds, columns)]))
        lines[-1] += f" | {cell(goal, rounds[POOL])} |"
    return "\n".join(lines)


def cell(goal: Goal, rounds: Sequence[Mapping[str, float]]) -> str:
    """Return the median, with the least and the most of several rounds; "" for what was not measured."""
    values = [figures[goal.key] for figures in rounds if goal.key in figures]
    if not values:
        return ""
    shown = [f"{value:,.{goal.digits}f}" for value in (statistics.median(values), min(values), max(values))]
    return shown[0] if len(values) == 1 else f"{shown[0]} ({shown[1]} – {shown[2]})"


def met(goal: Goal, rounds: Rounds, columns: Sequence[str]) -> str:
    """Return "yes", or for which columns it is not met by the median."""
    if goal.least is None and goal.most is None:
        return ""
    missed = [name for name in columns if not goal.is_met(statistics.median(one[goal.key] for one in rounds[name]))]
    if not missed:
        return "yes"
    return "no" if missed == list(columns) else f"no: {', '.join(missed)}"
