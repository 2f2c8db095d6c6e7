"""`everfaas bench`: what a running system achieves, measured through its API as a client sees it."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import click

from everfaas_core.cli.calling import json_option, open_api, url_options

if TYPE_CHECKING:
    from everfaas_core.cli.workload import Workload
    from everfaas_core.client.http import Api

DEFAULT_TASKS: Final = 10_000
TASKS_MAX: Final = 1_000_000
CALLS: Final = 300
NAPS_PER_SLOT: Final = 5
NAP_S: Final = 0.5
NAPS_MAX: Final = 5_000
ECHOES: Final = 64
ECHO_BYTES: Final = 1024 * 1024
WARM_SLOTS_MAX: Final = 1_000


@click.command("bench")
@click.option(
    "--tasks",
    type=click.IntRange(1, TASKS_MAX),
    default=DEFAULT_TASKS,
    show_default=True,
    help="No-op tasks for the throughput.",
)
@json_option("Print one JSON object instead of the table.")
@url_options
def command(tasks: int, as_json: bool, url: str | None, config: str | None) -> None:
    """Measure a running system through its API: throughput, latency, fairness, payloads.

    It submits real tasks, which compete with the work that the system has: measure when it is at rest. Their results
    are kept for a minute, and the functions (everfaas-bench-…) stay registered. What is being done is told on stderr.
    """
    from everfaas_core.cli.workload import Workload

    with open_api(url, config) as api:
        system = _system(api)
        _tell(f"{api.url}: {system['store']}, {system['slots']} slots, {system['queued']} tasks queued")
        if system["queued"]:
            _tell("other work is queued: it counts in all figures")
        figures = _measure(Workload(api), system["slots"], tasks)
    if as_json:
        import json

        click.echo(json.dumps({"url": api.url, **system, **figures}))
    else:
        _print(figures)


def _system(api: Api) -> dict[str, Any]:
    """Return what the system says of itself. Raises ApiFailed unless it is ready to run tasks."""
    from everfaas_core.client.errors import ApiUnreachable

    state = api.get("/readyz")
    if not isinstance(state, dict) or not {"store", "slots", "queued"} <= state.keys():
        raise ApiUnreachable(f"what answers at {api.url} is not this API", hint="name the API's address: --url URL")
    version = str(api.get("/")["version"])
    return {"version": version, "store": state["store"], "slots": state["slots"], "queued": state["queued"]}


def _measure(work: Workload, slots: int, tasks: int) -> dict[str, Any]:
    """Take all figures, one after the other, and say so."""
    _tell("warming up: every slot loads the functions")
    work.warm_up(min(slots, WARM_SLOTS_MAX))
    _tell(f"throughput: {tasks:,} no-op tasks in batches, all results in hand")
    took_s = work.batches_s(tasks)
    _tell(f"latency: {CALLS} single calls, each submits and waits in one exchange")
    latencies_s = sorted(work.calls_s(CALLS))
    naps = min(slots * NAPS_PER_SLOT, NAPS_MAX)
    ideal_s = -(-naps // slots) * NAP_S
    _tell(f"fairness: {naps} sleeps of {NAP_S:g} s on {slots} slots; {ideal_s:g} s at best")
    naps_s = work.naps_s(naps, NAP_S)
    _tell(f"payloads: {ECHOES} arguments of {ECHO_BYTES / 2**20:g} MiB, echoed back")
    echoes_s = work.echoes_s(ECHOES, ECHO_BYTES)
    return {
        "tasks": tasks,
        "tasks_per_s": tasks / took_s,
        "calls": CALLS,
        "call_p50_ms": statistics.median(latencies_s) * 1e3,
        "call_p99_ms": percentile(latencies_s, 0.99) * 1e3,
        "sleeps": naps,
        "sleeps_s": naps_s,
        "sleeps_ideal_s": ideal_s,
        "payload_mib_per_s": ECHOES * ECHO_BYTES / 2**20 / echoes_s,
    }


def percentile(ordered: Sequence[float], share: float) -> float:
    """Return the smallest value that at least `share` of the values, in ascending order, do not exceed."""
    return ordered[math.ceil(len(ordered) * share) - 1]


def _print(figures: dict[str, Any]) -> None:
    excess = 100 * (figures["sleeps_s"] / figures["sleeps_ideal_s"] - 1)
    rows = [
        (f"no-op tasks in batches ({figures['tasks']:,})", f"{figures['tasks_per_s']:,.0f} tasks/s"),
        ("single call, median", f"{figures['call_p50_ms']:.2f} ms"),
        ("single call, 99 of 100 within", f"{figures['call_p99_ms']:.2f} ms"),
        (
            f"{figures['sleeps']} sleeps of {NAP_S:g} s",
            f"{figures['sleeps_s']:.2f} s (ideal {figures['sleeps_ideal_s']:.2f} s, {excess:+.1f} %)",
        ),
        ("arguments of 1 MiB echoed", f"{figures['payload_mib_per_s']:,.0f} MiB/s"),
    ]
    width = max(len(label) for label, _ in rows)
    for label, value in rows:
        click.echo(f"{label:<{width}}  {value}")


def _tell(text: str) -> None:
    click.echo(text, err=True)
