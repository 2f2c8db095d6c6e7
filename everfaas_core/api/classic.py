"""v0: the calls that any `requests` + `dill` script makes. Their shapes never change."""

from __future__ import annotations

import time
from typing import Final

import flask

from everfaas_core.api.answers import FunctionRegistered, ResultAnswer, StatusAnswer, TaskAccepted
from everfaas_core.api.context import ApiContext, client_gone, path_task_id
from everfaas_core.api.functions import register
from everfaas_core.api.negotiation import answer, result_field
from everfaas_core.api.openapi import Fields, Resource
from everfaas_core.api.schemas import ClassicFunctionBody, ClassicTaskBody, ResultQuery
from everfaas_core.api.submission import task_spec
from everfaas_core.model.ids import TaskId, submitted_ms
from everfaas_core.model.records import FunctionOptions, ResultRecord
from everfaas_core.model.states import TERMINAL

YOUNG_S: Final = 0.05
GRACE_S: Final = 0.005
"""A task that was submitted so short a time ago may end any moment: who asks for its result right after the submit, as
scripts do that poll, is answered so much later if that spares it another poll. Whoever polls many tasks, or long ones,
is answered at once."""


class ClassicRoutes:
    """The four calls, and the alias of the last."""

    def __init__(self, context: ApiContext) -> None:
        self._context = context

    def resource(self) -> Resource:
        """Return the calls."""
        routes = Resource("v0", __name__, description="Register, execute, poll: the contract that never breaks.")
        routes.call(
            "POST",
            "/register_function",
            self.register_function,
            body=ClassicFunctionBody,
            returns=FunctionRegistered,
            status=201,
            errors=(400,),
        )
        routes.call(
            "POST",
            "/execute_function",
            self.execute_function,
            body=ClassicTaskBody,
            returns=TaskAccepted,
            status=201,
            errors=(400, 404, 429),
        )
        routes.call("GET", "/status/<task_id>", self.get_status, returns=StatusAnswer, errors=(404, 410))
        routes.call(
            "GET",
            ("/result/<task_id>", "/api/v1/result/<task_id>"),
            self.get_result,
            query=ResultQuery,
            returns=ResultAnswer,
            errors=(404, 410, 429),
        )
        return routes

    def register_function(self, body: Fields) -> flask.Response:
        """Register a function."""
        function_id, _ = register(self._context.store, body["name"], body["payload"], FunctionOptions())
        return answer({"function_id": function_id}, 201)

    def execute_function(self, body: Fields) -> flask.Response:
        """Call a function: queue a task."""
        context = self._context
        spec = task_spec(context.ids.new(1)[0], body)
        task_ids = context.store.submit([spec], context.settings.queue_max)
        return answer({"task_id": task_ids[0]}, 201)

    def get_status(self, task_id: str) -> flask.Response:
        """Return a task's status."""
        known_id = path_task_id(task_id)
        status = self._context.store.statuses([known_id])[0]
        if status is None:
            raise self._context.absent(known_id)
        return answer({"task_id": known_id, "status": status})

    def get_result(self, task_id: str, query: Fields) -> flask.Response:
        """Return a task's status and result.

        With `wait`, the answer comes as soon as the task has ended, or with its present status when the time is over.
        Without, it comes at once; for a task submitted in the last 50 ms, some ms later at most if it ends meanwhile.
        """
        context = self._context
        known_id = path_task_id(task_id)
        found: list[ResultRecord] = []

        def read(_: object) -> bool:
            record = context.store.results([known_id])[0]
            if record is None:
                raise context.absent(known_id)
            found[:] = [record]
            return record.status in TERMINAL

        if query["wait"] or time.time() - submitted_ms(known_id) / 1000 > YOUNG_S:
            context.waiting.until([known_id], query["wait"], read, client_gone)
        else:
            context.waiting.until([known_id], GRACE_S, read, client_gone, owed=False)
        return answer(result_body(found[0]))


def result_body(record: ResultRecord) -> dict[str, TaskId | str | bytes]:
    """Return the body of a result's answer."""
    return {"task_id": record.task_id, "status": record.status, "result": result_field(record.result)}
