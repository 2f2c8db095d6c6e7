"""Which tasks a list shows: the store's filters, and those that are put together from them."""

from __future__ import annotations

from typing import Final

import msgspec

from everfaas_core.api.openapi import Fields, invalid
from everfaas_core.model.ids import FunctionId
from everfaas_core.model.records import TaskFilter, TaskPage, TaskRecord
from everfaas_core.model.states import RETRIED, Cause, Status
from everfaas_core.ports import Store

PAGES_MAX: Final = 8  # of the store, for one page of dead letters: many failures may lie between two of them


def find_tasks(store: Store, query: Fields) -> TaskPage:
    """Return the page that a valid TaskQuery asks for. Raises InvalidRequest for a cursor that is none."""
    where = TaskFilter(
        status=Status(query["status"]) if "status" in query else None,
        cause=Cause(query["cause"]) if "cause" in query else None,
        function_id=FunctionId(query["function"]) if "function" in query else None,
        group=query.get("group"),
        tag=query.get("tag"),
    )
    cursor, limit = query.get("cursor"), query["limit"]
    try:
        if query.get("dead") == "true":
            return _find_dead(store, where, cursor, limit)
        return store.list_tasks(where, cursor, limit)
    except ValueError:
        raise invalid("the query", {"cursor": "Is not one that a page before this has given."}) from None


def _find_dead(store: Store, where: TaskFilter, cursor: str | None, limit: int) -> TaskPage:
    """Return dead letters among what matches: each page of the store is taken whole, so its cursor is ours."""
    if where.status not in (None, Status.FAILED):
        return TaskPage(tasks=(), cursor=None)
    where = msgspec.structs.replace(where, status=Status.FAILED)
    found: list[TaskRecord] = []
    for _ in range(PAGES_MAX):
        page = store.list_tasks(where, cursor, limit - len(found))
        found += [task for task in page.tasks if task.cause in RETRIED]
        cursor = page.cursor
        if cursor is None or len(found) == limit:
            break
    return TaskPage(tasks=tuple(found), cursor=cursor)
