"""What every placement strategy must do. A plugin proves itself in three lines:

class TestMine(StrategyContract):
    @pytest.fixture
    def make_strategy(self): return MyStrategy
"""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from everfaas_core.model.ids import FunctionId, WorkerId
from everfaas_core.ports import Strategy, WorkerView

F = FunctionId("f")
G = FunctionId("g")


def view(name: str, *, credit: int, slots: int = 4, load: int = 0) -> WorkerView:
    """Make a worker as a strategy sees it."""
    return WorkerView(WorkerId(name), slots, credit, load)


class StrategyContract:
    """Inherit, and provide the fixture `make_strategy`: a callable that returns a fresh strategy."""

    @pytest.fixture
    def make_strategy(self) -> Callable[[], Strategy]:
        """Return the maker of the strategy under test."""
        raise NotImplementedError("provide the fixture make_strategy")

    @pytest.fixture
    def strategy(self, make_strategy: Callable[[], Strategy]) -> Strategy:
        """Return a fresh strategy."""
        return make_strategy()

    def test_nobody_is_picked_from_an_empty_fleet(self, strategy: Strategy) -> None:
        assert strategy.pick(F) is None

    def test_the_only_worker_with_credit_is_picked(self, strategy: Strategy) -> None:
        strategy.update(view("a", credit=0, load=4))
        strategy.update(view("b", credit=1))
        assert strategy.pick(F) == "b"

    def test_nobody_is_picked_without_credit(self, strategy: Strategy) -> None:
        strategy.update(view("a", credit=2))
        strategy.update(view("a", credit=0, load=4))
        assert strategy.pick(F) is None

    def test_a_worker_that_got_credit_back_is_picked_again(self, strategy: Strategy) -> None:
        strategy.update(view("a", credit=0, load=4))
        strategy.update(view("a", credit=1, load=3))
        assert strategy.pick(F) == "a"

    def test_a_removed_worker_is_not_picked(self, strategy: Strategy) -> None:
        strategy.update(view("a", credit=4))
        strategy.loaded(WorkerId("a"), F)
        strategy.remove(WorkerId("a"))
        assert strategy.pick(F) is None

    def test_removing_an_unknown_worker_and_loading_on_one_do_nothing(self, strategy: Strategy) -> None:
        strategy.remove(WorkerId("nobody"))
        strategy.loaded(WorkerId("nobody"), F)
        assert strategy.pick(F) is None

    def test_asking_twice_without_a_change_answers_with_a_worker_that_has_credit(self, strategy: Strategy) -> None:
        strategy.update(view("a", credit=1))
        strategy.update(view("b", credit=1))
        assert {strategy.pick(F), strategy.pick(F)} <= {"a", "b"}

    def test_all_credit_of_a_fleet_can_be_used(self, strategy: Strategy) -> None:
        """A strategy must not starve a worker for ever: as long as there is credit, somebody is picked."""
        workers = {f"w{n}": 4 for n in range(10)}
        for name, credit in workers.items():
            strategy.update(view(name, credit=credit))
        for _ in range(40):
            picked = strategy.pick(F)
            assert picked is not None
            workers[picked] -= 1
            strategy.update(view(picked, credit=workers[picked], load=4 - workers[picked]))
        assert set(workers.values()) == {0}
        assert strategy.pick(F) is None

    def test_a_random_course_never_picks_wrongly(self, make_strategy: Callable[[], Strategy]) -> None:
        """Against an independent ledger: who is picked has credit, and nobody is picked only if nobody has."""
        for seed in range(20):
            chance = random.Random(seed)  # noqa: S311 - a reproducible course, not a secret
            strategy = make_strategy()
            credit: dict[str, int] = {}
            for _ in range(300):
                name = f"w{chance.randrange(8)}"
                if chance.random() < 0.1:
                    credit.pop(name, None)
                    strategy.remove(WorkerId(name))
                else:
                    credit[name] = chance.randrange(4)
                    strategy.update(view(name, credit=credit[name], load=4 - credit[name]))
                    if chance.random() < 0.3:
                        strategy.loaded(WorkerId(name), chance.choice([F, G]))
                picked = strategy.pick(chance.choice([F, G]))
                if any(credit.values()):
                    assert picked is not None, f"seed {seed}"
                    assert credit.get(picked, 0) > 0, f"seed {seed}"
                else:
                    assert picked is None, f"seed {seed}"
