"""`everfaas drain`: ask workers to finish what they run and leave."""

from __future__ import annotations

import json

import click

from everfaas_core.cli.calling import json_option, open_api, url_options


@click.command("drain")
@click.argument("workers", metavar="WORKER...", nargs=-1, required=True)
@json_option("Print one JSON object a line: worker_id, draining.")
@url_options
def command(workers: tuple[str, ...], as_json: bool, url: str | None, config: str | None) -> None:
    """Ask workers to finish what they run, take nothing more, and leave. Nothing is lost.

    `everfaas drain` returns when the API has taken note; each worker leaves within a second of its last task. The ids
    are those that `everfaas workers` lists. To restart a fleet without a gap: start the new workers, then drain the
    old.
    """
    from everfaas_core.client.http import segment

    with open_api(url, config) as api:
        for worker in workers:
            answer = api.post(f"/v1/workers/{segment(worker)}/drain")
            click.echo(json.dumps(answer) if as_json else f"draining {worker}")
