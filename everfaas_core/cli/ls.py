"""`everfaas ls`: the tasks, newest first."""

from __future__ import annotations

import heapq
import itertools
import json
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

import click

from everfaas_core.cli.calling import PAGE, json_option, open_api, url_options

if TYPE_CHECKING:
    from everfaas_core.client.http import Api

LIMIT_DEFAULT: Final = 20
STATUSES: Final = ("QUEUED", "RUNNING", "COMPLETED", "FAILED", "CANCELLED")
WIDE: Final = 110  # columns of a terminal that shows workers and groups, too


@click.command("ls")
@click.option("--status", type=click.Choice(STATUSES, case_sensitive=False), help="Only tasks in this state.")
@click.option("--function", "function", metavar="NAME|ID", help="Only calls of this function, of all its versions.")
@click.option("--group", metavar="NAME", help="Only tasks that were submitted with this group.")
@click.option("--tag", metavar="TAG", help="Only tasks that were submitted with this tag.")
@click.option("--dead", is_flag=True, help="Only dead letters: the system has cost them their last attempt.")
@click.option("--limit", type=click.IntRange(min=1), default=LIMIT_DEFAULT, show_default=True, help="At most so many.")
@click.option("--all", "everything", is_flag=True, help="No limit.")
@click.option("-q", "--quiet", is_flag=True, help="Print ids only, one a line.")
@json_option("Print one JSON object a line: the records.")
@url_options
def command(
    status: str | None,
    function: str | None,
    group: str | None,
    tag: str | None,
    dead: bool,
    limit: int,
    everything: bool,
    quiet: bool,
    as_json: bool,
    url: str | None,
    config: str | None,
) -> None:
    """List tasks, newest first.

    A terminal of 110 columns or more shows workers and groups, too. In a pipe: all columns, tab-separated, no heads.
    """
    where = {"status": status and status.upper(), "group": group, "tag": tag, "dead": dead or None}
    with open_api(url, config) as api:
        tasks = find_tasks(api, where, function)
        if not everything:
            tasks = itertools.islice(tasks, limit)
        if as_json:
            for task in tasks:
                click.echo(json.dumps(task))
        elif quiet:
            for task in tasks:
                click.echo(task["task_id"])
        else:
            _print(tasks)


def find_tasks(api: Api, where: dict[str, Any], function: str | None = None) -> Iterator[dict[str, Any]]:
    """Yield the records of the tasks that match, newest first, page by page. Raises ApiFailed, and UnknownFunction."""
    if function is None:
        return _pages(api, where)
    ids = function_ids(api, function)
    found = [_pages(api, {**where, "function": function_id}) for function_id in ids]
    return heapq.merge(*found, key=lambda task: str(task["task_id"]), reverse=True)


def _pages(api: Api, where: dict[str, Any]) -> Iterator[dict[str, Any]]:
    cursor = None
    while True:
        page = api.get("/v1/tasks", {**where, "limit": PAGE, "cursor": cursor})
        yield from page["tasks"]
        cursor = page["cursor"]
        if cursor is None:
            return


def function_ids(api: Api, wanted: str) -> list[str]:
    """Return the ids of all functions of this name, or the one of this id. Raises UnknownFunction."""
    from everfaas_core.model.errors import UnknownFunction
    from everfaas_core.model.ids import is_id

    if is_id(wanted):
        return [wanted.lower()]
    found = []
    cursor = None
    while True:
        page = api.get("/v1/functions", {"limit": PAGE, "cursor": cursor})
        found += [one["function_id"] for one in page["functions"] if one["name"] == wanted]
        cursor = page["cursor"]
        if cursor is None:
            break
    if not found:
        raise UnknownFunction(
            f"no function is called '{wanted}'", hint="`everfaas ls` shows the names of functions that were called"
        )
    return found


def took_s(task: dict[str, Any], now_ms: float) -> float | None:
    """Return how long the last attempt of a task has run, or runs already; None for one that has not begun."""
    if not task["attempts"]:
        return None
    last = task["attempts"][-1]
    if last["run_s"] is not None:
        return float(last["run_s"])
    ended_ms = last["ended_ms"] or task["ended_ms"] or now_ms
    return float(max(0.0, (ended_ms - last["started_ms"]) / 1000))


def progress_text(progress: dict[str, Any] | None) -> str:
    """Return `30/100 30 % message` of a task's progress; "" if it has told none."""
    if not progress:
        return ""
    done, total = progress.get("done"), progress.get("total")
    words = []
    if done is not None:
        words.append(f"{done:g}/{total:g}" if total else f"{done:g}")
        if total:
            words.append(f"{100 * done / total:.0f} %")
    if progress.get("message"):
        words.append(str(progress["message"]))
    return " ".join(words)


def _print(tasks: Iterator[dict[str, Any]]) -> None:
    from everfaas_core.cli.shown import age, duration
    from everfaas_core.cli.table import Column, print_table

    columns = [
        Column("task", whole=True),
        Column("function"),
        Column("status", whole=True),
        Column("age", whole=True, right=True),
        Column("took", whole=True, right=True),
        Column("worker", from_width=WIDE),
        Column("group", from_width=WIDE),
        Column("progress", from_width=WIDE),
    ]
    now_ms = time.time() * 1000
    print_table(
        columns,
        (
            [
                task["task_id"],
                task["function_name"],
                task["status"],
                age(task["submitted_ms"], now_ms),
                duration(took_s(task, now_ms)),
                task["attempts"][-1]["worker"] if task["attempts"] else "",
                task["group"] or "",
                progress_text(task.get("progress")) if task["status"] == "RUNNING" else "",
            ]
            for task in tasks
        ),
    )
