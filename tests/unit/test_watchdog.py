"""A dispatcher that is connected and does not consume ends itself, loudly; one that merely waits does not."""

from __future__ import annotations

import logging

import pytest

from everfaas_core.model.records import TaskDefaults
from everfaas_core.runtime import dispatcher as module
from everfaas_core.runtime.watchdog import CHECKS, Watchdog
from everfaas_core.testing.house import House
from everfaas_plugins import local, memory, round_robin


def test_it_barks_when_tasks_have_been_ready_all_along() -> None:
    watchdog = Watchdog(30.0)
    barks = [watchdog.starved(now, lambda: 5) for now in range(100, 135)]
    assert barks.index(True) == 30
    assert not any(barks[:30])


def test_being_fed_calms_it() -> None:
    watchdog = Watchdog(30.0)
    for now in range(100, 200):
        if now % 12 == 0:
            watchdog.fed()
        assert not watchdog.starved(now, lambda: 5)


def test_an_empty_store_is_no_reason() -> None:
    watchdog = Watchdog(30.0)
    asked: list[int] = []

    def ready() -> int:
        asked.append(1)
        return 0 if len(asked) % CHECKS else 7

    assert not any(watchdog.starved(now, ready) for now in range(100, 1000))
    assert len(asked) == 89, "the store is asked every ten seconds, not more"


@pytest.fixture
def store():
    (provider,) = memory.everfaas_stores()
    store = provider.factory("memory", {}, TaskDefaults())
    yield store
    store.close()


def test_a_dispatcher_that_is_given_nothing_ends_with_status_1(store, monkeypatch, caplog) -> None:
    class Sly:
        """Answers everything, and never gives a task away."""

        def __getattr__(self, name):
            return getattr(store, name)

        def exchange(self, turn):
            return store.exchange(type(turn)(**{**{f: getattr(turn, f) for f in turn.__struct_fields__}, "claim": 0}))

    monkeypatch.setattr(module, "Watchdog", lambda: Watchdog(1.0))
    house = House(Sly(), *local.everfaas_modes(), *round_robin.everfaas_strategies(), slots=1)
    with caplog.at_level(logging.CRITICAL), house:
        house.submit(house.register(lambda: None), ())
        thread, _ = house._threads[0]
        thread.join(30)
        assert not thread.is_alive()
    assert "the store gives us none" in caplog.text
