"""From validated fields to task specs: for one task, or for a batch in one pass."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from marshmallow import ValidationError

from everfaas_core.api.errors import BadPayload, InvalidRequest
from everfaas_core.api.openapi import Fields, invalid
from everfaas_core.api.payloads import call_payload
from everfaas_core.api.schemas import TaskItem
from everfaas_core.model.ids import FunctionId, TaskId, is_id
from everfaas_core.model.records import TaskSpec

_REQUIRED: Final = frozenset({"function_id", "payload"})


def task_spec(task_id: TaskId, fields: Mapping[str, Any]) -> TaskSpec:
    """Make a spec of the fields of a valid TaskItem. Raises BadPayload."""
    options = {name: fields[name] for name in fields if name not in _REQUIRED and name != "wait_s"}
    for name in ("tags", "retry_on"):
        if name in options:
            options[name] = tuple(options[name])
    return TaskSpec(
        task_id=task_id,
        function_id=FunctionId(fields["function_id"]),
        payload=call_payload(fields["payload"]),
        **options,
    )


class BatchReader:
    """Checks the items of a batch in one pass: a schema's load for each would cost more than storing them."""

    def __init__(self) -> None:
        self._options = {name: field for name, field in TaskItem().fields.items() if name not in _REQUIRED}

    def specs(self, ids: Sequence[TaskId], items: Sequence[Any]) -> list[TaskSpec]:
        """Return the specs, in order. Raises InvalidRequest or BadPayload that name the index of the first bad item."""
        specs = []
        for index, (task_id, item) in enumerate(zip(ids, items, strict=True)):
            try:
                specs.append(self._spec(task_id, item, index))
            except BadPayload as error:
                message = f"task {index}: {error.message}"
                raise BadPayload(message, hint=error.hint, details={"index": index}) from None
        return specs

    def _spec(self, task_id: TaskId, item: Any, index: int) -> TaskSpec:
        if not isinstance(item, dict):
            raise _bad_item(index, {"_schema": "Is not an object."})
        function_id, payload = item.get("function_id"), item.get("payload")
        if not isinstance(function_id, str) or not is_id(function_id):
            raise _bad_item(index, {"function_id": "Is no id; ids are UUIDs."})
        if not isinstance(payload, (str, bytes)):
            raise _bad_item(index, {"payload": "Not a valid string."})
        if len(item) == len(_REQUIRED):
            return TaskSpec(task_id=task_id, function_id=FunctionId(function_id.lower()), payload=call_payload(payload))
        return task_spec(task_id, item | self._read_options(item, index) | {"function_id": function_id.lower()})

    def _read_options(self, item: Fields, index: int) -> Fields:
        options = {}
        for name in item.keys() - _REQUIRED:
            field = self._options.get(name)
            if field is None:
                raise _bad_item(index, {name: "Unknown field."})
            try:
                options[name] = field.deserialize(item[name], name, item)
            except ValidationError as error:
                raise _bad_item(index, {name: error.messages}) from None
        return options


def _bad_item(index: int, messages: Fields) -> InvalidRequest:
    return invalid(f"task {index} of the batch", messages, index=index)
