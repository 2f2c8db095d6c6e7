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
    from everfaas_core.client.errors import ApiFailed, ApiRefused, ApiUnreachable, ClientClosed, TaskVanished
    from everfaas_core.client.executor import Executor
    from everfaas_core.client.function import Function, function
    from everfaas_core.client.futures import Future
    from everfaas_core.client.group import Group, GroupTask
    from everfaas_core.model.errors import EverfaasError

__all__ = [
    "ApiFailed",
    "ApiRefused",
    "ApiUnreachable",
    "AsyncClient",
    "Client",
    "ClientClosed",
    "EverfaasError",
    "Executor",
    "Function",
    "Future",
    "Group",
    "GroupTask",
    "TaskVanished",
    "__version__",
    "function",
]

_HOMES: Final = {
    "AsyncClient": "client.aio",
    "Client": "client.client",
    "ApiFailed": "client.errors",
    "ApiRefused": "client.errors",
    "ApiUnreachable": "client.errors",
    "ClientClosed": "client.errors",
    "TaskVanished": "client.errors",
    "Executor": "client.executor",
    "Function": "client.function",
    "function": "client.function",
    "Future": "client.futures",
    "Group": "client.group",
    "GroupTask": "client.group",
    "EverfaasError": "model.errors",
}


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(importlib.import_module(f"{__name__}.{home}"), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
