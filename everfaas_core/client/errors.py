"""What can go wrong between a client and an API. Pure words; the exchange itself is in `http`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from everfaas_core.model.errors import EverfaasError


class ApiFailed(EverfaasError):
    """The API said no, or nothing at all. A command exits with status 1."""

    code = "api_failed"


class ApiUnreachable(ApiFailed):
    """Nobody answers at the API's address, or what answers is something else. A task that was accepted is safe."""

    code = "api_unreachable"


class ApiRefused(ApiFailed):
    """The API answered with an error. `status` is HTTP's, `reason` the API's stable code (docs/api.md, "Errors")."""

    code: ClassVar[str] = "api_refused"

    def __init__(
        self,
        message: str,
        *,
        status: int,
        reason: str = "",
        hint: str | None = None,
        details: Mapping[str, Any] | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message, hint=hint)
        self.status = status
        self.reason = reason
        self.details: Mapping[str, Any] = details or {}
        self.retry_after_s = retry_after_s

    @property
    def passing(self) -> bool:
        """Whether the same request may be answered later: the API is busy, or its store is away."""
        return self.status in (429, 503)


class TaskVanished(ApiFailed):
    """The API does not know a task (any more): its retention has passed, or its store was emptied."""

    code = "task_vanished"


class ClientClosed(EverfaasError, RuntimeError):
    """The client, or the executor, was shut down: it takes no more calls."""

    code = "client_closed"


class ShippingWarning(UserWarning):
    """A function travels, and may not do what its author expects where it runs. Given once for each version of it."""
