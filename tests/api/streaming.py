"""What the tests of streams read them with."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import msgspec
import requests

from tests.api.driving import CALL, Served, assert_fits

GROUP = "sweep 1"


def submit(api: Served, count: int, group: str = GROUP, **options: Any) -> list[str]:
    """Submit tasks of a group; return their ids."""
    item = {"function_id": api.register(), "payload": CALL, "group": group, **options}
    ids: list[str] = []
    while len(ids) < count:
        answer = api.post("/v1/tasks:batch", {"tasks": [item] * min(count - len(ids), 5000)})
        assert answer.status_code == 201, answer.text
        ids += answer.json()["task_ids"]
    return ids


class Stream:
    """One stream of JSON lines, read with `requests`."""

    def __init__(self, api: Served, group: str = GROUP, **query: Any) -> None:
        path = requests.utils.quote(group, safe="")  # type: ignore[attr-defined]  # it is there
        self.response = requests.get(f"{api.url}/v1/groups/{path}/results", query, stream=True, timeout=30)
        assert self.response.status_code == 200, self.response.text
        assert self.response.headers["Content-Type"] == "application/x-ndjson"
        self.blanks = 0
        self.cursor: str | None = None
        self.last: dict[str, Any] | None = None
        self._lines = self.response.iter_lines(chunk_size=65536)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Yield the results; the object that says why it is the last is `last`."""
        for line in self._lines:
            if not line:
                self.blanks += 1
                continue
            entry = json.loads(line)
            assert_fits("GroupLine", entry)
            self.cursor = entry["cursor"]
            if "end" in entry:
                self.last = entry
                assert not list(self._lines), "it is the last one"
                return
            yield entry

    def ids(self, count: int | None = None) -> list[str]:
        """Return the ids of the next `count` results, or of all there are until it ends."""
        found: list[str] = []
        for entry in self:
            found.append(entry["task_id"])
            if len(found) == count:
                break
        return found

    def end(self) -> str:
        """Read to the end; return why it ended."""
        for _ in self:
            pass
        assert self.last is not None, "it was cut"
        return str(self.last["end"])

    def close(self) -> None:
        self.response.close()


def read_msgpack(response: requests.Response) -> list[Any]:
    """Return the objects of a stream of msgpack, which is read to its end."""
    found = []
    rest = response.content
    while rest:
        for size in range(1, len(rest) + 1):  # msgspec tells a whole object from a part of one
            try:
                found.append(msgspec.msgpack.decode(rest[:size]))
            except msgspec.DecodeError:
                continue
            rest = rest[size:]
            break
        else:
            raise AssertionError("it ends within an object")
    return found
