"""The worker's machine by example: slots' lives, code, deadlines, cancels, drains. See also test_worker_pipes."""

from __future__ import annotations

import pytest
from msgspec import structs

from everfaas_core.model.ids import FunctionId, TaskId
from everfaas_core.model.states import Cause
from everfaas_core.worker import actions as do
from everfaas_core.worker import events as ev
from everfaas_core.worker import slot_state
from everfaas_core.worker.machine import Machine
from tests.unit.machine_kit import F, key, ok, reports, task, up


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
    assert machine.step(1.0, [ev.Offered((first,))]) == [do.Feed(0, (first,), (F,))]
    assert machine.step(1.0, [ev.SlotSaid(0, ok(first))]) == [do.Report(ok(first))]
    assert machine.step(1.0, [ev.Offered((second,))]) == [do.Feed(0, (second,))]


def test_a_slot_that_holds_the_code_is_preferred() -> None:
    machine = up(2)
    machine.step(1.0, [ev.CodeArrived((FunctionId("g"),))])
    one, other = task(1), task(2, function=FunctionId("g"))
    machine.step(1.0, [ev.Offered((one, other))])
    machine.step(1.0, [ev.SlotSaid(0, ok(one)), ev.SlotSaid(1, ok(other))])
    again = task(3, function=FunctionId("g"))
    assert machine.step(1.0, [ev.Offered((again,))]) == [do.Feed(1, (again,))]


def test_tasks_wait_for_code() -> None:
    machine = up(1)
    lacking = task(1, function=FunctionId("g"))
    assert machine.step(1.0, [ev.Offered((lacking,))]) == [do.Need((FunctionId("g"),))]
    other = task(2, function=FunctionId("g"))
    assert machine.step(1.0, [ev.Offered((other,))]) == []  # asked for once
    assert machine.step(1.0, [ev.CodeArrived((FunctionId("g"),))]) == [do.Feed(0, (lacking,), (FunctionId("g"),))]


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
    assert machine.step(5.0, [ev.SlotUp(0)]) == [do.Feed(0, (item,), (F,))]


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
    assert do.Feed(1, (second,), (F,)) in actions


def test_an_attempt_after_the_one_that_waits_waits_as_well() -> None:
    machine = up(2)
    first = task(1)
    second, third = structs.replace(first, attempt=2), structs.replace(first, attempt=3)
    machine.step(0.0, [ev.Offered((first,))])
    machine.step(1.0, [ev.Offered((second,))])
    assert reports(machine.step(1.0, [ev.Offered((third,))])) == [("t1", Cause.CANCELLED)]
    assert set(machine.running()) == {key(first), key(third)}
    assert not machine.slots[1].queue, "the first one is not dead yet"
    actions = machine.step(1.1, [ev.SlotDown(0, "killed", 1)])
    assert do.Feed(1, (third,), (F,)) in actions


def test_a_cancel_of_the_one_that_waits_does_not_let_the_next_one_run_at_once() -> None:
    machine = up(2)
    first = task(1)
    second, third = structs.replace(first, attempt=2), structs.replace(first, attempt=3)
    machine.step(0.0, [ev.Offered((first,))])
    machine.step(1.0, [ev.Offered((second,))])
    assert reports(machine.step(1.0, [ev.KillAsked((key(second),))])) == [("t1", Cause.CANCELLED)]
    assert machine.step(1.0, [ev.Offered((third,))]) == []
    assert do.Feed(1, (third,), (F,)) in machine.step(1.1, [ev.SlotDown(0, "killed", 1)])


def test_a_later_attempt_runs_at_once_if_the_one_before_was_only_waiting() -> None:
    machine = Machine(1)
    first = task(1)
    second = structs.replace(first, attempt=2)
    machine.step(0.0, [ev.CodeArrived((F,)), ev.Offered((first,))])
    assert reports(machine.step(0.0, [ev.Offered((second,))])) == [("t1", Cause.CANCELLED)]
    assert machine.step(0.1, [ev.SlotUp(0)]) == [do.Feed(0, (second,), (F,))]


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
    assert machine.step(1.0, [ev.Offered((two,))]) == [do.Feed(0, (two,))]
    lost = ok(two, Cause.GIVEN_BACK)
    assert machine.step(1.0, [ev.SlotSaid(0, lost)]) == [do.Feed(0, (two,), (F,))]
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
    assert machine.unbegun({}) == [key(second)]


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
