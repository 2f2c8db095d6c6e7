"""Hypothesis drives the dispatch machine against the shadow world; bugs seeded by hand must be caught."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from everfaas_core.dispatch.fleet import Fleet
from everfaas_core.dispatch.machine import Machine
from everfaas_core.model.states import Cause

from .world import Broken, World

CAUSES = st.sampled_from([Cause.OK, Cause.OK, Cause.RAISED, Cause.DEADLINE, Cause.SLOT_CRASHED, Cause.GIVEN_BACK])
index = st.integers(0, 30)


class Shadow(RuleBasedStateMachine):
    machine_class: type[Machine] = Machine

    @initialize(kind=st.sampled_from(["granted", "capacity"]), company=st.booleans())
    def begin(self, kind: str, company: bool) -> None:
        self.world = World(kind, self.machine_class, company=company)

    def worker(self, at: int):
        workers = list(self.world.workers.values())
        return workers[at % len(workers)]

    @rule(count=st.integers(1, 5))
    def submit(self, count: int) -> None:
        self.world.submit(count)

    @precondition(lambda self: len(self.world.workers) < 4)
    @rule(slots=st.integers(1, 3))
    def join(self, slots: int) -> None:
        self.world.join(slots)
        self.hear(-1)

    @precondition(lambda self: self.world.workers)
    @rule(at=index)
    def hear(self, at: int) -> None:
        worker = self.worker(at)
        if not worker.hung:
            self.world.hear(worker)

    @precondition(lambda self: self.world.workers)
    @rule(at=index)
    def deliver(self, at: int) -> None:
        self.world.deliver(self.worker(at))

    @rule()
    def answer(self) -> None:
        self.world.answer()

    @rule()
    def turn(self) -> None:
        """The usual course: all is heard, answered and delivered."""
        for _ in range(3):
            for worker in list(self.world.workers.values()):
                if not worker.hung:
                    self.world.hear(worker)
            self.world.answer()
            self.world.deliver_all()

    @precondition(lambda self: any(w.running for w in self.world.workers.values()))
    @rule(at=index, which=index, cause=CAUSES)
    def finish(self, at: int, which: int, cause: Cause) -> None:
        busy = [worker for worker in self.world.workers.values() if worker.running]
        worker = busy[at % len(busy)]
        running = list(worker.running)
        self.world.finish(worker, running[which % len(running)], cause)

    @precondition(lambda self: any(w.said and not w.away for w in self.world.workers.values()))
    @rule(at=index, which=index)
    def echo(self, at: int, which: int) -> None:
        talkers = [worker for worker in self.world.workers.values() if worker.said and not worker.away]
        self.world.echo(talkers[at % len(talkers)], which)

    @precondition(lambda self: any(w.running and not w.hung for w in self.world.workers.values()))
    @rule(at=index)
    def crash_is_heard_twice(self, at: int) -> None:
        """A crash is reported, the task runs again, and the old report is heard once more."""
        busy = [worker for worker in self.world.workers.values() if worker.running and not worker.hung]
        worker = busy[at % len(busy)]
        self.world.finish(worker, next(iter(worker.running)), Cause.SLOT_CRASHED)
        self.turn()
        if worker.worker_id in self.world.workers and worker.said and not worker.away:
            self.world.echo(worker, -1)
            self.turn()

    @precondition(lambda self: self.world.workers)
    @rule(at=index)
    def hang(self, at: int) -> None:
        self.world.hang(self.worker(at))

    @precondition(lambda self: self.world.workers)
    @rule(at=index)
    def wake(self, at: int) -> None:
        self.world.wake(self.worker(at))

    @precondition(lambda self: any(not w.hung for w in self.world.workers.values()))
    @rule(at=index)
    def break_connection(self, at: int) -> None:
        awake = [worker for worker in self.world.workers.values() if not worker.hung]
        self.world.break_connection(awake[at % len(awake)])

    @precondition(lambda self: any(not w.hung for w in self.world.workers.values()))
    @rule(at=index)
    def leave(self, at: int) -> None:
        awake = [worker for worker in self.world.workers.values() if not worker.hung]
        self.world.leave(awake[at % len(awake)])

    @precondition(lambda self: self.world.tasks)
    @rule(at=index)
    def cancel(self, at: int) -> None:
        tasks = list(self.world.tasks)
        self.world.cancel(tasks[at % len(tasks)])

    @rule(seconds=st.sampled_from([0.5, 1.0, 3.0, 6.0]))
    def advance(self, seconds: float) -> None:
        self.world.advance(seconds)

    @rule()
    def kill_dispatcher(self) -> None:
        self.world.begin_dispatcher()

    @rule()
    def sweep(self) -> None:
        self.world.sweep()

    def teardown(self) -> None:
        if hasattr(self, "world"):
            self.world.settle()


SETTINGS = settings(
    max_examples=120,
    stateful_step_count=40,
    deadline=None,
    derandomize=True,
    database=None,
    print_blob=True,
    suppress_health_check=list(HealthCheck),
)


def test_the_machine_keeps_the_promise() -> None:
    run_state_machine_as_test(Shadow, settings=SETTINGS)


def credit_not_decremented(monkeypatch: pytest.MonkeyPatch) -> None:
    assign = Fleet.assign

    def seeded(self, worker, task_id, attempt, size_bytes=0):
        assign(self, worker, task_id, attempt, size_bytes)
        worker.sent -= 1
        if self._rule == "capacity":
            del worker.attempts[task_id]
        self._changed(worker)
        worker.attempts[task_id] = attempt

    monkeypatch.setattr(Fleet, "assign", seeded)


def lease_not_cleared(monkeypatch: pytest.MonkeyPatch) -> None:
    settled = Machine._on_settled

    def seeded(self, held):
        entry = self.entries.get(held[0])
        settled(self, held)
        if entry is not None and entry.ended:
            self.entries[held[0]] = entry

    monkeypatch.setattr(Machine, "_on_settled", seeded)


def stale_result_accepted(monkeypatch: pytest.MonkeyPatch) -> None:
    outcome = Machine._on_outcome

    def seeded(self, worker, result):
        entry = self.entries.get(result.task_id)
        if entry is not None and entry.attempt != result.attempt and entry.worker_id is not None:
            result = type(result)(result.task_id, entry.attempt, result.cause, result.result, result.error)
            worker = self.fleet.get(entry.worker_id) or worker
        outcome(self, worker, result)

    monkeypatch.setattr(Machine, "_on_outcome", seeded)


@pytest.mark.parametrize("bug", [credit_not_decremented, lease_not_cleared, stale_result_accepted])
def test_a_seeded_bug_is_caught(bug, monkeypatch: pytest.MonkeyPatch) -> None:
    bug(monkeypatch)
    with pytest.raises((Broken, AssertionError)):
        run_state_machine_as_test(Shadow, settings=settings(SETTINGS, max_examples=600, phases=[Phase.generate]))
