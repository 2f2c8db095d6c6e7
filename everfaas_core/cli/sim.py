"""`everfaas sim`: the production machines under a seeded world; a failure prints the command that replays it."""

from __future__ import annotations

import gc
import json
from collections.abc import Callable
from typing import Any

import click
import msgspec

from everfaas_core.model.errors import ConfigError
from everfaas_core.ports import Strategy
from everfaas_core.registry import Catalog, Registry
from everfaas_core.sim.scenarios import SCENARIOS, Scenario
from everfaas_core.sim.tales import TALES
from everfaas_core.sim.world import Summary, World

DEFAULT_STRATEGY = {"granted": "round-robin", "capacity": "least-loaded"}


@click.command("sim")
@click.argument("scenario", required=False)
@click.option("--seed", type=int, default=1, show_default=True, help="Everything in the world comes from it.")
@click.option("--seeds", type=click.IntRange(min=1), default=1, help="Run so many seeds, beginning with --seed.")
@click.option("--workers", type=click.IntRange(min=1), help="Instead of the scenario's.")
@click.option("--slots", type=click.IntRange(min=1), help="Of each worker, instead of the scenario's.")
@click.option("--tasks", type=click.IntRange(min=1), help="Instead of the scenario's.")
@click.option("--until", type=click.FloatRange(min=0), metavar="S", help="Heal the world at this virtual second.")
@click.option("--strategy", help="Placement strategy (an installed plugin); the default is that of the mode.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object for each run.")
@click.option("--transcript", is_flag=True, help="Print what happens, line by line, instead of the summary.")
def command(scenario: str | None, seed: int, seeds: int, strategy: str | None, **how: Any) -> int:
    """Run the production machines in a simulated world, with faults, and check the promise.

    SCENARIO is one of the list that is printed without it. Exit status 1: the promise was broken.
    """
    if scenario is None:
        _list()
        return 0
    chosen = _adjusted(_find(scenario), how)
    make_strategy = _strategy(strategy or DEFAULT_STRATEGY[chosen.rule])
    status = 0
    for number in range(seed, seed + seeds):
        world = World(chosen, number, make_strategy, until_s=how["until"], written=how["transcript"])
        summary = _run(world)
        if how["transcript"]:
            click.echo(transcript(world))
        elif how["as_json"]:
            click.echo(json.dumps(msgspec.to_builtins(summary)))
        else:
            click.echo(_text(summary))
        if summary.violation is not None:
            status = 1
            click.echo(f"VIOLATION {summary.violation}\nreplay:   {_replay(scenario, number, strategy, how)}", err=True)
    return status


def _run(world: World) -> Summary:
    """Run without the cycle collector: a large world is one graph that is alive, and looking at it takes a third."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        return world.run()
    finally:
        if was_enabled:
            gc.enable()
        gc.collect()


def transcript(world: World) -> str:
    """Return the lines of a world that was run with `written`."""
    scenario = world.scenario
    head = f"# {scenario.name}, seed {world.seed}: {scenario.summary}"
    return "\n".join([head, *world.trace.lines])


def _find(name: str) -> Scenario:
    known = {**SCENARIOS, **TALES}
    if name not in known:
        raise ConfigError(f"there is no scenario {name!r}", hint=f"there are: {', '.join(known)}")
    return known[name]


def _adjusted(scenario: Scenario, how: dict[str, Any]) -> Scenario:
    changes = {key: how[key] for key in ("workers", "slots", "tasks") if how[key] is not None}
    return msgspec.structs.replace(scenario, **changes)


def _strategy(name: str) -> Callable[[], Strategy]:
    offer = Registry(Catalog.installed()).strategy(name)
    return lambda: offer.provider.factory({})


def _replay(scenario: str, seed: int, strategy: str | None, how: dict[str, Any]) -> str:
    words = ["everfaas sim", scenario, f"--seed {seed}"]
    words += [f"--{key} {how[key]}" for key in ("workers", "slots", "tasks", "until") if how[key] is not None]
    if strategy:
        words.append(f"--strategy {strategy}")
    return " ".join(words)


def _text(summary: Summary) -> str:
    ended = ", ".join(f"{count:,} {status}" for status, count in summary.ended.items()) or "none"
    faults = ", ".join(f"{count:,} × {kind}" for kind, count in summary.faults.items()) or "none"
    return "\n".join(
        [
            f"{summary.scenario}, seed {summary.seed}: {'BROKEN' if summary.violation else 'the promise was kept'}",
            f"  fleet     {summary.workers:,} workers with {summary.slots} slots",
            f"  tasks     {summary.tasks:,} submitted, {summary.attempts:,} attempts begun; ended: {ended}",
            f"  faults    {faults}",
            f"  time      {summary.virtual_s:,.1f} virtual s in {summary.wall_s:,.1f} s "
            f"({summary.cpu_s:,.1f} s of CPU); {summary.tasks_per_wall_s:,.0f} tasks/s",
            f"  digest    {summary.digest} of {summary.events:,} events",
        ]
    )


def _list() -> None:
    for scenario in (*SCENARIOS.values(), *TALES.values()):
        click.echo(f"{scenario.name:<24}{scenario.summary}")
