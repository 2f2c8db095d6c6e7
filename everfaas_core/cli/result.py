"""`everfaas result`: what a task returned, or what it raised."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from everfaas_core.cli import EXIT_FAILED
from everfaas_core.cli.calling import complete_task_ids, json_option, open_api, task_ids, url_options

if TYPE_CHECKING:
    from everfaas_core.cli.outcomes import Outcome
    from everfaas_core.client.http import Api


def _seconds(ctx: click.Context, parameter: click.Parameter, text: str | None) -> float:
    if text is None:
        return 0.0
    try:
        wait_s = float("inf" if text == "forever" else text)
    except ValueError:
        wait_s = -1.0
    if not wait_s >= 0:
        raise click.BadParameter(f"{text!r} is neither a number of seconds nor 'forever'.", ctx, parameter)
    return wait_s


@click.command("result")
@click.argument("task", metavar="TASK", callback=task_ids, shell_complete=complete_task_ids)
@click.option(
    "--wait", "wait_s", metavar="S", callback=_seconds, help="Wait so long for the task to end, or `forever`."
)
@click.option("--out", "out", type=click.Path(dir_okay=False, path_type=Path), help="Write to this file, not stdout.")
@click.option("--raw", is_flag=True, help="The bytes as the task sent them, a pickle, which is not loaded here.")
@json_option("Print one JSON object: task_id, status, and value, repr or error.")
@url_options
def command(
    task: str, wait_s: float, out: Path | None, raw: bool, as_json: bool, url: str | None, config: str | None
) -> int:
    """Print what a task returned; of a task that has failed, show the exception with its remote traceback.

    A text and bytes are printed as they are with --out, everything else, and without --out these too, as Python shows
    it (repr). Loading a result runs code that the task chose: --raw does not load it.
    """
    from everfaas_core.cli.outcomes import TERMINAL, Outcome, wait_for

    if raw and as_json:
        raise click.UsageError("--raw is bytes, --json is text: give one of them.")
    with open_api(url, config) as api:
        answer = wait_for(api, task, wait_s)
        if raw and answer["status"] in TERMINAL:
            _write(answer["result"], out)
            return Outcome(task, answer["status"], b"").exit_status
        outcome = Outcome(task, answer["status"], answer["result"])
        if as_json:
            _write(json.dumps(outcome.fields(api)) + "\n", out)
        elif outcome.status not in TERMINAL:
            click.echo(f"task {task} is {outcome.status}: it has no result yet. --wait S waits for it.", err=True)
        else:
            return _print(outcome, api, out)
        return outcome.exit_status


def _print(outcome: Outcome, api: Api, out: Path | None) -> int:
    from everfaas_core.cli.outcomes import safe_repr, show_failure
    from everfaas_core.cli.shown import shown

    if outcome.status != "COMPLETED":
        show_failure(outcome, api)
    elif outcome.unloadable is not None:
        click.echo(f"Error: the result does not load here: {outcome.unloadable}", err=True)
        click.echo(
            "Hint: run this where the task's modules are (PYTHONPATH), or take the bytes: --raw --out FILE", err=True
        )
        return EXIT_FAILED
    elif out is not None:
        value = outcome.value
        _write(value if isinstance(value, (bytes, str)) else safe_repr(value) + "\n", out)
    else:
        text = safe_repr(outcome.value)
        _write((shown(text, lines=True) if sys.stdout.isatty() else text) + "\n", None)
    return outcome.exit_status


def _write(content: Any, out: Path | None) -> None:
    """Write bytes or text to a file or stdout. Raises FileError of click."""
    data = content if isinstance(content, bytes) else content.encode(errors="backslashreplace")
    if out is None:
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
        return
    try:
        out.write_bytes(data)
    except OSError as error:
        raise click.FileError(str(out), error.strerror) from None
