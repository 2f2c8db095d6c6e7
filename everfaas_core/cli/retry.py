"""`everfaas retry`: run the calls of tasks that have failed, or were cancelled, once more."""

from __future__ import annotations

import json
from typing import Any

import click

from everfaas_core.cli.calling import complete_task_ids, json_option, open_api, task_ids, url_options


@click.command("retry")
@click.argument("tasks", metavar="[TASK]...", nargs=-1, callback=task_ids, shell_complete=complete_task_ids)
@click.option("--dead", is_flag=True, help="All dead letters: the system has cost them their last attempt.")
@click.option("--function", metavar="NAME|ID", help="With --dead: of this function only.")
@click.option("--group", metavar="NAME", help="With --dead: of this group only.")
@json_option("Print one JSON object a line: task_id of the new task, and retry_of.")
@url_options
def command(
    tasks: tuple[str, ...],
    dead: bool,
    function: str | None,
    group: str | None,
    as_json: bool,
    url: str | None,
    config: str | None,
) -> int:
    """Run the calls of tasks that have FAILED, or were CANCELLED, once more: each as a new task.

    The old tasks stay as they are; so a second `everfaas retry` makes further new tasks.
    """
    if bool(tasks) == dead:
        raise click.UsageError("Name tasks, or --dead, and not both.")
    if (function or group) and not dead:
        raise click.UsageError("--function and --group choose among the dead letters: give --dead, too.")
    from everfaas_core.cli import exit_status, show_error
    from everfaas_core.cli.ls import find_tasks
    from everfaas_core.client.errors import ApiRefused

    status = 0
    with open_api(url, config) as api:
        ids: list[Any] = list(tasks)
        if dead:  # all before the first: a task that we make here must not come up in the list
            ids = [one["task_id"] for one in find_tasks(api, {"dead": True, "group": group}, function)]
            if not ids and not as_json:
                click.echo("there are no dead letters")
        for task_id in ids:
            try:
                answer = api.post(f"/v1/tasks/{task_id}/retry", once=True)
            except ApiRefused as error:
                if error.passing:
                    raise
                show_error(error)
                status = status or exit_status(error)
                continue
            click.echo(json.dumps(answer) if as_json else f"{answer['task_id']} repeats {task_id}")
    return status
