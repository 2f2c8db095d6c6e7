"""A backlog of so many tasks: queued while no worker runs, then drained; the rate, and what the dispatcher needs."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import dill

from bench.e2e.system import without_workers, worker
from bench.e2e.usage import pids_of
from everfaas_core.cli.workload import packed
from everfaas_core.client.http import Api

SLOTS = 4
WARM_TASKS = 2_000
"""Queued in front: they run while the slots start and the pace of the function is learnt, and are not counted."""

BATCH = 5_000
WAIT_S = 30.0
LAST = 500
"""Of the tasks that were queued last, one is the last to end."""

SMALL = 20_000
SMALL_REPEATS = 3  # of a backlog that is drained in a moment


@dataclass(frozen=True)
class Drained:
    """One measurement. Memory is the resident set of the dispatcher: at its start, with the backlog, at its peak."""

    mode: str
    backlog: int
    submitted_per_s: float
    drained_per_s: float
    dispatcher_start_mb: float
    dispatcher_queued_mb: float
    dispatcher_peak_mb: float

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def measure(mode: str, backlog: int) -> list[Drained]:
    """Drain a backlog of that size, several times when it is small. Each time on a fresh system."""
    return [_once(mode, backlog) for _ in range(SMALL_REPEATS if backlog <= SMALL else 1)]


def _once(mode: str, backlog: int) -> Drained:
    with without_workers(mode) as system, Api(system.url) as api:
        dispatcher = pids_of("dispatcher")[0]
        start_mb = _status_mb(dispatcher, "VmRSS")
        code = dill.dumps(lambda: None, recurse=True)
        function = str(api.post("/v1/functions", {"name": "no_op", "payload": code})["function_id"])
        _submit(api, function, WARM_TASKS)
        first, last = _submit(api, function, backlog)
        queued_mb = _status_mb(dispatcher, "VmRSS")
        with worker(mode, SLOTS, system.workers_url):
            _await(api, last)
            records = [api.get(f"/v1/tasks/{task_id}") for task_id in (first, *last)]
        submitted_s = (records[-1]["submitted_ms"] - records[0]["submitted_ms"]) / 1e3
        ended_ms = max(record["ended_ms"] for record in records[1:])
        drained_s = (ended_ms - records[0]["attempts"][0]["started_ms"]) / 1e3
        return Drained(
            mode=mode,
            backlog=backlog,
            submitted_per_s=backlog / submitted_s if submitted_s else float("nan"),
            drained_per_s=backlog / drained_s,
            dispatcher_start_mb=start_mb,
            dispatcher_queued_mb=queued_mb,
            dispatcher_peak_mb=_status_mb(dispatcher, "VmHWM"),
        )


def _submit(api: Api, function: str, count: int) -> tuple[str, list[str]]:
    """Queue tasks; return the id of the first and those of the last ones."""
    task = {"function_id": function, "payload": packed()}
    first = ""
    last: list[str] = []
    for begin in range(0, count, BATCH):
        ids = api.post("/v1/tasks:batch", {"tasks": [task] * min(BATCH, count - begin)})["task_ids"]
        first = first or ids[0]
        last = (last + ids)[-LAST:]
    return first, last


def _await(api: Api, ids: list[str]) -> None:
    """Wait until all have ended, however long the queue in front of them takes."""
    pending = ids
    while pending:
        answer = api.post("/v1/tasks:wait", {"task_ids": pending, "wait_s": WAIT_S, "results": False})
        if any(task["status"] != "COMPLETED" for task in answer["ended"]):
            raise RuntimeError("a task failed")
        ended = {task["task_id"] for task in answer["ended"]}
        pending = [task_id for task_id in pending if task_id not in ended]


def _status_mb(pid: int, field: str) -> float:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(f"{field}:")).split()[1]) * 1024 / 1e6
