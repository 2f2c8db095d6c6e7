"""`everfaas logs`: what a task has written, and goes on to write."""

from __future__ import annotations

import json
from typing import Any

import click

from everfaas_core.cli.calling import complete_task_ids, json_option, open_api, task_ids, url_options


@click.command("logs")
@click.argument("task", metavar="TASK", callback=task_ids, shell_complete=complete_task_ids)
@click.option("-f", "--follow", is_flag=True, help="Go on until the task has ended.")
@click.option("-t", "--times", is_flag=True, help="Put the time in front of each line.")
@click.option("--attempt", type=click.IntRange(min=1), metavar="N", help="Only what this attempt has written.")
@json_option("Print one JSON object a line: stream, text, attempt, at_ms, cursor.")
@url_options
def command(
    task: str, follow: bool, times: bool, attempt: int | None, as_json: bool, url: str | None, config: str | None
) -> None:
    """Print what a task writes: its stdout to stdout, its stderr to stderr.

    In a terminal, a task can colour its text; everything else that a terminal would obey is shown as an escape.
    """
    from everfaas_core.cli.streams import Terminal, pieces

    with open_api(url, config) as api:
        terminal = Terminal(times=times)
        try:
            for piece in pieces(api, task, follow=follow, attempt=attempt):
                if as_json:
                    click.echo(json.dumps(piece, default=_text))
                else:
                    terminal.write(piece)
        finally:
            terminal.close()


def _text(value: Any) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)
