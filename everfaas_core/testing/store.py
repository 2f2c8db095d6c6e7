"""The contract of `ports.Store`, as tests. A plugin proves itself with a class that inherits StoreContract:

    class TestMyStore(StoreContract):
        @pytest.fixture
        def make_store(self):
            return lambda: MyStore(url_of_an_empty_store)

`make_store` returns another client of the same data each time it is called within one test.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from everfaas_core.ports import Store
from everfaas_core.testing.store_clients import ClientContract
from everfaas_core.testing.store_dispatch import DispatchContract
from everfaas_core.testing.store_groups import GroupContract
from everfaas_core.testing.store_history import HistoryContract
from everfaas_core.testing.store_large import LargeContract
from everfaas_core.testing.store_leases import LeaseContract
from everfaas_core.testing.store_output import OutputContract
from everfaas_core.testing.store_queues import QueueContract
from everfaas_core.testing.store_retries import RetryContract
from everfaas_core.testing.store_scene import Scene
from everfaas_core.testing.store_takeover import TakeoverContract
from everfaas_core.testing.store_wakeups import WakeupContract


class StoreContract(
    ClientContract,
    DispatchContract,
    LeaseContract,
    TakeoverContract,
    RetryContract,
    QueueContract,
    WakeupContract,
    GroupContract,
    HistoryContract,
    LargeContract,
    OutputContract,
):
    """All parts of the contract. Inherit, and define the fixture `make_store`."""

    @pytest.fixture
    def make_store(self) -> Callable[[], Store]:
        """To be defined by the plugin's test class."""
        raise NotImplementedError("define a fixture `make_store` in the class that inherits StoreContract")

    @pytest.fixture
    def store(self, make_store: Callable[[], Store]) -> Iterator[Store]:
        """One client, prepared."""
        store = make_store()
        store.prepare()
        yield store
        store.close()

    @pytest.fixture
    def other(self, make_store: Callable[[], Store]) -> Iterator[Store]:
        """A second client of the same data."""
        store = make_store()
        store.prepare()
        yield store
        store.close()

    @pytest.fixture
    def scene(self, store: Store) -> Scene:
        """The first client, with a hand for each role."""
        return Scene(store)
