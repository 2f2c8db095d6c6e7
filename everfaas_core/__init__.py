"""EverythingFaaS: functions as a service for Python, on your own machines.

    from everfaas_core import Client, Executor, function

Names are imported when they are first used, so `import everfaas_core` costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, Final

from everfaas_core.version import __version__

if TYPE_CHECKING:
    from everfaas_core.client.aio import AsyncClient
    from everfaas_core.client.client import Client
    from everfaas_core.client.errors import (
        ApiFailed,
        ApiRefused,
        ApiUnreachable,
        ClientClosed,
        ShippingWarning,
        TaskVanished,
    )
    from everfaas_core.client.executor import Executor
    from everfaas_core.client.function import Function, function
    from everfaas_core.client.futures import Future
    from everfaas_core.client.group import Group, GroupTask
    from everfaas_core.client.joblib_registration import register_joblib
    from everfaas_core.inside import progress
    from everfaas_core.model.errors import EverfaasError
    from everfaas_core.model.failure import (
        DeadlineExceeded,
        DispatcherLost,
        NotLoadable,
        NotSerializable,
        RaisedUnsendable,
        SlotCrashed,
        TaskCancelled,
        WorkerFailure,
        WorkerLost,
    )
    from everfaas_core.shipping.trouble import NotShippable, ResultUnreadable

__all__ = [
    "ApiFailed",
    "ApiRefused",
    "ApiUnreachable",
    "AsyncClient",
    "Client",
    "ClientClosed",
    "DeadlineExceeded",
    "DispatcherLost",
    "EverfaasError",
    "Executor",
    "Function",
    "Future",
    "Group",
    "GroupTask",
    "NotLoadable",
    "NotSerializable",
    "NotShippable",
    "RaisedUnsendable",
    "ResultUnreadable",
    "ShippingWarning",
    "SlotCrashed",
    "TaskCancelled",
    "TaskVanished",
    "WorkerFailure",
    "WorkerLost",
    "__version__",
    "function",
    "progress",
    "register_joblib",
]

_HOMES: Final = {  # name → where it lives
    "AsyncClient": "client.aio",
    "Client": "client.client",
    "ApiFailed": "client.errors",
    "ApiRefused": "client.errors",
    "ApiUnreachable": "client.errors",
    "ClientClosed": "client.errors",
    "ShippingWarning": "client.errors",
    "TaskVanished": "client.errors",
    "Executor": "client.executor",
    "Function": "client.function",
    "function": "client.function",
    "Future": "client.futures",
    "Group": "client.group",
    "GroupTask": "client.group",
    "progress": "inside",
    "register_joblib": "client.joblib_registration",
    "EverfaasError": "model.errors",
    "DeadlineExceeded": "model.failure",
    "DispatcherLost": "model.failure",
    "NotLoadable": "model.failure",
    "NotSerializable": "model.failure",
    "RaisedUnsendable": "model.failure",
    "SlotCrashed": "model.failure",
    "TaskCancelled": "model.failure",
    "WorkerFailure": "model.failure",
    "WorkerLost": "model.failure",
    "NotShippable": "shipping.trouble",
    "ResultUnreadable": "shipping.trouble",
}


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(importlib.import_module(f"{__name__}.{home}"), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
