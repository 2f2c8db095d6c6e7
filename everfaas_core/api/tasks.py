"""Tasks: submit one or many, look at them, cancel them."""

from __future__ import annotations

import logging
from typing import Final

import flask

from everfaas_core.api.answers import (
    BatchAnswer,
    CancelAnswer,
    StatusAnswer,
    SubmitAnswer,
    TaskAnswer,
    TaskList,
    TaskRetried,
)
from everfaas_core.api.classic import result_body
from everfaas_core.api.context import ApiContext, body_task_ids, client_gone, path_task_id
from everfaas_core.api.errors import NotRetryable
from everfaas_core.api.listing import find_tasks
from everfaas_core.api.negotiation import answer
from everfaas_core.api.openapi import Fields, Resource
from everfaas_core.api.schemas import BatchBody, CancelBody, TaskBody, TaskQuery
from everfaas_core.api.submission import BatchReader, task_spec
from everfaas_core.model.errors import StoreUnavailable
from everfaas_core.model.ids import TaskId
from everfaas_core.model.records import ResultRecord, TaskSpec
from everfaas_core.model.states import TERMINAL, Status

CANCELLED_AT_ONCE: Final = 1_000  # tasks in one call of the store, which does nothing else meanwhile

_log = logging.getLogger(__name__)


class TaskRoutes:
    """`/v1/tasks`."""

    def __init__(self, context: ApiContext) -> None:
        self._context = context
        self._batches = BatchReader()

    def resource(self) -> Resource:
        """Return the calls."""
        routes = Resource("tasks", __name__, description="Requested calls: submit, list, look, cancel.")
        routes.call(
            "POST",
            "/v1/tasks",
            self.submit_task,
            body=TaskBody,
            returns=SubmitAnswer,
            status=201,
            errors=(400, 404, 409, 429),
        )
        routes.call(
            "POST",
            "/v1/tasks:batch",
            self.submit_batch,
            body=BatchBody,
            returns=BatchAnswer,
            status=201,
            errors=(400, 404, 409, 429),
        )
        routes.call("POST", "/v1/tasks:cancel", self.cancel_tasks, body=CancelBody, returns=CancelAnswer)
        routes.call("GET", "/v1/tasks", self.list_tasks, query=TaskQuery, returns=TaskList)
        routes.call("GET", "/v1/tasks/<task_id>", self.get_task, returns=TaskAnswer, errors=(404, 410))
        routes.call("POST", "/v1/tasks/<task_id>/cancel", self.cancel_task, returns=StatusAnswer, errors=(404, 410))
        routes.call(
            "POST",
            "/v1/tasks/<task_id>/retry",
            self.retry_task,
            returns=TaskRetried,
            status=201,
            errors=(404, 409, 410),
        )
        return routes

    def submit_task(self, body: Fields) -> flask.Response:
        """Submit one task, and perhaps wait for its result.

        With `wait_s` the answer has `status` and `result`, as `GET /result/<id>?wait=` would give them. When no place
        for a waiting request is free, or the store went away after it had accepted, it has the id only: go on there.
        """
        context = self._context
        spec = task_spec(context.ids.new(1)[0], body)
        wait_s = context.waiting.bounded_s(body["wait_s"])
        if wait_s == 0:
            return answer({"task_id": self._submit(spec)}, 201)
        with context.waiting.permit() as allowed:
            if not allowed:
                return answer({"task_id": self._submit(spec)}, 201)
            return answer(self._submit_and_wait(spec, wait_s), 201)

    def submit_batch(self, body: Fields) -> flask.Response:
        """Submit many tasks at once: all, or none.

        The ids in the answer are in the order of the tasks.
        """
        context, items = self._context, body["tasks"]
        specs = self._batches.specs(context.ids.new(len(items)), items)
        return answer({"task_ids": context.store.submit(specs, context.settings.queue_max)}, 201)

    def list_tasks(self, query: Fields) -> flask.Response:
        """List tasks, newest first, a page at a time.

        A page may be short and still have a cursor; the last page has none.
        """
        page = find_tasks(self._context.store, query)
        return answer({"tasks": page.tasks, "cursor": page.cursor})

    def get_task(self, task_id: str) -> flask.Response:
        """Return the whole record of a task: every attempt, its worker and times, and why it ended."""
        known_id = path_task_id(task_id)
        record = self._context.store.tasks([known_id])[0]
        if record is None:
            raise self._context.absent(known_id)
        return answer(record)

    def cancel_tasks(self, body: Fields) -> flask.Response:
        """Cancel many tasks; with `running: false` only those that do not run.

        The answer has the status of each after this call: a RUNNING task becomes CANCELLED a moment later. Ids that the
        store does not have are listed as `unknown` (never issued) or `expired`.
        """
        ids = body_task_ids(body["task_ids"])
        statuses: dict[TaskId, str | None] = {}
        for at in range(0, len(ids), CANCELLED_AT_ONCE):
            some = ids[at : at + CANCELLED_AT_ONCE]
            statuses.update(zip(some, self._context.store.cancel(some, running=body["running"]), strict=True))
        unknown, expired = self._context.split_absent([one for one, status in statuses.items() if status is None])
        tasks = [{"task_id": one, "status": status} for one, status in statuses.items() if status is not None]
        return answer({"tasks": tasks, "unknown": unknown, "expired": expired})

    def cancel_task(self, task_id: str) -> flask.Response:
        """Cancel a task: at once when it is queued, by killing its slot when it runs.

        Repeating it changes nothing, and a task that has ended stays as it is. The answer has the status after this
        call: a RUNNING task becomes CANCELLED a moment later.
        """
        known_id = path_task_id(task_id)
        status = self._context.store.cancel([known_id])[0]
        if status is None:
            raise self._context.absent(known_id)
        return answer({"task_id": known_id, "status": status})

    def retry_task(self, task_id: str) -> flask.Response:
        """Run the call of a task that has FAILED or was CANCELLED once more.

        What has ended never changes, so this makes a new task: same function, payload and options, at once, without
        the deadline and the idempotency key. Its record names the old one as `retry_of`.
        """
        known_id = path_task_id(task_id)
        store = self._context.store
        new_id = store.retry(known_id, self._context.ids.new(1)[0])
        if new_id is None:
            raise self._context.absent(known_id)
        if new_id == known_id:
            raise NotRetryable(
                f"task {known_id} has not ended as FAILED or CANCELLED: it is {store.statuses([known_id])[0]}",
                hint="submit its call again as a new task, or cancel it first",
            )
        return answer({"task_id": new_id, "retry_of": known_id}, 201)

    def _submit(self, spec: TaskSpec) -> TaskId:
        return self._context.store.submit([spec], self._context.settings.queue_max)[0]

    def _submit_and_wait(self, spec: TaskSpec, wait_s: float) -> Fields:
        """Submit as somebody who has a permit to wait. The waiter is registered first, so no read is needed before."""
        context = self._context
        with context.hub.waiter([spec.task_id]) as waiter:
            task_id = self._submit(spec)
            known = ResultRecord(task_id=task_id, status=Status.QUEUED)

            def read(_: object = None) -> bool:
                nonlocal known
                known = waiter.told or context.store.results([task_id])[0] or known
                return known.status in TERMINAL

            try:
                if task_id == spec.task_id:
                    context.waiting.follow(waiter, wait_s, read, client_gone)
                elif not read():  # its idempotency key is that of an earlier task
                    with context.hub.waiter([task_id]) as earlier:
                        context.waiting.follow(earlier, wait_s, read, client_gone)
            except StoreUnavailable as error:
                _log.warning("accepted %s, and the store went away: %s", task_id, error)
                return {"task_id": task_id}
        return dict(result_body(known))
