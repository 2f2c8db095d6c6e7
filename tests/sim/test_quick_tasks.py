"""Worlds of tasks so quick that slots are fed several at a time, among them some that hang, and slots that are late."""

from __future__ import annotations

from collections import Counter

import pytest

from everfaas_core.sim import scenarios as s
from everfaas_core.sim.scenarios import Fault, Mix
from everfaas_core.sim.slots import Process, SimHost

from .running import run

SEEDS = range(1, 5)
HEARD_S = 0.0004
"""From what happens in a slot to its worker hearing of it: longer than a task takes, so the slot is ahead."""

LATE_SHARE = 0.02
LATE_S = 0.03
"""So many tasks are begun up to so late, because the slot is starved."""

CHANGES = {
    "workers": 3,
    "tasks": 1500,
    "mix": Mix(raises=0.02, exits=0.01, hangs=0.01, timeout_s=0.05, cancelled=0.6, delayed=0.0),
    "faults": (
        Fault(s.SLOT_KILLED, 50.0),
        Fault(s.CONNECTION_BROKEN, 5.0),
        Fault(s.WORKER_KILLED, 1.0, 0.5, 2.0),
        Fault(s.WORKER_STOPPED, 2.0, 0.02, 2.0),
        Fault(s.WORKER_LEAVES, 2.0, 0.2, 2.0),
    ),
}


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Slots that are ahead of their workers, or late; and a count of what was taken back from them."""
    counts: Counter[str] = Counter()
    hear, begin, recall = SimHost._hear, SimHost._begin, SimHost._recall

    def begin_late(host: SimHost, process: Process) -> None:
        if host._chance.random() < LATE_SHARE:
            host._clock.after(LATE_S * host._chance.random(), begin, host, process)
        else:
            begin(host, process)

    def count(process: Process) -> int:
        taken_back = recall(process)
        counts["all" if taken_back and process.run is None else "some" if taken_back else "none"] += 1
        return taken_back

    monkeypatch.setattr(SimHost, "_hear", lambda host, event: host._clock.after(HEARD_S, hear, host, event))
    monkeypatch.setattr(SimHost, "_begin", begin_late)
    monkeypatch.setattr(SimHost, "_recall", staticmethod(count))
    return counts


@pytest.mark.parametrize("rule", ["granted", "capacity"])
@pytest.mark.parametrize("load", [0.3, 3.0])
@pytest.mark.parametrize("task_s", [0.0003, 0.003])
def test_the_promise_is_kept(seen: Counter[str], rule: str, load: float, task_s: float) -> None:
    for seed in SEEDS:
        summary = run("flapping-workers", seed, rule=rule, load=load, task_s=task_s, **CHANGES)
        assert summary.violation is None, f"seed {seed}: {summary.violation}"
    if task_s < 0.001:
        assert seen["some"] > 10, "nothing was taken back: this proves little"


def test_a_task_that_was_taken_back_and_runs_all_the_same_is_found(
    seen: Counter[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SimHost, "_recall", staticmethod(lambda process: len(process.pipe)))
    seeds = range(1, 21)  # what is taken back and runs all the same must also be begun elsewhere: not in every world
    found = [run("flapping-workers", seed, task_s=0.0003, **CHANGES).violation for seed in seeds]
    assert any("began a second time" in (text or "") for text in found), found
