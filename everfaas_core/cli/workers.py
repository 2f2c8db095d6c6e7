"""`everfaas workers`: who is there to run tasks."""

from __future__ import annotations

import json
import time

import click

from everfaas_core.cli.calling import json_option, open_api, url_options


@click.command("workers")
@json_option("Print one JSON object: dispatchers, workers.")
@url_options
def command(as_json: bool, url: str | None, config: str | None) -> None:
    """List the workers: their slots, how many are busy, their Python and dill.

    In a pipe: all columns, tab-separated, no heads.
    """
    with open_api(url, config) as api:
        fleet = api.get("/v1/workers")
    if as_json:
        click.echo(json.dumps(fleet))
        return
    from everfaas_core.cli.shown import age
    from everfaas_core.cli.table import Column, print_table

    if not fleet["dispatchers"]:
        click.echo("no dispatcher is running; start one: python run_dispatcher.py -m local (or everfaas up)", err=True)
    elif not fleet["workers"]:
        click.echo("no worker has joined; start one: python run_worker.py MODE SLOTS URL", err=True)
    columns = [
        Column("worker", whole=True),
        Column("mode"),
        Column("busy", whole=True, right=True),
        Column("state"),
        Column("joined", whole=True, right=True),
        Column("python", from_width=90),
        Column("dill", from_width=100),
        Column("host", from_width=100),
        Column("pid", right=True, from_width=100),
        Column("dispatcher", from_width=130),
    ]
    now_ms = time.time() * 1000
    rows = (
        [
            worker["worker_id"],
            worker["mode"],
            f"{worker['busy']}/{worker['slots']}",
            "draining" if worker["draining"] else "",
            age(worker["joined_ms"], now_ms),
            worker["python"],
            worker["dill"],
            worker["host"],
            str(worker["pid"]),
            worker["dispatcher_id"],
        ]
        for worker in sorted(fleet["workers"], key=lambda one: (one["dispatcher_id"], one["joined_ms"]))
    )
    print_table(columns, rows)
