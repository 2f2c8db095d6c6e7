"""One call on its way to the API."""

from __future__ import annotations

from typing import Any

from everfaas_core.client.slips import Waiter


class Call:
    """A submitted call. `fields` are those of a task beside function and payload; its idempotency key is among them."""

    __slots__ = ("asked_by_id", "fields", "function_id", "keyed", "payload", "waiter")

    def __init__(self, waiter: Waiter, function_id: str, payload: bytes, fields: dict[str, Any]) -> None:
        self.keyed = False  # its key is the user's: it may be a task that has ended long ago
        self.asked_by_id = False  # and one of another group
        self.waiter = waiter
        self.function_id = function_id
        self.payload = payload
        self.fields = fields

    @property
    def group(self) -> str | None:
        """The group whose stream brings the result."""
        return self.fields.get("group")

    def item(self) -> dict[str, Any]:
        """Return the task as the API wants it."""
        return {"function_id": self.function_id, "payload": self.payload, **self.fields}
