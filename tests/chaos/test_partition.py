"""A worker that lives, cut off from whoever counts on it: its tasks are given to others, so it must stop them."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from .client import Load
from .history import History, check
from .house import House, Role, housed
from .scene import Scene

pytestmark = pytest.mark.chaos

CUT_S = 5.0  # longer than liveness (2 s), shorter than the task
FROZEN_S = 3.7  # longer than a lease
KNOWN_S = (
    3.0  # in which a dispatcher learns of others and tells its workers; a later heir is a limit, see reliability.md
)
TAKEN_S = 12.0  # longer than a dispatcher's lease and the time in which its workers may present themselves


@pytest.mark.xdist_group("chaos-1")
def test_attempts_do_not_overlap_when_a_line_drops_everything(tmp_path: Path) -> None:
    with housed(tmp_path, proxies=True, slots=2) as house:
        load = Load(house.urls, tmp_path, rate=5.0, seed=1, total=1, mix={"very long": 1})
        load.begin()
        victim = _busy(house, load)
        line = next(name for name in house.proxies if name.startswith(victim.name))
        house.proxies[line].set(drop={"up", "down"})
        time.sleep(CUT_S)
        house.heal()
        assert load.finish(30.0)
        logs = house.logs()
    verdict = check(History.read(tmp_path))
    assert verdict.violations == [], f"{verdict}\n{logs}"


@pytest.mark.xdist_group("chaos-0")
def test_attempts_do_not_overlap_when_the_heir_is_out_of_reach(tmp_path: Path) -> None:
    """A dispatcher dies for good; its heir has another mode, so that its workers can't join there."""
    with housed(tmp_path, modes=("pull", "push"), workers=1, slots=4) as house:
        time.sleep(KNOWN_S)
        load = Load(house.urls, tmp_path, rate=5.0, seed=1, total=8, mix={"longest": 1})
        load.begin()
        scene, mine = Scene(house, load), house.workers_of(house.dispatchers[0])[0]
        scene.await_busy(lambda: scene.slot_pids(mine))
        house.dispatchers[0].kill()
        time.sleep(TAKEN_S)
        assert load.finish(60.0)
        logs = house.logs()
    verdict = check(History.read(tmp_path))
    assert verdict.violations == [], f"{verdict}\n{logs}"


@pytest.mark.xdist_group("chaos-1")
def test_attempts_do_not_overlap_when_the_heir_has_just_woken_up(tmp_path: Path) -> None:
    """An heir that was stopped still thinks of workers as its own that have long gone to the other dispatcher."""
    with housed(tmp_path, modes=("pull", "pull"), workers=1, slots=4) as house:
        first, heir = house.dispatchers
        heir.freeze(tree=False)
        time.sleep(FROZEN_S)  # by now its worker has joined the other one
        load = Load(house.urls, tmp_path, rate=100.0, seed=1, total=5, mix={"very long": 1})  # on eight slots
        load.begin()
        scene = Scene(house, load)
        while len(scene.executing()) < 5:
            time.sleep(0.01)
        heir.thaw()
        time.sleep(0.3)
        first.kill()
        assert load.finish(60.0)
        logs = house.logs()
    verdict = check(History.read(tmp_path))
    assert verdict.violations == [], f"{verdict}\n{logs}"


def _busy(house: House, load: Load) -> Role:
    """Return the worker that executes the only task."""
    scene = Scene(house, load)
    pids = {worker.name: scene.slot_pids(worker) for worker in house.workers}
    (running,) = scene.await_busy(lambda: [pid for some in pids.values() for pid in some]).values()
    return next(worker for worker in house.workers if running["pid"] in pids[worker.name])
