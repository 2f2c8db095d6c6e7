"""Large payloads and results: each in a key of its own, so that its bytes are moved once, and no script sees them.

What goes through a script is copied into Lua, out of it, and into the append-only file once more; a plain SET and GET
take a third of the server's time. A large one is written before the script that makes it count, with a time to live
that this script takes away; whatever never comes to count goes by itself. It is read after the script that named it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from everfaas_core.model.ids import TaskId

from .records import CLAIMED_VALUES
from .server import Call, Server

BLOB_BYTES: Final = 256 * 1024
"""From this size on a payload, or a result, has a key of its own."""

ORPHAN_S: Final = 60
"""How long one may wait for the script that makes it count: far longer than an exchange takes, or it is sent again."""

_PAYLOAD_AT: Final = 2  # of the values that `describe` gives; the id is the first


def is_large(data: bytes) -> bool:
    """Tell whether these bytes have a key of their own."""
    return len(data) >= BLOB_BYTES


class Blobs:
    """Writes and reads them. What can't be written is not told of here: the script finds that it is not there."""

    def __init__(self, server: Server) -> None:
        self._server = server

    def payload_key(self, task_id: TaskId) -> str:
        """Return the key of a task's payload."""
        return f"{self._server.prefix}p:{task_id}"

    def result_key(self, task_id: TaskId, attempt: int) -> str:
        """Return the key of what an attempt came to. One that is stale has another key than the one that counts."""
        return f"{self._server.prefix}r:{task_id}:{attempt}"

    def put(self, blobs: Mapping[str, bytes]) -> None:
        """Write them, for ORPHAN_S at first. What is there stays, so a repeated call takes nothing away."""
        if blobs:
            self._server.commands([("SET", key, data, "EX", ORPHAN_S, "NX") for key, data in blobs.items()])

    def get(self, keys: Sequence[str]) -> list[bytes | None]:
        """Read them; None for what is not there (any more)."""
        replies = self._server.commands([("GET", key) for key in keys]) if keys else []
        for reply in replies:
            if isinstance(reply, Exception):
                raise self._server.explain(reply) from reply
        return replies

    def results(self, ids: Sequence[TaskId], rows: Sequence[Any]) -> list[bytes | None]:
        """Return results as a script gave them, and in place of each attempt the large one that it stands for."""
        results = list(rows)
        apart = [at for at, row in enumerate(rows) if isinstance(row, int)]
        keys = [self.result_key(ids[at], rows[at]) for at in apart]
        for at, data in zip(apart, self.get(keys), strict=True):
            results[at] = data
        return results

    def fill(self, calls: Sequence[Call], replies: Sequence[Any]) -> None:
        """Put the large payloads of claimed and adopted tasks into the replies of a turn, in place of their sizes.

        One that is not there leaves b"": its task has ended and was deleted since, so its start will be refused.
        """
        apart = [row for call, reply in zip(calls, replies, strict=True) for row in _rows(call.script, reply)]
        apart = [(values, at) for values, at in apart if isinstance(values[at + _PAYLOAD_AT], int)]
        keys = [self.payload_key(TaskId(values[at].decode())) for values, at in apart]
        for (values, at), data in zip(apart, self.get(keys), strict=True):
            values[at + _PAYLOAD_AT] = data or b""


def _rows(script: str, reply: Any) -> Iterator[tuple[list[Any], int]]:
    """Give each task that a reply describes: the list that it stands in, and where in it."""
    if script == "claim":
        for at in range(1, len(reply), CLAIMED_VALUES):
            yield reply, at
    elif script == "sweep":
        for at in range(1, len(reply), CLAIMED_VALUES + 2):
            yield reply, at + 2
    elif script == "adopt":
        for row in reply:
            if row is not None:
                yield row, 0
