"""`everfaas status`: everything that is known of a task."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any, Final

import click

from everfaas_core.cli.calling import complete_task_ids, json_option, open_api, task_ids, url_options
from everfaas_core.cli.ls import progress_text, took_s
from everfaas_core.cli.shown import age, duration, instant, shown, size

LABEL: Final = 10


@click.command("status")
@click.argument(
    "tasks", metavar="TASK...", nargs=-1, required=True, callback=task_ids, shell_complete=complete_task_ids
)
@json_option("Print one JSON object a line: the records.")
@url_options
def command(tasks: tuple[str, ...], as_json: bool, url: str | None, config: str | None) -> None:
    """Show everything that is known of a task: each attempt with its worker and times, progress, why it ended."""
    with open_api(url, config) as api:
        for number, task_id in enumerate(tasks):
            record = api.get(f"/v1/tasks/{task_id}")
            if as_json:
                click.echo(json.dumps(record))
                continue
            if number:
                click.echo()
            for label, text in describe(record, time.time() * 1000):
                _print(label, text)


def describe(task: dict[str, Any], now_ms: float) -> Iterator[tuple[str, str]]:
    """Yield what is worth telling of a record, as label and text; only `error` may have several lines."""
    yield "task", task["task_id"]
    yield "function", f"{shown(task['function_name'])} ({task['function_id']})"
    yield "status", _status(task)
    yield "submitted", _since(task["submitted_ms"], now_ms)
    if task["not_before_ms"] and task["not_before_ms"] > now_ms and task["status"] == "QUEUED":
        yield "not before", f"{instant(task['not_before_ms'])} (in {duration((task['not_before_ms'] - now_ms) / 1000)})"
    if task["ended_ms"]:
        yield "ended", _since(task["ended_ms"], now_ms)
        yield "kept until", instant(task["expires_ms"])
    yield from _options(task)
    for attempt in task["attempts"]:
        yield f"attempt {attempt['attempt']}", _attempt(attempt, task, now_ms)
    if task.get("progress"):
        told = task["progress"]
        yield "progress", f"{shown(progress_text(told))} (told {age(told.get('at_ms'), now_ms)} ago)"
    if task["status"] == "COMPLETED":
        yield "result", f"{size(task['result_size_bytes'])}: everfaas result {task['task_id']}"
    if task["error"]:
        yield "error", shown(task["error"].rstrip(), lines=True)


def _status(task: dict[str, Any]) -> str:
    text = str(task["status"])
    if task["cause"] and task["cause"] not in ("ok", "cancelled"):
        text += f", {task['cause'].replace('_', ' ')}"
    if task["status"] == "RUNNING":
        text += f" for {duration(took_s(task, now_ms=time.time() * 1000))}"
        if task["cancel_requested"]:
            text += ", a cancel was asked for"
    return text


def _since(at_ms: float, now_ms: float) -> str:
    return f"{instant(at_ms)} ({age(at_ms, now_ms)} ago)"


def _options(task: dict[str, Any]) -> Iterator[tuple[str, str]]:
    words = [f"priority {task['priority']}", f"at most {task['max_attempts']} attempts"]
    if task["timeout_s"]:
        words.append(f"timeout {duration(task['timeout_s'])}")
    if task["deadline_ms"]:
        words.append(f"deadline {instant(task['deadline_ms'])}")
    words.append(f"arguments of {size(task['payload_size_bytes'])}")
    yield "options", ", ".join(words)
    if task["group"]:
        yield "group", shown(task["group"])
    if task["tags"]:
        yield "tags", shown(", ".join(task["tags"]))
    if task["retry_of"]:
        yield "retry of", task["retry_of"]


def _attempt(attempt: dict[str, Any], task: dict[str, Any], now_ms: float) -> str:
    queued_s = (attempt["leased_ms"] - task["submitted_ms"]) / 1000
    clock = instant(attempt["started_ms"]).split(" ")[-1]
    words = [f"{clock} on {shown(attempt['worker'])}", f"waited {duration(queued_s)}"]
    if attempt["ended_ms"] is None:
        words.append(f"runs for {duration((now_ms - attempt['started_ms']) / 1000)}")
    else:
        ran_s = attempt["run_s"]
        if ran_s is None:
            ran_s = (attempt["ended_ms"] - attempt["started_ms"]) / 1000
        words.append(f"ran {duration(ran_s)}")
        words.append(str(attempt["cause"]).replace("_", " "))
    return ", ".join(words)


def _print(label: str, text: str) -> None:
    """Print one line; a text of several lines stands below its label."""
    if "\n" in text:
        click.echo(label)
        click.echo("\n".join(f"  {line}" for line in text.splitlines()))
    else:
        click.echo(f"{label:<{LABEL}}  {text}")
