from __future__ import annotations

from collections.abc import Iterator

import pytest

from everfaas_core.api import ApiSettings
from everfaas_core.model.records import TaskDefaults
from everfaas_core.ports import Store
from everfaas_plugins.memory import everfaas_stores
from tests.api.driving import Served, TinyDispatcher


@pytest.fixture
def store() -> Iterator[Store]:
    (provider,) = everfaas_stores()
    made = provider.factory("memory", {}, TaskDefaults())
    made.prepare()
    yield made
    made.close()


@pytest.fixture
def api(store: Store) -> Iterator[Served]:
    with Served(store, ApiSettings(threads=16)) as served:
        yield served


@pytest.fixture
def dispatcher(store: Store) -> TinyDispatcher:
    return TinyDispatcher(store)
