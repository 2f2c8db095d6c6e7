"""The worker's machine, by example, and against a ledger of its own of what was told and asked."""

from __future__ import annotations

from collections import deque

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from msgspec import structs

from everfaas_core.model.ids import FunctionId, TaskId
from everfaas_core.model.states import Cause
from everfaas_core.wire.messages import Held, Outcome, TaskItem
from everfaas_core.worker import actions as do
from everfaas_core.worker import events as ev
from everfaas_core.worker import machine as machine_module
from everfaas_core.worker import slot_state
from everfaas_core.worker.machine import Machine

F = FunctionId("f")


def task(number: int, *, function: FunctionId = F, timeout_s: float | None = None) -> TaskItem:
    return TaskItem(TaskId(f"t{number}"), 1, function, b"payload", timeout_s)


def key(item: TaskItem) -> Held:
    return item.task_id, item.attempt


def ok(item: TaskItem, cause: Cause = Cause.OK) -> Outcome:
    return Outcome(item.task_id, item.attempt, cause, b"42")


def up(slots: int) -> Machine:
    """Return a machine whose slots are live, and which has the code of F."""
    machine = Machine(slots)
    assert machine.step(0.0, []) == [do.SpawnSlot(index) for index in range(slots)]
    assert machine.step(0.0, [ev.CodeArrived((F,)), *(ev.SlotUp(index) for index in range(slots))]) == []
    return machine


def reports(actions: list[do.Action]) -> list[tuple[TaskId, Cause]]:
    return [(one.outcome.task_id, one.outcome.cause) for one in actions if isinstance(one, do.Report)]


def test_no_credit_before_a_slot_is_up() -> None:
    machine = Machine(2)
    machine.step(0.0, [])
    assert machine.granted == 0
    assert not machine.ready()
    machine.step(0.0, [ev.SlotUp(1)])
    assert machine.granted == 1
    assert machine.ready()


def test_code_goes_once_to_each_slot() -> None:
    machine = up(1)
    first, second = task(1), task(2)
    assert machine.step(1.0, [ev.Offered((first,))]) == [do.Feed(0, first, True)]
    assert machine.step(1.0, [ev.SlotSaid(0, ok(first))]) == [do.Report(ok(first))]
    assert machine.step(1.0, [ev.Offered((second,))]) == [do.Feed(0, second, False)]


def test_a_slot_that_holds_the_code_is_preferred() -> None:
    machine = up(2)
    machine.step(1.0, [ev.CodeArrived((FunctionId("g"),))])
    one, other = task(1), task(2, function=FunctionId("g"))
    machine.step(1.0, [ev.Offered((one, other))])
    machine.step(1.0, [ev.SlotSaid(0, ok(one)), ev.SlotSaid(1, ok(other))])
    again = task(3, function=FunctionId("g"))
    assert machine.step(1.0, [ev.Offered((again,))]) == [do.Feed(1, again, False)]


def test_tasks_wait_for_code() -> None:
    machine = up(1)
    lacking = task(1, function=FunctionId("g"))
    assert machine.step(1.0, [ev.Offered((lacking,))]) == [do.Need((FunctionId("g"),))]
    other = task(2, function=FunctionId("g"))
    assert machine.step(1.0, [ev.Offered((other,))]) == []  # asked for once
    assert machine.step(1.0, [ev.CodeArrived((FunctionId("g"),))]) == [do.Feed(0, lacking, True)]


def test_a_crash_costs_only_the_attempt_that_had_begun() -> None:
    machine = up(2)
    one, other = task(1), task(2)
    machine.step(1.0, [ev.Offered((one, other))])
    actions = machine.step(1.0, [ev.SlotDown(0, "killed by signal 11", 1)])
    assert reports(actions) == [(one.task_id, Cause.SLOT_CRASHED)]
    assert "signal 11" in str(actions[0])
    assert do.SpawnSlot(0) in actions
    assert machine.running() == [key(other)]


def test_a_task_that_the_dead_slot_never_began_is_fed_again_and_costs_nothing() -> None:
    machine = up(1)
    item = task(1)
    machine.step(5.0, [ev.Offered((item,))])
    assert reports(machine.step(5.0, [ev.SlotDown(0, "killed", 0)])) == []
    assert machine.step(5.0, [ev.SlotUp(0)]) == [do.Feed(0, item, True)]


def test_a_deadline_kills_the_slot_and_a_late_result_does_not_count() -> None:
    machine = up(1)
    item = task(1, timeout_s=2.0)
    machine.step(10.0, [ev.Offered((item,))])
    assert machine.next_timer() == 12.0
    assert machine.step(11.9, []) == []
    assert machine.step(12.0, []) == [do.KillSlot(0)]
    assert machine.step(12.0, [ev.SlotSaid(0, ok(item))]) == []
    actions = machine.step(12.1, [ev.SlotDown(0, "killed", 1)])
    assert reports(actions) == [(item.task_id, Cause.DEADLINE)]
    assert "exceeded deadline of 2 s" in str(actions[0])


def test_a_cancel_kills_the_slot_but_an_outcome_that_came_first_stands() -> None:
    machine = up(2)
    one, other = task(1), task(2)
    machine.step(1.0, [ev.Offered((one, other))])
    assert machine.step(1.0, [ev.KillAsked((key(one), key(other)))]) == [do.KillSlot(0), do.KillSlot(1)]
    assert machine.step(1.0, [ev.SlotSaid(0, ok(one))]) == [do.Report(ok(one))]
    machine.step(1.0, [ev.SlotDown(0, "killed", 1)])
    actions = machine.step(1.0, [ev.SlotDown(1, "killed", 1)])
    assert reports(actions) == [(other.task_id, Cause.CANCELLED)]
    assert machine.running() == []


@pytest.mark.parametrize("function", [F, FunctionId("unknown")])
def test_a_cancel_of_a_waiting_task_kills_nothing(function: FunctionId) -> None:
    machine = up(1)
    waiting = task(2, function=function)
    machine.step(1.0, [ev.Offered((task(1), waiting))])
    assert reports(machine.step(1.0, [ev.KillAsked((key(waiting),))])) == [(waiting.task_id, Cause.CANCELLED)]
    assert machine.running() == [key(task(1))]


def test_a_cancel_of_an_unknown_attempt_does_nothing() -> None:
    assert up(1).step(1.0, [ev.KillAsked(((TaskId("x"), 1),))]) == []


def test_a_later_attempt_waits_until_the_one_before_is_dead() -> None:
    machine = up(2)
    first = task(1)
    machine.step(0.0, [ev.Offered((first,))])
    second = structs.replace(first, attempt=2)
    assert machine.step(1.0, [ev.Offered((second,))]) == [do.KillSlot(0)]
    assert set(machine.running()) == {key(first), key(second)}
    actions = machine.step(1.1, [ev.SlotDown(0, "killed", 1)])
    assert reports(actions) == [("t1", Cause.CANCELLED)]
    assert do.Feed(1, second, True) in actions


def test_a_later_attempt_runs_at_once_if_the_one_before_was_only_waiting() -> None:
    machine = Machine(1)
    first = task(1)
    second = structs.replace(first, attempt=2)
    machine.step(0.0, [ev.CodeArrived((F,)), ev.Offered((first,))])
    assert reports(machine.step(0.0, [ev.Offered((second,))])) == [("t1", Cause.CANCELLED)]
    assert machine.step(0.1, [ev.SlotUp(0)]) == [do.Feed(0, second, True)]


def test_a_repeated_task_is_accepted_once() -> None:
    machine = up(2)
    item = task(1)
    machine.step(1.0, [ev.Offered((item, item))])
    assert machine.accepted == 1
    assert machine.running() == [key(item)]


def test_slots_that_die_at_once_are_started_ever_more_slowly_and_tasks_go_back() -> None:
    machine = up(1)
    now = 0.0
    waits = []
    item = task(1)
    given_back: list[tuple[TaskId, Cause]] = []
    for _ in range(12):
        machine.step(now, [ev.SlotUp(0), ev.SlotDown(0, "died", 0)])
        if not given_back:
            given_back = reports(machine.step(now, [ev.Offered((item,))] if not machine.running() else []))
        due = machine.next_timer()
        assert due is not None
        if machine.slots[0].phase is slot_state.Phase.DOWN:
            waits.append(due - now)
            now = due
            machine.step(now, [])
    assert waits == sorted(waits)
    assert waits[-1] == pytest.approx(slot_state.RESPAWN_S_MAX)
    assert given_back == [(item.task_id, Cause.GIVEN_BACK)]


def test_a_task_that_crashes_each_slot_does_not_slow_the_slots_down() -> None:
    machine = up(1)
    for number in range(20):
        item = task(number)
        machine.step(0.0, [ev.SlotUp(0), ev.Offered((item,))])
        actions = machine.step(0.0, [ev.SlotDown(0, "os._exit", 1)])
        assert reports(actions) == [(item.task_id, Cause.SLOT_CRASHED)]
        assert do.SpawnSlot(0) in actions


def test_a_slot_that_never_comes_up_is_killed() -> None:
    machine = Machine(1)
    machine.step(0.0, [])
    assert machine.step(slot_state.START_S_MAX, []) == [do.KillSlot(0)]


def test_a_slot_that_answers_for_another_task_is_killed() -> None:
    machine = up(1)
    item = task(1)
    machine.step(1.0, [ev.Offered((item,))])
    assert machine.step(1.0, [ev.SlotSaid(0, ok(task(2)))]) == [do.KillSlot(0)]
    assert reports(machine.step(1.0, [ev.SlotDown(0, "killed", 1)])) == [(item.task_id, Cause.SLOT_CRASHED)]


def test_a_slot_that_lost_the_code_gets_it_once_more() -> None:
    machine = up(1)
    one, two = task(1), task(2)
    machine.step(1.0, [ev.Offered((one,))])
    machine.step(1.0, [ev.SlotSaid(0, ok(one))])
    assert machine.step(1.0, [ev.Offered((two,))]) == [do.Feed(0, two, False)]
    lost = ok(two, Cause.GIVEN_BACK)
    assert machine.step(1.0, [ev.SlotSaid(0, lost)]) == [do.Feed(0, two, True)]
    assert reports(machine.step(1.0, [ev.SlotSaid(0, lost)])) == [(two.task_id, Cause.SLOT_CRASHED)]


def test_draining_gives_back_what_has_not_begun_and_finishes_the_rest() -> None:
    machine = up(1)
    runs, waits, lacks = task(1), task(2), task(3, function=FunctionId("g"))
    machine.step(1.0, [ev.Offered((runs, waits, lacks))])
    actions = machine.step(1.0, [ev.Drained()])
    assert reports(actions) == [(waits.task_id, Cause.GIVEN_BACK), (lacks.task_id, Cause.GIVEN_BACK)]
    granted = machine.granted
    assert not machine.idle()
    assert reports(machine.step(1.0, [ev.SlotSaid(0, ok(runs))])) == [(runs.task_id, Cause.OK)]
    assert machine.idle()
    assert machine.granted == granted


def test_what_keeps_coming_while_draining_is_kept_for_the_bye() -> None:
    machine = up(1)
    machine.step(1.0, [ev.Drained()])
    first, second = task(1), task(2)
    assert reports(machine.step(1.0, [ev.Offered((first,))])) == [(first.task_id, Cause.GIVEN_BACK)]
    assert machine.step(1.0, [ev.Offered((second,))]) == []
    assert machine.idle()
    assert machine.unbegun() == [key(second)]


def test_a_draining_worker_starts_no_slot_again() -> None:
    machine = up(1)
    machine.step(1.0, [ev.Offered((task(1),))])
    machine.step(1.0, [ev.Drained()])
    actions = machine.step(1.0, [ev.SlotDown(0, "killed", 1)])
    assert reports(actions) == [(task(1).task_id, Cause.SLOT_CRASHED)]
    assert machine.step(1000.0, []) == []
    assert machine.next_timer() is None


def test_a_task_that_waits_for_code_uses_up_credit() -> None:
    machine = up(2)
    assert machine.granted == 2
    machine.step(1.0, [ev.Offered((task(1, function=FunctionId("g")),))])
    assert machine.granted == 2  # one accepted, one free: the other slot is spoken for


# ── deeper pipes: what adaptive batching of tiny tasks will rely on ──────────────────────────────────────────────────


@pytest.fixture
def deep(monkeypatch: pytest.MonkeyPatch) -> Machine:
    """A machine with two slots that are fed three tasks at a time."""
    monkeypatch.setattr(machine_module, "DEPTH", 3)
    return up(2)


def pipe(machine: Machine, slot: int) -> list[TaskId]:
    return [item.task_id for item in machine.slots[slot].queue]


def fill(machine: Machine, *, timeout_s: float | None = None) -> list[TaskItem]:
    """Fill slot 0 with three tasks and leave slot 1 free."""
    items = [task(number, timeout_s=timeout_s) for number in (1, 2, 3)]
    machine.step(5.0, [ev.Offered(tuple(items))])
    assert pipe(machine, 0) == ["t1", "t2", "t3"]
    return items


def test_what_waits_behind_a_crash_is_fed_to_another_slot_in_order(deep: Machine) -> None:
    fill(deep)
    actions = deep.step(6.0, [ev.SlotDown(0, "killed", 1)])
    assert reports(actions) == [("t1", Cause.SLOT_CRASHED)]
    assert pipe(deep, 1) == ["t2", "t3"]


def test_the_blame_is_on_the_task_that_had_begun(deep: Machine) -> None:
    first, *_ = fill(deep)
    deep.step(6.0, [ev.SlotSaid(0, ok(first))])
    actions = deep.step(6.0, [ev.SlotDown(0, "killed", 2)])
    assert reports(actions) == [("t2", Cause.SLOT_CRASHED)]
    assert pipe(deep, 1) == ["t3"]


def test_time_counts_from_when_the_one_before_ended(deep: Machine) -> None:
    first, *_ = fill(deep, timeout_s=2.0)
    assert deep.next_timer() == 7.0
    deep.step(6.5, [ev.SlotSaid(0, ok(first))])
    assert deep.next_timer() == 8.5
    assert deep.step(8.5, []) == [do.KillSlot(0)]
    assert reports(deep.step(8.6, [ev.SlotDown(0, "killed", 2)])) == [("t2", Cause.DEADLINE)]
    assert pipe(deep, 1) == ["t3"]


def test_a_cancel_behind_another_task_waits_for_its_turn(deep: Machine) -> None:
    first, second, _ = fill(deep)
    assert deep.step(6.0, [ev.KillAsked((key(second),))]) == []
    actions = deep.step(7.0, [ev.SlotSaid(0, ok(first))])
    assert actions == [do.Report(ok(first)), do.KillSlot(0)]
    assert reports(deep.step(7.0, [ev.SlotDown(0, "killed", 2)])) == [("t2", Cause.CANCELLED)]
    assert pipe(deep, 1) == ["t3"]


def test_a_cancel_behind_a_crash_is_immediate(deep: Machine) -> None:
    _, second, _ = fill(deep)
    deep.step(6.0, [ev.KillAsked((key(second),))])
    actions = deep.step(6.0, [ev.SlotDown(0, "killed", 1)])
    assert reports(actions) == [("t1", Cause.SLOT_CRASHED), ("t2", Cause.CANCELLED)]
    assert not deep._cancelled


def test_what_waits_behind_a_cancel_whose_outcome_came_first_is_not_blamed(deep: Machine) -> None:
    first, *_ = fill(deep)
    assert deep.step(6.0, [ev.KillAsked((key(first),))]) == [do.KillSlot(0)]
    assert reports(deep.step(6.0, [ev.SlotSaid(0, ok(first))])) == [("t1", Cause.OK)]
    assert reports(deep.step(6.0, [ev.SlotDown(0, "killed", 2)])) == []  # though it had begun before the kill
    assert pipe(deep, 1) == ["t2", "t3"]


class Ledger(RuleBasedStateMachine):
    """Slots that behave in every way that real ones can, and a ledger of its own of what may and must be."""

    @initialize(slots=st.integers(1, 4))
    def begin(self, slots: int) -> None:
        self.machine = Machine(slots)
        self.now = 0.0
        self.count = 0
        self.offered: dict[Held, TaskItem] = {}
        self.reported: dict[Held, Cause] = {}
        self.alive: dict[int, str] = {}  # slot → "starting" or "live"
        self.killed: set[int] = set()
        self.pipes: dict[int, deque[TaskItem]] = {}
        self.held_code: dict[int, set[FunctionId]] = {}
        self.answered: dict[int, int] = {}
        self.codes: set[FunctionId] = set()
        self.cancelled: set[Held] = set()
        self.timed: dict[Held, float] = {}
        self.granted = 0
        self.drained = False
        self.step()

    def step(self, *events: ev.Event) -> None:
        for action in self.machine.step(self.now, events):
            match action:
                case do.SpawnSlot(slot):
                    assert slot not in self.alive, "a slot was started twice"
                    self.alive[slot] = "starting"
                    self.pipes[slot], self.held_code[slot], self.answered[slot] = deque(), set(), 0
                case do.KillSlot(slot):
                    assert slot in self.alive, "a dead slot was killed"
                    self.killed.add(slot)
                case do.Feed(slot, item, with_code):
                    self.check_feed(slot, item, with_code)
                case do.Report(outcome):
                    self.check_report(outcome)
        assert self.machine.granted >= self.granted, "credit was taken back"
        self.granted = self.machine.granted

    def check_feed(self, slot: int, item: TaskItem, with_code: bool) -> None:
        assert self.alive.get(slot) == "live", "fed a slot that is not up"
        assert slot not in self.killed, "fed a slot that was killed"
        assert not self.pipes[slot], "fed a busy slot"
        assert key(item) not in self.reported, "fed what has ended"
        in_slots = [one.task_id for pipe in self.pipes.values() for one in pipe]
        assert item.task_id not in in_slots, "two attempts of a task are in slots"
        assert item.function_id in self.codes, "fed without code"
        assert with_code == (item.function_id not in self.held_code[slot]), "code is sent once per slot"
        self.held_code[slot].add(item.function_id)
        self.pipes[slot].append(item)
        if item.timeout_s is not None:
            self.timed[key(item)] = self.now + item.timeout_s

    def check_report(self, outcome: Outcome) -> None:
        this = (outcome.task_id, outcome.attempt)
        assert this in self.offered, "reported what was never offered"
        assert this not in self.reported, "reported twice"
        if outcome.cause is Cause.CANCELLED:
            assert this in self.cancelled
        if outcome.cause is Cause.DEADLINE:
            assert self.now >= self.timed[this]
        self.reported[this] = outcome.cause

    @rule(functions=st.lists(st.sampled_from("abc"), min_size=1, max_size=3), timeout_s=st.sampled_from([None, 1.0]))
    def offer(self, functions: list[str], timeout_s: float | None) -> None:
        items = []
        for name in functions:
            self.count += 1
            items.append(task(self.count, function=FunctionId(name), timeout_s=timeout_s))
        self.offered.update({key(item): item for item in items})
        self.step(ev.Offered(tuple(items)))

    @precondition(lambda self: self.offered)
    @rule(number=st.integers(0, 30))
    def offer_again(self, number: int) -> None:
        """The dispatcher has given an attempt up, and sends us the next one of the same task."""
        older = max(key(item) for item in self.offered.values() if item.task_id == self.pick(number).task_id)
        item = structs.replace(self.offered[older], attempt=older[1] + 1)
        self.cancelled.update(held for held in self.offered if held[0] == item.task_id)
        self.offered[key(item)] = item
        self.step(ev.Offered((item,)))

    def pick(self, number: int) -> TaskItem:
        items = list(self.offered.values())
        return items[number % len(items)]

    @rule(name=st.sampled_from("abc"))
    def code(self, name: str) -> None:
        self.codes.add(FunctionId(name))
        self.step(ev.CodeArrived((FunctionId(name),)))

    @rule(slot=st.integers(0, 3))
    def come_up(self, slot: int) -> None:
        if self.alive.get(slot) == "starting" and slot not in self.killed:
            self.alive[slot] = "live"
            self.step(ev.SlotUp(slot))

    @rule(slot=st.integers(0, 3))
    def answer(self, slot: int) -> None:
        if self.alive.get(slot) and self.pipes[slot]:
            item = self.pipes[slot].popleft()
            self.answered[slot] += 1
            self.step(ev.SlotSaid(slot, ok(item)))

    @rule(slot=st.integers(0, 3), began=st.sampled_from([True, False, None]))
    def die(self, slot: int, began: bool | None) -> None:
        if slot in self.alive:
            del self.alive[slot]
            self.killed.discard(slot)
            pipe, self.pipes[slot] = self.pipes[slot], deque()
            before = dict(self.reported)
            begun = None if began is None else self.answered[slot] + (1 if began and pipe else 0)
            self.step(ev.SlotDown(slot, "died", begun))
            for item in pipe:
                if began is False and key(item) not in before:
                    assert self.reported.get(key(item)) is not Cause.SLOT_CRASHED, "blamed for what it had not begun"

    @rule(number=st.integers(1, 30))
    def cancel(self, number: int) -> None:
        this = (TaskId(f"t{number}"), 1)
        self.cancelled.add(this)
        self.step(ev.KillAsked((this,)))

    @rule(wait_s=st.floats(0, 3))
    def wait(self, wait_s: float) -> None:
        self.now += wait_s
        self.step()

    @precondition(lambda self: self.count > 5)
    @rule()
    def drain(self) -> None:
        self.drained = True
        self.step(ev.Drained())

    @invariant()
    def everything_is_accounted_for(self) -> None:
        if hasattr(self, "machine"):
            assert set(self.machine.running()) == set(self.offered) - set(self.reported)
            assert self.machine.accepted == len(self.offered)

    @invariant()
    def no_credit_beyond_the_slots(self) -> None:
        if hasattr(self, "machine"):
            assert self.machine.granted - self.machine.accepted <= len(self.machine.slots)

    def teardown(self) -> None:
        """Behave well from now on: everything must end."""
        if not hasattr(self, "machine"):
            return
        for name in "abc":
            self.code(name)
        for _ in range(3 * self.count + 20):
            self.now += 6.0
            self.step()
            for slot in list(self.alive):
                if slot in self.killed:
                    self.die(slot, True)
                elif self.alive[slot] == "starting":
                    self.come_up(slot)
                elif self.pipes[slot]:
                    self.answer(slot)
        open_ = set(self.offered) - set(self.reported)
        assert open_ <= set(self.machine.unbegun()) if self.drained else not open_


Ledger.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
TestLedger = Ledger.TestCase
