"""The store in this process's memory: for tests, and for `everfaas up` without anything that lasts.

    --store memory

It keeps the same contract as every other store, but nothing survives the process, and all roles must run in it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from everfaas_core.hookspecs import Options, StoreProvider, hookimpl
from everfaas_core.model.records import TaskDefaults
from everfaas_core.ports import Store

from .store import MemoryStore
from .tables import Tables

EVERFAAS_API_VERSION: Final = 1


def make_store(url: str, options: Options, defaults: TaskDefaults) -> Store:
    """Make an empty store; `url` and `options` say nothing that it could need."""
    return MemoryStore(Tables(), defaults)


@hookimpl
def everfaas_stores() -> Iterable[StoreProvider]:
    """Offer the store."""
    summary = "in this process's memory; gone when it ends"
    return [StoreProvider(name="memory", summary=summary, factory=make_store, shared=False)]
