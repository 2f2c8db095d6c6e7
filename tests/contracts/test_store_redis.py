"""The store contract on the embedded Valkey, and on the machine's Redis where there is one."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from everfaas_core.ports import Store
from everfaas_core.testing.store import StoreContract
from everfaas_plugins.redis.store import RedisStore


class TestValkey(StoreContract):
    @pytest.fixture
    def make_store(self, valkey_url: str, fresh: Callable[[str], str]) -> Callable[[], Store]:
        url = fresh(valkey_url)
        return lambda: RedisStore(url)


class TestRedis(StoreContract):
    @pytest.fixture
    def make_store(self, redis_url: str, fresh: Callable[[str], str]) -> Callable[[], Store]:
        url = fresh(redis_url)
        return lambda: RedisStore(url)
