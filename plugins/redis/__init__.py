"""The store on a Redis (7.0 or later) or Valkey (7.2 or later) server: one server, no cluster.

    --store redis://[[USER]:PASSWORD@]HOST[:PORT][/DB][?prefix=ef:]
    --store rediss://…?ssl_ca_certs=FILE            (TLS)
    --store unix://[[USER]:PASSWORD@]/PATH[?db=N]

Several installations can share one server when each has a `prefix` of its own.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from everfaas_core.hookspecs import Options, StoreProvider, hookimpl
from everfaas_core.model.records import TaskDefaults
from everfaas_core.ports import Store

EVERFAAS_API_VERSION: Final = 1


def make_store(url: str, options: Options, defaults: TaskDefaults) -> Store:
    """Make a store for `url`, not yet connected. Raises ConfigError for a bad one."""
    from .store import RedisStore  # here, because redis-py takes 0.1 s to import

    return RedisStore(url, defaults)


@hookimpl
def everfaas_stores() -> Iterable[StoreProvider]:
    """Offer the store."""
    return [StoreProvider(name="redis", summary="a Redis or Valkey server", factory=make_store)]
