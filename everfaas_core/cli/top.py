"""`everfaas top`: the system as it is now, on one screen that is drawn anew again and again."""

from __future__ import annotations

import contextlib
import json
import os
import select
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import click

from everfaas_core.cli.calling import json_option, open_api, url_options
from everfaas_core.cli.shown import age, brief, count_of, duration, shown

if TYPE_CHECKING:
    from rich.text import Text

    from everfaas_core.client.http import Api

TASKS: Final = 100  # in one look; a screen shows as many as it has lines
SNAPSHOT_S: Final = 1.0  # between the two looks of a snapshot, for the throughput
RATE_S: Final = 10.0
BAR: Final = 20


class Look(dict[str, Any]):
    """What the API said at one moment: `health`, `fleet`, `tasks`, `trouble` (why it can't run tasks), `at_s`."""


@click.command("top")
@click.option(
    "--every", "every_s", type=click.FloatRange(0.1, 60), default=1.0, show_default=True, metavar="S", help="Seconds."
)
@json_option("Print one JSON object, and leave: health, tasks_per_s, dispatchers, workers, tasks.")
@url_options
def command(every_s: float, as_json: bool, url: str | None, config: str | None) -> None:
    """Watch the system: throughput, queue, workers and their busy slots, the newest tasks. `q` or Ctrl-C leaves.

    In a pipe, or with --json, one snapshot is printed.
    """
    with open_api(url, config) as api:
        if as_json or not sys.stdout.isatty():
            first = look(api)
            time.sleep(SNAPSHOT_S)
            now = look(api)
            rate = Throughput([first, now])
            if as_json:
                click.echo(json.dumps(_as_json(now, rate.per_s)))
            else:
                for line in overview(api.url, now, rate.per_s):
                    click.echo(line)
            return
        _watch(api, every_s)


def look(api: Api) -> Look:
    """Ask for everything that a screen shows. Raises ApiFailed."""
    from everfaas_core.client.errors import ApiRefused

    trouble = None
    try:
        health = api.get("/readyz")
    except ApiRefused as error:
        if not error.details:
            raise
        health, trouble = dict(error.details), error.message.partition(": ")[2]
    return Look(
        health=health,
        trouble=trouble,
        fleet=api.get("/v1/workers"),
        tasks=api.get("/v1/tasks", {"limit": TASKS})["tasks"],
        at_s=time.monotonic(),
    )


class Throughput:
    """Tasks that ended in a second, over the last RATE_S."""

    def __init__(self, looks: Sequence[Look] = ()) -> None:
        self._points: list[tuple[float, int]] = []
        for one in looks:
            self.add(one)

    def add(self, one: Look) -> None:
        """Take a further look into account."""
        ended = one["health"].get("ended", 0)
        if self._points and ended < self._points[-1][1]:  # another store, or an emptied one
            self._points.clear()
        self._points.append((one["at_s"], ended))
        while len(self._points) > 2 and one["at_s"] - self._points[1][0] >= RATE_S:
            del self._points[0]

    @property
    def per_s(self) -> float | None:
        """The rate; None after the first look."""
        if len(self._points) < 2:
            return None
        (began, before), (now, after) = self._points[0], self._points[-1]
        return (after - before) / (now - began) if now > began else None


def _as_json(one: Look, per_s: float | None) -> dict[str, Any]:
    found = {"health": one["health"], "tasks_per_s": per_s, "trouble": one["trouble"]}
    return {**found, **one["fleet"], "tasks": one["tasks"]}


# ── lines ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def overview(url: str, one: Look, per_s: float | None) -> Iterator[str]:
    """Yield what is true of the whole system, a line each."""
    health, workers = one["health"], one["fleet"]["workers"]
    slots = sum(worker["slots"] for worker in workers)
    busy = sum(min(worker["busy"], worker["slots"]) for worker in workers)
    yield f"{url}  {shown(str(health.get('store', '')))}"
    if one["trouble"]:
        yield f"not ready: {shown(one['trouble'])}"
    rate = "…" if per_s is None else f"{per_s:,.0f}" if per_s >= 10 else f"{per_s:.1f}"
    yield f"{rate} tasks/s  {health.get('queued', 0):,} queued  {health.get('ended', 0):,} ended"
    yield (
        f"{count_of(len(one['fleet']['dispatchers']), 'dispatcher')}  {count_of(len(workers), 'worker')}  "
        f"{busy:,} of {slots:,} slots busy  {_gauge(busy, slots)}"
    )


def _gauge(busy: int, slots: int) -> str:
    full = -(-BAR * busy // slots) if slots else 0
    return "█" * full + "░" * (BAR - full)


def worker_rows(workers: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """Return a row for each worker, the busiest first."""
    ordered = sorted(workers, key=lambda worker: (-worker["busy"] / max(1, worker["slots"]), worker["worker_id"]))
    now_ms = time.time() * 1000
    return [
        [
            worker["worker_id"],
            f"{min(worker['busy'], worker['slots'])}/{worker['slots']}",
            "draining" if worker["draining"] else "",
            age(worker["joined_ms"], now_ms),
            worker["host"],
        ]
        for worker in ordered
    ]


def task_rows(tasks: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """Return a row for each task: those that run first, then the newest."""
    from everfaas_core.cli.ls import progress_text, took_s

    now_ms = time.time() * 1000
    ordered = sorted(tasks, key=lambda task: task["status"] != "RUNNING")
    return [
        [
            task["task_id"],
            task["function_name"],
            task["status"],
            age(task["submitted_ms"], now_ms),
            duration(took_s(dict(task), now_ms)),
            progress_text(task.get("progress")) if task["status"] == "RUNNING" else brief(task["error"], 60),
        ]
        for task in ordered
    ]


# ── the screen ───────────────────────────────────────────────────────────────────────────────────────────────────────


def _watch(api: Api, every_s: float) -> None:
    from rich.live import Live

    from everfaas_core.cli.table import terminal
    from everfaas_core.client.errors import ApiFailed

    console = terminal()
    rate = Throughput()
    last = look(api)  # before the screen is taken: when nobody is there, this is an error like any other
    with (
        contextlib.suppress(KeyboardInterrupt),
        _Keys() as keys,
        Live(console=console, screen=True, auto_refresh=False, redirect_stdout=False, redirect_stderr=False) as live,
    ):
        trouble = ""
        while True:
            if not trouble:
                rate.add(last)
            live.update(draw(api.url, last, rate.per_s, trouble, console.width, console.height), refresh=True)
            if keys.quit_within(every_s):
                return
            try:
                last, trouble = look(api), ""
            except ApiFailed as error:
                trouble = error.message


def draw(url: str, one: Look, per_s: float | None, trouble: str, width: int, height: int) -> Text:
    """Return the screen: the overview, the workers, and as many tasks as there is room for."""
    from rich.text import Text

    from everfaas_core.cli.table import Column, make_table

    text = Text(no_wrap=True, overflow="crop")
    for number, line in enumerate(overview(url, one, per_s)):
        text.append(line + "\n", style="bold" if number == 0 else "red" if line.startswith("not ready") else "")
    if trouble:
        text.append(f"what is shown is old: {shown(trouble)}\n", style="bold red")
    rows = worker_rows(one["fleet"]["workers"])
    most = max(1, height // 4)
    columns = [Column("worker", whole=True), Column("busy", whole=True, right=True), Column("state")]
    columns += [Column("joined", whole=True, right=True), Column("host")]
    text.append("\n")
    text.append_text(make_table(columns, rows[:most], width))
    if len(rows) > most:
        text.append(f"\n… and {count_of(len(rows) - most, 'worker')} more")
    columns = [Column("task", whole=True), Column("function"), Column("status", whole=True)]
    columns += [
        Column("age", whole=True, right=True),
        Column("took", whole=True, right=True),
        Column("", from_width=100),
    ]
    left = height - text.plain.count("\n") - 5
    text.append("\n\n")
    text.append_text(make_table(columns, task_rows(one["tasks"])[: max(0, left)], width))
    return text.append("\n\nq leaves", style="dim")


class _Keys:
    """Keys as they are typed, without Enter, while it is entered. Without a keyboard there are none."""

    def __init__(self) -> None:
        self._before: list[Any] | None = None

    def __enter__(self) -> _Keys:
        if sys.stdin.isatty():
            import termios
            import tty

            self._before = termios.tcgetattr(sys.stdin.fileno())
            tty.setcbreak(sys.stdin.fileno())
        return self

    def __exit__(self, *_: object) -> None:
        if self._before is not None:
            import termios

            termios.tcsetattr(sys.stdin.fileno(), termios.TCSADRAIN, self._before)

    def quit_within(self, wait_s: float) -> bool:
        """Wait so long; tell whether somebody wants to leave."""
        deadline = time.monotonic() + wait_s
        while (left_s := deadline - time.monotonic()) > 0:
            if self._before is None:
                time.sleep(left_s)
            elif select.select([sys.stdin], [], [], left_s)[0]:
                typed = os.read(sys.stdin.fileno(), 64)
                if not typed or b"q" in typed.lower():
                    return True
        return False
