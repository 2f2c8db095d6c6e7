"""The tasks of a group, whoever submitted them: for results that a client left behind."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import CancelledError
from typing import Any, Final

from everfaas_core.client.chunks import unpacked
from everfaas_core.client.errors import ApiFailed, ApiRefused
from everfaas_core.client.flow import CHUNK_TAG, NUMBER_TAG
from everfaas_core.client.http import Api, segment

PAGE: Final = 500
PAUSE_S: Final = 0.5
STREAM_S: Final = 60.0


class GroupTask:
    """A task of a group that has ended. `cursor` asks for those that ended after it.

    `number`: which call of its map it was, counted from 0; None if it was no map's.
    """

    def __init__(self, found: Mapping[str, Any], opened: Callable[[str, bytes], tuple[bool, Any]]) -> None:
        self.task_id: str = found["task_id"]
        self.status: str = found["status"]
        self.cursor: str = found["cursor"]
        self.tags: tuple[str, ...] = tuple(found.get("tags", ()))
        self._result: bytes = found["result"]
        self._opened = opened

    def __repr__(self) -> str:
        return f"<task {self.task_id}, {self.status}>"

    @property
    def number(self) -> int | None:
        """Which call of its map it was, or which chunk of calls."""
        words = [tag for tag in self.tags if tag.startswith((NUMBER_TAG, CHUNK_TAG))]
        return int(words[-1].partition(":")[2]) if words else None

    def values(self) -> Iterator[Any]:
        """Give what each of its calls returned, or raise what it raised: one, unless it was a chunk of calls."""
        value = self.result()
        if not any(tag.startswith(CHUNK_TAG) for tag in self.tags):
            yield value
            return
        yield from unpacked(value)

    def result(self) -> Any:
        """Return what the function returned, or raise what it raised (CancelledError if the task was cancelled)."""
        if self.status == "CANCELLED":
            raise CancelledError
        failed, value = self._opened(self.status, self._result)
        if failed:
            raise value
        return value


class Group:
    """The tasks that were submitted under one name. See `Client.attach`."""

    def __init__(self, api: Api, name: str, opened: Callable[[str, bytes], tuple[bool, Any]]) -> None:
        self._api = api
        self._opened = opened
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
                            yield GroupTask(one, self._opened)
                        elif one["end"] == "done":
                            return
            except ApiFailed as error:
                if isinstance(error, ApiRefused) and not error.passing:
                    raise
                away_since = away_since or time.monotonic()
                if time.monotonic() - away_since > patience_s:
                    raise
                time.sleep(PAUSE_S)

    def in_order(self, *, patience_s: float = 120.0) -> Iterator[Any]:
        """Give what the calls of a map returned, in their order; raise what one raised. Ends with the last one known.

        Of calls that were made twice (the map was begun again) the first end counts. What is not of a map is left out.
        A call that was never submitted, because the client died before, is passed over.
        """
        early: dict[int, GroupTask] = {}
        wanted = 0
        for task in self.results(patience_s=patience_s):
            number = task.number
            if number is None or number < wanted or number in early or task.status == "CANCELLED":
                continue
            early[number] = task
            while (following := early.pop(wanted, None)) is not None:
                wanted += 1
                yield from following.values()
        for number in sorted(early):
            yield from early[number].values()

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
