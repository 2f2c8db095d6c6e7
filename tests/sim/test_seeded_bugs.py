"""Bugs that were put in by hand are found, each within a bounded number of seeds."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from everfaas_core.dispatch.fleet import Fleet
from everfaas_core.dispatch.machine import Machine
from everfaas_core.wire.messages import Hello
from everfaas_core.worker.machine import Machine as SlotsMachine
from everfaas_core.worker.session import Say, Session

from .running import run

SEEDS_MAX = 8


def credit_not_decremented(patch: pytest.MonkeyPatch) -> str:
    assign = Fleet.assign

    def seeded(self, worker, task_id, attempt):
        assign(self, worker, task_id, attempt)
        worker.sent -= 1
        self._changed(worker)

    patch.setattr(Fleet, "assign", seeded)
    return "flapping-workers"


def lease_not_cleared(patch: pytest.MonkeyPatch) -> str:
    settled = Machine._on_settled

    def seeded(self, held):
        entry = self.entries.get(held[0])
        settled(self, held)
        if entry is not None and entry.ended:
            self.entries[held[0]] = entry

    patch.setattr(Machine, "_on_settled", seeded)
    return "calm"


def stale_result_accepted(patch: pytest.MonkeyPatch) -> str:
    outcome = Machine._on_outcome

    def seeded(self, worker, result):
        entry = self.entries.get(result.task_id)
        if entry is not None and entry.attempt != result.attempt and entry.worker_id is not None:
            result = replace(result, attempt=entry.attempt)
            worker = self.fleet.get(entry.worker_id) or worker
        outcome(self, worker, result)

    patch.setattr(Machine, "_on_outcome", seeded)
    return "slots-crash"


def kills_ignored(patch: pytest.MonkeyPatch) -> str:
    patch.setattr(SlotsMachine, "_on_kill", lambda self, key: None)
    return "split-brain"


def running_attempts_not_presented(patch: pytest.MonkeyPatch) -> str:
    hello = Session._hello

    def seeded(self, now):
        said = hello(self, now)
        return [Say(replace(one.message, held=())) if isinstance(one.message, Hello) else one for one in said]

    patch.setattr(Session, "_hello", seeded)
    return "dispatcher-murders"


def no_fence_when_out_of_touch(patch: pytest.MonkeyPatch) -> str:
    patch.setattr(Session, "_fence", lambda self, now: [])
    patch.setattr(Session, "_doubt_at", lambda self: float("inf"))
    return "split-brain"


def dead_slot_not_started_again(patch: pytest.MonkeyPatch) -> str:
    down = SlotsMachine._on_down

    def seeded(self, now, slot, reason, begun):
        down(self, now, slot, reason, begun)
        slot.due = None

    patch.setattr(SlotsMachine, "_on_down", seeded)
    return "flapping-workers"


def dead_slot_blamed_on_nobody(patch: pytest.MonkeyPatch) -> str:
    down = SlotsMachine._on_down

    def seeded(self, now, slot, reason, begun):
        down(self, now, slot, reason, 0)  # so its task is fed to another slot under the same token

    patch.setattr(SlotsMachine, "_on_down", seeded)
    return "slots-crash"


@pytest.mark.parametrize(
    "bug",
    [
        credit_not_decremented,
        lease_not_cleared,
        stale_result_accepted,
        kills_ignored,
        running_attempts_not_presented,
        no_fence_when_out_of_touch,
        dead_slot_not_started_again,
        dead_slot_blamed_on_nobody,
    ],
)
def test_a_seeded_bug_is_caught(bug, monkeypatch: pytest.MonkeyPatch) -> None:
    name = bug(monkeypatch)
    found = []
    for seed in range(1, SEEDS_MAX + 1):
        summary = run(name, seed, tasks=300)
        if summary.violation is not None:
            found.append(summary)
            break
    assert found, f"{bug.__name__} was not found in {SEEDS_MAX} seeds of {name}"
