"""`everfaas run`: one call of a function that lies here, on the fleet."""

from __future__ import annotations

import json
import os
import pickle
import sys
import uuid
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from everfaas_core.cli import EXIT_FAILED, EXIT_INTERRUPTED
from everfaas_core.cli.calling import json_option, url_options
from everfaas_core.cli.shown import shown
from everfaas_core.cli.targets import TargetCommand, find_function, keywords, literal
from everfaas_core.model.errors import EverfaasError

if TYPE_CHECKING:
    from everfaas_core.cli.outcomes import Outcome
    from everfaas_core.client.http import Api

F = TypeVar("F", bound=Callable[..., Any])

CANCEL_WAIT_S: Final = 10.0
"""How long it is waited for the end of a task that was cancelled by Ctrl-C."""


def call_options(function: F) -> F:
    """Give a command the options of calls: `timeout_s`, `max_attempts`, `priority`, `result_ttl_s`, `name`."""
    for option in (
        click.option("--name", metavar="NAME", help="What the function is called in lists; its own name otherwise."),
        click.option(
            "--result-ttl", "result_ttl_s", type=click.FloatRange(min=1), metavar="S", help="Keep ended tasks so long."
        ),
        click.option("--priority", type=click.IntRange(0, 9), metavar="N", help="0 to 9, 9 is the most urgent."),
        click.option(
            "--max-attempts",
            type=click.IntRange(1, 100),
            metavar="N",
            help="Attempts that crashes and lost workers may use up.",
        ),
        click.option(
            "--timeout",
            "timeout_s",
            type=click.FloatRange(min=0.001),
            metavar="S",
            help="Longest run of one attempt, in seconds.",
        ),
    ):
        function = option(function)
    return function


@click.command("run", cls=TargetCommand)
@click.argument("target", metavar="FILE.py::FUNCTION")
@click.argument("arguments", metavar="[ARGUMENT]...", nargs=-1)
@click.option("--kw", "kw", metavar="NAME=VALUE", multiple=True, help="A keyword argument. Repeatable.")
@call_options
@click.option("--detach", is_flag=True, help="Print the task's id and leave; `everfaas logs -f` follows it.")
@json_option("Print the outcome as one JSON object: task_id, status, and value, repr or error.")
@url_options
def command(
    target: str,
    arguments: tuple[str, ...],
    kw: tuple[str, ...],
    detach: bool,
    as_json: bool,
    url: str | None,
    config: str | None,
    **options: Any,
) -> int:
    """Run a function of a file, or of a module (package.module::FUNCTION), on the fleet.

    What it writes streams to this terminal. Then what it returned is printed, as the interpreter would (nothing for
    None), or its exception is shown with the remote traceback: exit status 5. Arguments are Python literals where they
    can be read so (3, [1,2], "x"), else texts. Ctrl-C cancels the task; a second one leaves at once.
    """
    function = find_function(target)
    args, kwargs = tuple(map(literal, arguments)), keywords(kw)
    from everfaas_core.client.client import Client
    from everfaas_core.config.layers import load_url

    with Client(load_url(url, config)[0]) as client:
        function_id, fields = prepare(client, function, options)
        payload = pickle.dumps((args, kwargs))
        call = {"function_id": function_id, "payload": payload, "idempotency_key": f"run-{uuid.uuid4()}", **fields}
        task_id = str(client.api.post("/v1/tasks", call)["task_id"])
        if detach:
            click.echo(json.dumps({"task_id": task_id}) if as_json else task_id)
            return 0
        try:
            outcome = _follow(client.api, task_id)
        except KeyboardInterrupt:
            return _cancel(client.api, task_id)
        except EverfaasError:
            click.echo(f"task {task_id} goes on without us: everfaas logs -f {task_id}", err=True)
            raise
        return _print(outcome, client.api, as_json)


def prepare(client: Any, function: Any, options: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """Register a function; return its id and the fields of its tasks: its own options, and those of the flags."""
    given = {name: value for name, value in options.items() if value is not None}
    fields = {**getattr(function, "everfaas_options", {}), **given}
    name = fields.pop("name", None)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        function_id = client.options(name=name).register(function)
    for warning in caught:
        click.echo(f"Warning: {shown(str(warning.message))}", err=True)
    return function_id, fields


def _follow(api: Api, task_id: str) -> Outcome:
    """Show what the task writes until it has ended."""
    from everfaas_core.cli.outcomes import Outcome, wait_for
    from everfaas_core.cli.streams import Terminal, pieces

    terminal = Terminal()
    try:
        for piece in pieces(api, task_id, follow=True):
            terminal.write(piece)
    finally:
        terminal.close()
    answer = wait_for(api, task_id, float("inf"))
    return Outcome(task_id, answer["status"], answer["result"])


def _print(outcome: Outcome, api: Api, as_json: bool) -> int:
    from everfaas_core.cli.outcomes import safe_repr, show_failure

    if as_json:
        click.echo(json.dumps(outcome.fields(api)))
    elif outcome.status != "COMPLETED":
        show_failure(outcome, api)
        click.echo(f"everfaas status {outcome.task_id} tells more", err=True)
    elif outcome.unloadable is not None:
        click.echo(f"Error: the result does not load here: {outcome.unloadable}", err=True)
        click.echo(f"Hint: the task has completed; its bytes: everfaas result {outcome.task_id} --raw", err=True)
        return EXIT_FAILED
    elif outcome.value is not None:
        text = safe_repr(outcome.value)
        click.echo(shown(text, lines=True) if sys.stdout.isatty() else text)
    return outcome.exit_status


def _cancel(api: Api, task_id: str) -> int:
    """Cancel, wait for the end, and say what has become of the task."""
    from everfaas_core.cli.outcomes import wait_for

    click.echo(f"\ncancelling task {task_id} (Ctrl-C again: leave at once)", err=True)
    try:
        api.post(f"/v1/tasks/{task_id}/cancel")
        status = wait_for(api, task_id, CANCEL_WAIT_S)["status"]
    except KeyboardInterrupt:
        click.echo(f"left: everfaas status {task_id} tells what becomes of it", err=True)
        sys.stderr.flush()
        os._exit(EXIT_INTERRUPTED)
    if status == "CANCELLED":
        click.echo("the task is cancelled", err=True)
    else:
        click.echo(f"the task is {status}: everfaas status {task_id}", err=True)
    return EXIT_INTERRUPTED
