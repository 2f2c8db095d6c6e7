"""`tasks:wait`: one request that waits for many tasks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import flask

from everfaas_core.api.answers import WaitAnswer
from everfaas_core.api.classic import result_body
from everfaas_core.api.context import ApiContext, body_task_ids, client_gone
from everfaas_core.api.negotiation import answer
from everfaas_core.api.openapi import Fields, Resource
from everfaas_core.api.schemas import WaitBody
from everfaas_core.api.settings import WAIT_BYTES_MAX
from everfaas_core.model.ids import TaskId
from everfaas_core.model.records import ResultRecord
from everfaas_core.model.states import TERMINAL
from everfaas_core.ports import Store

# How many results are read at once: few until they are seen to be small, so that memory stays near WAIT_BYTES_MAX.
FIRST_READ: Final = 16
READ_MAX: Final = 1024
SMALL_BYTES: Final = 16 * 1024  # results of this size on average count as small


class WaitRoutes:
    """`/v1/tasks:wait`."""

    def __init__(self, context: ApiContext) -> None:
        self._context = context

    def resource(self) -> Resource:
        """Return the call."""
        routes = Resource("results", __name__, description="Wait for many tasks with one request.")
        routes.call("POST", "/v1/tasks:wait", self.wait_for_tasks, body=WaitBody, returns=WaitAnswer, errors=(429,))
        return routes

    def wait_for_tasks(self, body: Fields) -> flask.Response:
        """Answer as soon as any of the tasks has ended, with those that have.

        Ids that the store does not have are listed as `unknown` (never issued) or `expired`, and not waited for. Call
        it again with the ids that were in none of the lists.
        """
        context = self._context
        ids = body_task_ids(body["task_ids"])
        tally = Tally(context.store, ids)
        context.waiting.until(ids, body["wait_s"], tally.read, client_gone)
        unknown, expired = context.split_absent(tally.absent)
        records, more = tally.ended(with_results=body["results"])
        ended = [result_body(record) for record in records]
        if not body["results"]:
            for entry in ended:
                del entry["result"]
        return answer({"ended": ended, "pending": tally.pending, "more": more, "unknown": unknown, "expired": expired})


class Tally:
    """What is known of the tasks that one request waits for."""

    def __init__(self, store: Store, ids: Sequence[TaskId]) -> None:
        self._store = store
        self._statuses: dict[TaskId, str | None] = dict.fromkeys(ids, "")

    def read(self, ids: Sequence[TaskId]) -> bool:
        """Read some statuses; tell whether there is something to answer, or nothing to wait for."""
        self._statuses.update(zip(ids, self._store.statuses(ids), strict=True))
        return self.pending < len(self._statuses) - len(self.absent) or not self.pending

    @property
    def absent(self) -> list[TaskId]:
        """Ids that the store does not have."""
        return [task_id for task_id, status in self._statuses.items() if status is None]

    @property
    def pending(self) -> int:
        """How many have not ended."""
        return sum(status is not None and status not in TERMINAL for status in self._statuses.values())

    def ended(self, *, with_results: bool) -> tuple[list[ResultRecord], bool]:
        """Return those that have ended, and whether there are more than fit into one answer."""
        ids = [task_id for task_id, status in self._statuses.items() if status in TERMINAL]
        if not with_results:
            return [ResultRecord(task_id=item, status=self._statuses[item]) for item in ids], False  # type: ignore[arg-type]  # of TERMINAL
        records: list[ResultRecord] = []
        size_bytes, at, count = 0, 0, FIRST_READ
        while at < len(ids):
            for record in self._store.results(ids[at : at + count]):
                if record is None:  # expired since; the next call says so
                    continue
                size_bytes += len(record.result)
                if records and size_bytes > WAIT_BYTES_MAX:
                    return records, True
                records.append(record)
            at += count
            count = min(count * 4, READ_MAX) if size_bytes <= SMALL_BYTES * at else FIRST_READ
        return records, False
