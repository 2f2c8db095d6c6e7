"""What the views of one API process share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import flask

from everfaas_core.api.crew import Crew
from everfaas_core.api.errors import NoSuchFunction, NoSuchTask, NoSuchWorker, TaskExpired
from everfaas_core.api.hub import Hub
from everfaas_core.api.issuing import TaskIds
from everfaas_core.api.openapi import invalid
from everfaas_core.api.security import Guard
from everfaas_core.api.settings import ApiSettings
from everfaas_core.api.waiting import Waiting
from everfaas_core.model.ids import FunctionId, TaskId, WorkerId, is_id
from everfaas_core.ports import Store

WORKER_ID_CHARS_MAX = 200
EXTENSION = "everfaas"
"""The key in `app.extensions` under which the server finds the context of its application."""


@dataclass(frozen=True)
class ApiContext:
    """Made by `create_app`; handed to every group of routes."""

    store: Store
    settings: ApiSettings
    hub: Hub
    waiting: Waiting
    guard: Guard
    ids: TaskIds
    crew: Crew

    def absent(self, absent_id: TaskId) -> NoSuchTask | TaskExpired:
        """Return the error for a task that the store does not have: it never had it (404), or no longer (410)."""
        if self.ids.issued(absent_id):
            return TaskExpired(
                f"task {absent_id} has ended, and the time for which its result was kept is over",
                hint="result_ttl_s of a task or function says how long results are kept",
            )
        return NoSuchTask(f"there is no task {absent_id}")

    def split_absent(self, ids: Sequence[TaskId]) -> tuple[list[TaskId], list[TaskId]]:
        """Sort ids that the store does not have into unknown and expired ones."""
        expired = [item for item in ids if self.ids.issued(item)]
        gone = frozenset(expired)
        return [item for item in ids if item not in gone], expired


def path_task_id(text: str) -> TaskId:
    """Return the task id in a path. Raises NoSuchTask when it can't be one."""
    if not is_id(text):
        raise NoSuchTask("that is no task id", hint="a task id is a UUID, as a submit returned it")
    return TaskId(text.lower())


def body_task_ids(sent: Sequence[object]) -> list[TaskId]:
    """Return the ids in a body, in lower case, each once. Raises InvalidRequest: it has the index of what is no id."""
    for index, item in enumerate(sent):
        if not isinstance(item, str) or not is_id(item):
            raise invalid("the body", {"task_ids": f"Item {index} is no id; ids are UUIDs."}, index=index)
    return list(dict.fromkeys(TaskId(str(item).lower()) for item in sent))


def path_function_id(text: str) -> FunctionId:
    """Return the function id in a path. Raises NoSuchFunction when it can't be one."""
    if not is_id(text):
        raise NoSuchFunction("that is no function id", hint="a function id is a UUID, as registering it returned it")
    return FunctionId(text.lower())


def path_worker_id(text: str) -> WorkerId:
    """Return the worker id in a path. Raises NoSuchWorker when it can't be one."""
    if len(text) > WORKER_ID_CHARS_MAX or not text.isprintable():
        raise NoSuchWorker("that is no worker id", hint="GET /v1/workers lists them")
    return WorkerId(text)


def client_gone() -> bool:
    """Tell whether the client of this request has closed its connection, as far as the server knows."""
    return gone_check()()


def gone_check() -> Callable[[], bool]:
    """Return what `client_gone` asks, for use outside of the request's context, as streams have to."""
    check = flask.request.environ.get("waitress.client_disconnected")
    return lambda: bool(check is not None and check())
