"""The store contract on the memory store."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from everfaas_core.ports import Store
from everfaas_core.testing.store import StoreContract
from everfaas_plugins.memory.store import MemoryStore
from everfaas_plugins.memory.tables import Tables


class TestMemoryStore(StoreContract):
    @pytest.fixture
    def make_store(self) -> Callable[[], Store]:
        tables = Tables()
        return lambda: MemoryStore(tables)
