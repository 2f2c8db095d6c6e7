"""The Markdown that is made of the records: the figures, ours in proportion, what was compared, what failed."""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from typing import Any

from bench.peers import figures
from bench.peers.catalog import OURS, System, load
from bench.peers.figures import BY_KEY, FIGURES
from bench.peers.rounds import Record

NO_FIGURE = "–"
QUIET_CORES = 0.1  # what others may use in a run that is to be believed
FAILED = "failed"
RATIOS = ("noop_per_s", "noop_cpu_us", "p50_ms", "echo_mib_per_s")
ROW = "| {} |"


def markdown(meta: dict[str, Any], records: list[Record]) -> str:
    """Return the whole report."""
    found = figures.rows(records)
    parts = [
        _head(meta, records),
        _figures(found),
        _ratios(found),
        _compared(found, meta["versions"]),
        _failures(found),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def cell(records: Iterable[Record], key: str) -> str:
    """Return one cell: the median with its spread, "failed", or a dash for what was not asked for."""
    kept = list(records)
    figure = BY_KEY[key]
    value = figures.spread(kept, figure)
    if value is not None:
        return str(value)
    return FAILED if any(record["work"] == figure.work and "error" in record for record in kept) else NO_FIGURE


def fastest_queue(found: dict[tuple[str, str], list[Record]]) -> tuple[str, str] | None:
    """Return the row of the durable queue (one with a broker) that has the highest rate of no-ops."""
    rates = {
        row: figures.spread(records, BY_KEY["noop_per_s"]) for row, records in found.items() if load(row[0]).broker
    }
    known = {row: value.median for row, value in rates.items() if value is not None}
    return max(known, key=known.__getitem__) if known else None


def _head(meta: dict[str, Any], records: list[Record]) -> str:
    return (
        f"Medians of {meta['rounds']} rounds (least – most), {meta['workers']} worker processes that run one task "
        f"at a time, {meta['cores']} cores ({meta['processor']}), Python {meta['python']}, {meta['date']}."
        + (f" Reduced to {meta['scale']:g} of the size: only to see that it works." if meta["scale"] != 1 else "")
        + _others(records)
    )


def _others(records: list[Record]) -> str:
    """Say how quiet the machine was."""
    busy = [record["others_cores"] for record in records if "others_cores" in record]
    if not busy:
        return ""
    typical, most = statistics.median(busy), figures.percentile(busy, 95)
    loud = " **These figures are not worth much.**" if typical > QUIET_CORES else ""
    return f" Other processes used {typical:.2f} cores meanwhile (95th percentile {most:.2f}).{loud}"


def _table(head: list[str], body: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *body]
    return "\n".join(ROW.format(" | ".join(line)) for line in lines)


def _figures(found: dict[tuple[str, str], list[Record]]) -> str:
    body = [
        [load(name).title, setting, *(cell(records, figure.key) for figure in FIGURES)]
        for (name, setting), records in found.items()
    ]
    return _table(["", "setting", *(figure.label for figure in FIGURES)], body)


def _ratios(found: dict[tuple[str, str], list[Record]]) -> str:
    """Ours by the floor, by Ray and by the fastest durable queue: what the goals are stated in."""
    against = [("pool", "default"), ("ray", "default"), ("ray", "best"), fastest_queue(found)]
    body = []
    for row in (row for row in found if row[0] in OURS):
        for peer in (peer for peer in against if peer in found):
            assert peer is not None
            values = [figures.ratio(found[row], found[peer], BY_KEY[key]) for key in RATIOS]
            cells = [NO_FIGURE if value is None else f"{value} ×" for value in values]
            body.append([str(System(*row)), str(System(*peer)), *cells])
    if not body:
        return ""
    head = ["ours", "divided by", *(BY_KEY[key].label for key in RATIOS)]
    return "Round by round, ours divided by theirs:\n\n" + _table(head, body)


def _compared(found: dict[tuple[str, str], list[Record]], versions: dict[str, str]) -> str:
    body = []
    for name, setting in found:
        driver, says = load(name), System(name, setting).says
        body.append(
            [f"{driver.title} {versions.get(name, '')}".strip(), setting, says.says, driver.durability, says.delivery]
        )
    head = ["", "setting", "what was set", "durability", "a task whose worker dies"]
    return "What was compared:\n\n" + _table(head, body)


def _failures(found: dict[tuple[str, str], list[Record]]) -> str:
    lines = [
        f"- {System(*row)}: {reason} – {', '.join(works)}".replace("\n", " ")
        for row, records in found.items()
        for reason, works in figures.errors(records).items()
    ]
    return "What failed (in round), with the system's own words:\n\n" + "\n".join(lines) if lines else ""
