"""The built-in placement strategies keep the contract, and each its own word."""

from __future__ import annotations

import pytest

from everfaas_core.testing.strategy import F, G, StrategyContract, view
from everfaas_plugins.code_affinity import CodeAffinity
from everfaas_plugins.least_loaded import LeastLoaded
from everfaas_plugins.round_robin import RoundRobin


class TestLeastLoaded(StrategyContract):
    @pytest.fixture
    def make_strategy(self):
        return LeastLoaded

    def test_relative_load_decides(self, strategy):
        strategy.update(view("small", slots=2, credit=1, load=1))
        strategy.update(view("big", slots=16, credit=12, load=4))
        assert strategy.pick(F) == "big"

    def test_equals_take_turns(self, strategy):
        for name in "abc":
            strategy.update(view(name, credit=4))
        picked = []
        for _ in range(6):
            picked.append(strategy.pick(F))
            strategy.update(view(picked[-1], credit=4))
        assert picked == list("abcabc")

    def test_outdated_entries_do_not_pile_up(self, strategy):
        for turn in range(20_000):
            strategy.update(view(f"w{turn % 4}", credit=1 + turn % 3, load=turn % 3))
        assert len(strategy._index._heap) < 200


class TestRoundRobin(StrategyContract):
    @pytest.fixture
    def make_strategy(self):
        return RoundRobin

    def test_whoever_has_waited_longest_is_first(self, strategy):
        strategy.update(view("a", credit=1))
        strategy.update(view("b", credit=1))
        strategy.update(view("a", credit=0))
        strategy.update(view("a", credit=1))
        assert strategy.pick(F) == "b"


class TestCodeAffinity(StrategyContract):
    @pytest.fixture
    def make_strategy(self):
        return CodeAffinity

    def test_a_holder_of_the_code_is_preferred_though_it_is_busier(self, strategy):
        strategy.update(view("idle", credit=4, load=0))
        strategy.update(view("holder", credit=1, load=3))
        strategy.loaded("holder", F)
        assert strategy.pick(F) == "holder"
        assert strategy.pick(G) == "idle"

    def test_the_code_goes_elsewhere_when_its_holders_are_full(self, strategy):
        strategy.update(view("holder", credit=0, load=4))
        strategy.loaded("holder", F)
        strategy.update(view("idle", credit=4))
        assert strategy.pick(F) == "idle"

    def test_the_least_loaded_of_the_holders_is_picked(self, strategy):
        for name, load in [("a", 3), ("b", 1), ("c", 2)]:
            strategy.update(view(name, credit=4 - load, load=load))
            strategy.loaded(name, F)
        assert strategy.pick(F) == "b"
