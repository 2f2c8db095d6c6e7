"""The tasks of a group, whoever submitted them: for results that a client left behind."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any, Final

from everfaas_core.client.errors import ApiFailed, ApiRefused
from everfaas_core.client.http import Api, segment

PAGE: Final = 500
PAUSE_S: Final = 0.5
STREAM_S: Final = 60.0


class GroupTask:
    """A task of a group that has ended. `cursor` asks for those that ended after it."""

    def __init__(self, task_id: str, status: str, result: bytes, cursor: str, load: Callable[[bytes], Any]) -> None:
        self.task_id = task_id
        self.status = status
        self.cursor = cursor
        self._result = result
        self._load = load

    def __repr__(self) -> str:
        return f"<task {self.task_id}, {self.status}>"

    def result(self) -> Any:
        """Return what the function returned, or raise what it raised (CancelledError if the task was cancelled)."""
        if self.status == "CANCELLED":
            from concurrent.futures import CancelledError

            raise CancelledError
        value = self._load(self._result)
        if self.status == "COMPLETED":
            return value
        raise value


class Group:
    """The tasks that were submitted under one name. See `Client.attach`."""

    def __init__(self, api: Api, name: str, load: Callable[[bytes], Any]) -> None:
        self._api = api
        self._load = load
        self.name = name

    def __repr__(self) -> str:
        return f"<group {self.name!r} at {self._api.url}>"

    def __iter__(self) -> Iterator[GroupTask]:
        return self.results()

    def results(self, *, cursor: str | None = None, patience_s: float = 120.0) -> Iterator[GroupTask]:
        """Give each task of the group once, in the order in which they end, until none is left that has not ended.

        Begins behind `cursor`, that of a task given before, perhaps to another process. A connection that breaks is
        made again for up to `patience_s` seconds; then raises ApiFailed.
        """
        away_since: float | None = None
        while True:
            try:
                with self._api.stream(
                    f"/v1/groups/{segment(self.name)}/results",
                    {"until": "done", "cursor": cursor, "wait_s": STREAM_S},
                ) as stream:
                    for one in stream:
                        if one is None:
                            continue
                        away_since = None
                        cursor = one["cursor"]
                        if "task_id" in one:
                            yield GroupTask(one["task_id"], one["status"], one["result"], one["cursor"], self._load)
                        elif one["end"] == "done":
                            return
            except ApiFailed as error:
                if isinstance(error, ApiRefused) and not error.passing:
                    raise
                away_since = away_since or time.monotonic()
                if time.monotonic() - away_since > patience_s:
                    raise
                time.sleep(PAUSE_S)

    def records(self) -> Iterator[dict[str, Any]]:
        """Give the record of each task, newest first, ended or not (docs/api.md). Raises ApiFailed."""
        cursor = None
        while True:
            page = self._api.get("/v1/tasks", {"group": self.name, "limit": PAGE, "cursor": cursor})
            yield from page["tasks"]
            cursor = page["cursor"]
            if cursor is None:
                return

    def cancel(self) -> int:
        """Cancel what has not ended; return how many tasks that were. Raises ApiFailed."""
        ids = [record["task_id"] for record in self.records() if record["status"] in ("QUEUED", "RUNNING")]
        cancelled = 0
        for at in range(0, len(ids), PAGE):
            tasks = self._api.post("/v1/tasks:cancel", {"task_ids": ids[at : at + PAGE]})["tasks"]
            cancelled += sum(task["status"] in ("RUNNING", "CANCELLED") for task in tasks)
        return cancelled
