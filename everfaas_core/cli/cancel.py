"""`everfaas cancel`: tasks that are not to run, or to run on."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from everfaas_core.cli import EXIT_UNKNOWN
from everfaas_core.cli.calling import (
    IDS_MAX,
    PAGE,
    complete_task_ids,
    json_option,
    open_api,
    task_ids,
    url_options,
)

if TYPE_CHECKING:
    from everfaas_core.client.http import Api

WORDS = {
    "CANCELLED": "cancelled",
    "RUNNING": "is being stopped",
    "COMPLETED": "had ended before: COMPLETED",
    "FAILED": "had ended before: FAILED",
}


@click.command("cancel")
@click.argument("tasks", metavar="[TASK]...", nargs=-1, callback=task_ids, shell_complete=complete_task_ids)
@click.option("--group", metavar="NAME", help="All tasks of this group that have not ended.")
@json_option("Print one JSON object a line: task_id, and its status after the call.")
@url_options
def command(tasks: tuple[str, ...], group: str | None, as_json: bool, url: str | None, config: str | None) -> int:
    """Cancel tasks: queued ones at once, running ones by ending their slot, which takes a moment.

    Repeating it changes nothing; a task that has ended stays as it is.
    """
    if bool(tasks) == (group is not None):
        raise click.UsageError("Name tasks, or --group, and not both.")
    with open_api(url, config) as api:
        if group is not None:
            return _cancel_group(api, group, as_json)
        missing = 0
        for begin in range(0, len(tasks), IDS_MAX):
            answer = cancel(api, tasks[begin : begin + IDS_MAX])
            for task in answer["tasks"]:
                click.echo(json.dumps(task) if as_json else f"{task['task_id']} {WORDS[task['status']]}")
            for task_id in (*answer["unknown"], *answer["expired"]):
                why = (
                    "there is no such task" if task_id in answer["unknown"] else "it ended, and its record has expired"
                )
                click.echo(f"Error: {task_id}: {why}", err=True)
                missing += 1
    return EXIT_UNKNOWN if missing else 0


def cancel(api: Api, ids: Sequence[str]) -> dict[str, Any]:
    """Cancel up to IDS_MAX tasks; return the API's answer: `tasks` with their statuses, `unknown`, `expired`."""
    answer: dict[str, Any] = api.post("/v1/tasks:cancel", {"task_ids": list(ids)})
    return answer


def _cancel_group(api: Api, group: str, as_json: bool) -> int:
    """Cancel what waits before what runs, so that no slot that gets free takes what is to be cancelled next."""
    counts = {"CANCELLED": 0, "RUNNING": 0}
    for status in ("QUEUED", "RUNNING"):
        cursor = None
        while True:
            query = {"group": group, "status": status, "limit": PAGE, "cursor": cursor}
            page = api.get("/v1/tasks", query)
            ids = [task["task_id"] for task in page["tasks"]]
            for task in cancel(api, ids)["tasks"] if ids else ():
                if task["status"] in counts:
                    counts[task["status"]] += 1
                if as_json:
                    click.echo(json.dumps(task))
            cursor = page["cursor"]
            if cursor is None:
                break
    if not as_json:
        waited, ran = counts["CANCELLED"], counts["RUNNING"]
        click.echo(f"{waited:,} cancelled that had not begun, {ran:,} that run are being stopped")
    return 0
