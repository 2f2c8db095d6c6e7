"""Local, pull and push keep the mode contract."""

from __future__ import annotations

import pytest

from everfaas_core.model.records import TaskDefaults
from everfaas_core.testing.mode import ModeContract, Parts
from everfaas_plugins import least_loaded, local, memory, pull, push, round_robin


class OnMemory(ModeContract):
    @pytest.fixture
    def store(self):
        (provider,) = memory.everfaas_stores()
        store = provider.factory("memory://", {}, TaskDefaults())
        yield store
        store.close()


class TestLocal(OnMemory):
    @pytest.fixture
    def parts(self):
        return Parts(*local.everfaas_modes(), *round_robin.everfaas_strategies())


class TestPull(OnMemory):
    @pytest.fixture
    def parts(self):
        return Parts(*pull.everfaas_modes(), *round_robin.everfaas_strategies(), *pull.everfaas_transports())


class TestPush(OnMemory):
    @pytest.fixture
    def parts(self):
        return Parts(*push.everfaas_modes(), *least_loaded.everfaas_strategies(), *push.everfaas_transports())
