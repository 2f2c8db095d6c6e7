"""Several quick tasks at a time in a slot: when, how many, and how none is left waiting behind a slow one."""

from __future__ import annotations

import pytest
from msgspec import structs

from everfaas_core.dispatch import pace
from everfaas_core.dispatch.pace import Pace
from everfaas_core.model.ids import FunctionId, TaskId
from everfaas_core.model.states import Cause
from everfaas_core.wire.messages import TaskItem
from everfaas_core.worker import actions as do
from everfaas_core.worker import events as ev
from everfaas_core.worker.machine import WAITED_S_MAX, Machine
from everfaas_core.worker.pipes import AHEAD_MAX, AHEAD_S, PIPE_MAX, PIPE_S, PIPED_BYTES_MAX, RECALL_S
from tests.unit.machine_kit import F, feeds, key, learn, ok, pipe, reports, task, tasks, up

G = FunctionId("g")
QUICK_S = PIPE_S / 4  # four of them fit into a pipe
SOON_S = RECALL_S / 10


def names(numbers: range) -> list[TaskId]:
    return [TaskId(f"t{number}") for number in numbers]


# ── how long functions take ──────────────────────────────────────────────────────────────────────────────────────────


def test_an_estimate_jumps_up_and_eases_down() -> None:
    seen = Pace()
    assert (seen.of(F), seen.any_s) == (None, None)
    seen.ran(F, 0.001)
    assert seen.of(F) == 0.001
    seen.ran(F, 1.0)
    assert (seen.of(F), seen.any_s) == (1.0, 1.0)
    seen.ran(F, 0.001)
    assert seen.of(F) == pytest.approx(1.0 - pace.EASE * 0.999)
    runs = 1
    while (seen.of(F) or 0.0) > PIPE_S:
        seen.ran(F, 0.001)
        runs += 1
    assert 10 < runs < 100, "it takes many quick runs to be believed again, but it is"


def test_estimates_are_of_each_function_and_of_all() -> None:
    seen = Pace()
    seen.ran(F, 1.0)
    seen.ran(G, 0.001)
    assert (seen.of(F), seen.of(G)) == (1.0, 0.001)
    assert seen.any_s == pytest.approx(1.0 - pace.EASE * 0.999)


def test_no_task_is_taken_to_cost_nothing() -> None:
    seen = Pace()
    seen.ran(F, 0.0)
    assert seen.of(F) == seen.any_s == pace.LEAST_S


def test_the_functions_that_ended_longest_ago_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pace, "FUNCTIONS_MAX", 2)
    seen = Pace()
    for name in ("a", "b", "a", "c"):
        seen.ran(FunctionId(name), 0.001)
    assert [seen.of(FunctionId(name)) for name in "abc"] == [0.001, None, 0.001]


# ── who travels with whom ────────────────────────────────────────────────────────────────────────────────────────────


def test_functions_that_are_not_known_travel_alone() -> None:
    machine = up(2)
    items = tasks(range(6))
    assert feeds(machine.step(1.0, [ev.Offered(items)])) == [(0, ["t0"]), (1, ["t1"])]
    assert feeds(machine.step(1.0, [ev.SlotSaid(0, ok(items[0]))])) == [(0, ["t2"])]  # which told no time


def test_a_function_that_is_known_to_be_quick_travels_as_far_as_the_pipe_holds() -> None:
    machine = up(1)
    learn(machine, QUICK_S)
    assert machine.step(1.0, [ev.Offered(tasks(range(10)))]) == [do.Feed(0, tasks(range(4)))]  # in one message
    assert feeds(machine.step(1.0, [ev.SlotSaid(0, ok(task(0), run_s=QUICK_S))])) == [(0, ["t4"])]


def test_the_quickest_are_limited_by_their_number() -> None:
    machine = up(1)
    learn(machine, 0.0)
    assert PIPE_MAX * pace.LEAST_S < PIPE_S
    assert machine.step(1.0, [ev.Offered(tasks(range(40)))]) == [do.Feed(0, tasks(range(PIPE_MAX)))]


def test_a_large_payload_waits_for_an_idle_slot_and_small_ones_travel_behind_it() -> None:
    machine = up(2)
    learn(machine, QUICK_S)
    at_most = structs.replace(task(0), payload=bytes(PIPED_BYTES_MAX))
    larger = [structs.replace(task(number), payload=bytes(PIPED_BYTES_MAX + 1)) for number in (1, 2, 3)]
    assert feeds(machine.step(1.0, [ev.Offered((at_most, *larger, task(4)))])) == [(0, ["t0"]), (1, ["t1"])]
    assert feeds(machine.step(1.0, [ev.SlotSaid(0, ok(at_most, run_s=QUICK_S))])) == [(0, ["t2"])]
    said = ev.SlotSaid(0, ok(larger[1], run_s=QUICK_S))
    assert feeds(machine.step(1.0, [said])) == [(0, ["t3", "t4"])]


@pytest.mark.parametrize("run_s", [0.6 * PIPE_S, 2 * PIPE_S, 1.0])
def test_a_function_of_which_two_would_be_too_much_travels_alone(run_s: float) -> None:
    machine = up(1)
    learn(machine, run_s)
    assert feeds(machine.step(1.0, [ev.Offered(tasks(range(4)))])) == [(0, ["t0"])]


def test_idle_slots_are_fed_first_and_then_all_evenly() -> None:
    machine = up(3)
    learn(machine, QUICK_S)
    assert feeds(machine.step(1.0, [ev.Offered(tasks(range(8)))])) == [
        (0, ["t0", "t3", "t6"]), (1, ["t1", "t4", "t7"]), (2, ["t2", "t5"]),
    ]  # fmt: skip


def test_code_goes_once_to_each_slot_however_many_tasks_go_with_it() -> None:
    machine = up(2)
    machine.step(0.0, [ev.CodeArrived((G,))])
    learn(machine, QUICK_S)
    learn(machine, QUICK_S, function=G)
    items = (task(0), task(1), task(2, function=G), task(3, function=G))
    assert machine.step(1.0, [ev.Offered(items)]) == [
        do.Feed(0, (items[0], items[2])), do.Feed(1, (items[1], items[3]), (F, G)),
    ]  # fmt: skip


def test_nothing_travels_behind_a_function_that_is_not_known_to_be_quick() -> None:
    machine = up(1)
    learn(machine, QUICK_S)
    machine.step(1.0, [ev.CodeArrived((G,)), ev.Offered((task(1, function=G),))])
    assert machine.step(1.0, [ev.Offered((task(2),))]) == []


def test_a_function_that_is_not_known_to_be_quick_travels_behind_nothing() -> None:
    machine = up(1)
    learn(machine, QUICK_S)
    machine.step(1.0, [ev.CodeArrived((G,)), ev.Offered((task(1),))])
    assert machine.step(1.0, [ev.Offered((task(2, function=G),))]) == []
    assert feeds(machine.step(1.0, [ev.SlotSaid(0, ok(task(1)))])) == [(0, ["t2"])]


@pytest.mark.parametrize("order", ["gff", "fgf"])
def test_a_pipe_is_measured_by_its_slowest_function(order: str) -> None:
    machine = up(1)
    machine.step(0.0, [ev.CodeArrived((G,))])
    learn(machine, PIPE_S / 20)
    learn(machine, 0.6 * PIPE_S, function=G)
    items = tuple(task(number, function=FunctionId(name)) for number, name in enumerate(order))
    assert feeds(machine.step(1.0, [ev.Offered(items)])) == [(0, ["t0", "t1"])]


def test_a_function_that_turned_slow_is_not_piped_any_more() -> None:
    machine = up(1)
    learn(machine, QUICK_S)
    learn(machine, 0.5)
    assert feeds(machine.step(1.0, [ev.Offered(tasks(range(4)))])) == [(0, ["t0"])]


def test_nothing_is_added_behind_a_task_that_runs_long_already() -> None:
    machine = up(1)
    learn(machine, QUICK_S)
    machine.step(1.0, [ev.Offered((task(0),))])
    assert feeds(machine.step(1.0 + SOON_S, [ev.Offered((task(1),))])) == [(0, ["t1"])]
    machine.step(1.0 + SOON_S, [ev.SlotSaid(0, ok(task(0))), ev.SlotSaid(0, ok(task(1)))])
    machine.step(2.0, [ev.Offered((task(2),))])
    assert machine.step(2.0 + RECALL_S, [ev.Offered((task(3),))]) == []


# ── a task that takes longer than thought ────────────────────────────────────────────────────────────────────────────


def filled(run_s: float = QUICK_S, *, timeout_s: float | None = None) -> Machine:
    """Return a machine with t1, t2 and t3 in slot 0 since 5.0, and slot 1 idle."""
    machine = Machine(2)
    machine.step(0.0, [])
    machine.step(0.0, [ev.CodeArrived((F,)), ev.SlotUp(0)])
    learn(machine, run_s)
    machine.step(5.0, [ev.Offered(tasks((1, 2, 3), timeout_s=timeout_s))])
    machine.step(5.0, [ev.SlotUp(1)])
    assert (pipe(machine, 0), pipe(machine, 1)) == (["t1", "t2", "t3"], [])
    return machine


def test_it_loses_those_behind_it_to_an_idle_slot_in_order() -> None:
    machine = filled()
    assert machine.next_timer() == 5.0 + RECALL_S
    assert machine.step(5.0 + 0.9 * RECALL_S, []) == []
    assert machine.step(5.0 + RECALL_S, []) == [do.Recall(0)]
    assert machine.step(5.0 + RECALL_S, [ev.Recalled(0, 2)]) == [do.Feed(1, tasks((2, 3)), (F,))]
    assert pipe(machine, 0) == ["t1"]
    assert set(machine.running()) == {key(item) for item in tasks((1, 2, 3))}


def test_its_time_goes_on_when_others_are_fed_behind_it() -> None:
    machine = up(1)
    learn(machine, QUICK_S)
    machine.step(5.0, [ev.Offered((task(1),))])
    machine.step(5.0 + 0.8 * RECALL_S, [ev.Offered((task(2),))])
    assert machine.next_timer() == 5.0 + RECALL_S
    assert machine.step(5.0 + RECALL_S, []) == [do.Recall(0)]


def test_its_time_begins_when_the_one_before_has_ended() -> None:
    machine = filled()
    machine.step(5.0 + 0.8 * RECALL_S, [ev.SlotSaid(0, ok(task(1)))])
    assert machine.next_timer() == pytest.approx(5.0 + 1.8 * RECALL_S)
    assert machine.step(5.0 + 1.7 * RECALL_S, []) == []
    assert machine.step(5.0 + 1.9 * RECALL_S, []) == [do.Recall(0)]


def test_what_the_slot_has_begun_meanwhile_stays_with_it() -> None:
    machine = filled()
    machine.step(5.0 + RECALL_S, [])
    assert feeds(machine.step(5.0 + RECALL_S, [ev.Recalled(0, 1)])) == [(1, ["t3"])]
    assert pipe(machine, 0) == ["t1", "t2"]
    assert reports(machine.step(5.02, [ev.SlotSaid(0, ok(task(1))), ev.SlotSaid(0, ok(task(2)))])) == [
        ("t1", Cause.OK), ("t2", Cause.OK),
    ]  # fmt: skip


def test_it_is_not_asked_twice_and_gets_nothing_more_until_it_has_ended() -> None:
    machine = filled()
    machine.step(5.0 + RECALL_S, [])
    machine.step(5.0 + RECALL_S, [ev.Recalled(0, 2)])
    assert machine.next_timer() == 5.0 + 2 * RECALL_S  # slot 1's
    machine.step(5.0 + RECALL_S, [ev.SlotSaid(1, ok(task(2))), ev.SlotSaid(1, ok(task(3)))])
    assert machine.next_timer() is None
    more = tasks(range(10, 18))
    assert feeds(machine.step(6.0, [ev.Offered(more)])) == [(1, names(range(10, 14)))]
    actions = machine.step(6.001, [ev.SlotSaid(0, ok(task(1), run_s=QUICK_S))])
    assert feeds(actions) == [(0, names(range(14, 18)))]


def test_without_an_idle_slot_those_behind_it_wait_before_all_others() -> None:
    machine = up(2)
    learn(machine, QUICK_S)
    machine.step(5.0, [ev.Offered(tasks(range(10)))])
    assert (pipe(machine, 0), pipe(machine, 1)) == (["t0", "t2", "t4", "t6"], ["t1", "t3", "t5", "t7"])
    now = 5.0 + RECALL_S
    assert machine.step(now, []) == [do.Recall(0), do.Recall(1)]
    assert machine.step(now, [ev.Recalled(0, 3), ev.Recalled(1, 3)]) == []
    actions = machine.step(now, [ev.SlotSaid(0, ok(task(0), run_s=QUICK_S))])
    assert feeds(actions) == [(0, ["t3", "t5", "t7", "t2"])]


def test_nothing_is_fed_between_the_recall_and_its_answer() -> None:
    """What was fed then would be taken for what was taken back."""
    machine = filled()
    now = 5.0 + RECALL_S
    assert machine.step(now, [ev.Offered(tasks(range(10, 20)))]) == [
        do.Feed(1, tasks(range(10, 14)), (F,)), do.Recall(0),
    ]  # fmt: skip


def test_a_recall_is_the_last_that_is_asked_of_a_slot() -> None:
    """So that what is fed to it in the same step is counted as well, if it comes to that."""
    machine = filled()
    said = ev.SlotSaid(0, ok(task(1), run_s=QUICK_S))
    actions = machine.step(5.001, [ev.KillAsked((key(task(3)),)), said, ev.Offered(tasks(range(10, 20)))])
    assert actions[-1] == do.Recall(0)
    fed = dict(feeds(actions))[0]
    assert pipe(machine, 0) == ["t2", "t3", *fed]
    actions = machine.step(5.001, [ev.Recalled(0, 1 + len(fed))])
    assert reports(actions) == [("t3", Cause.CANCELLED)]
    assert pipe(machine, 0)[0] == "t2"


# ── a slot that does not even begin ──────────────────────────────────────────────────────────────────────────────────


def test_a_slot_that_has_begun_nothing_gets_one_task_at_a_time_and_only_if_nobody_else_can() -> None:
    """It is stopped or starved, or it still receives a huge payload: tasks must not be sent to it again and again."""
    machine = filled()
    now = 5.0 + RECALL_S
    machine.step(now, [])
    actions = machine.step(now, [ev.Recalled(0, 3)])
    assert feeds(actions) == [(1, ["t1", "t2", "t3"])]  # the other one is idle
    more = tasks(range(10, 20))
    assert feeds(machine.step(now, [ev.Offered(more)])) == [(1, ["t10"]), (0, ["t11"])]
    for hundredth in range(2, 100):
        actions = machine.step(5.0 + hundredth / 100, [])
        assert do.Recall(0) not in actions
        assert 0 not in dict(feeds(actions))
    assert feeds(machine.step(6.0, [ev.Offered(tasks(range(20, 24))), ev.SlotSaid(0, ok(task(11)))])) != []
    assert len(pipe(machine, 0)) == 4, "it has answered: it is as good as any"


def test_the_deadline_of_what_was_taken_back_does_not_stay_with_the_slot() -> None:
    machine = up(1)
    learn(machine, QUICK_S)
    items = tasks((1, 2, 3), timeout_s=2.0)
    machine.step(5.0, [ev.Offered(items)])
    assert machine.step(5.001, [ev.KillAsked(tuple(key(item) for item in items))]) == [do.Recall(0)]
    actions = machine.step(5.001, [ev.Recalled(0, 3)])
    assert reports(actions) == [(f"t{number}", Cause.CANCELLED) for number in (3, 2, 1)]
    assert machine.next_timer() is None
    assert machine.step(100.0, []) == [], "an idle slot has no deadline"


# ── what waits here though others may be free ────────────────────────────────────────────────────────────────────────


def test_what_no_slot_takes_goes_back_after_a_while() -> None:
    machine = up(1)
    machine.step(1.0, [ev.Offered(tasks(range(3)))])
    assert machine.next_timer() == 1.0 + WAITED_S_MAX
    assert machine.step(1.0 + 0.9 * WAITED_S_MAX, []) == []
    assert reports(machine.step(1.0 + WAITED_S_MAX, [])) == [("t1", Cause.GIVEN_BACK), ("t2", Cause.GIVEN_BACK)]
    assert machine.next_timer() is None
    assert machine.running() == [key(task(0))]


def test_the_wait_begins_when_something_waits() -> None:
    machine = up(1)
    machine.step(1.0, [ev.Offered((task(0),))])
    assert machine.step(9.0, [ev.Offered((task(1),))]) == []
    assert machine.next_timer() == 9.0 + WAITED_S_MAX
    assert reports(machine.step(9.0 + WAITED_S_MAX, [])) == [("t1", Cause.GIVEN_BACK)]


def test_nothing_is_concluded_from_the_silence_of_slots_that_were_not_listened_to() -> None:
    machine = up(1)
    learn(machine, QUICK_S)
    machine.step(1.0, [ev.Offered((*tasks(range(4), timeout_s=0.5), task(4)))])
    assert machine.step(2.0, [ev.Offered((task(5),))], heard=False) == []
    actions = machine.step(2.0, [ev.SlotSaid(0, ok(task(number), run_s=QUICK_S)) for number in range(4)])
    assert reports(actions) == [(f"t{number}", Cause.OK) for number in range(4)]
    assert feeds(actions) == [(0, ["t4", "t5"])]


def test_as_long_as_slots_take_tasks_nothing_goes_back() -> None:
    machine = up(1)
    machine.step(1.0, [ev.Offered(tasks(range(20)))])
    now = 1.0
    for number in range(18):
        assert machine.step(now + 0.7 * WAITED_S_MAX, []) == []
        now += 0.8 * WAITED_S_MAX
        actions = machine.step(now, [ev.SlotSaid(0, ok(task(number)))])
        assert reports(actions) == [(f"t{number}", Cause.OK)]


# ── how much is asked for ────────────────────────────────────────────────────────────────────────────────────────────


def test_a_worker_asks_for_more_while_tasks_are_quick() -> None:
    machine = up(2)
    assert (machine.granted, machine.window) == (2, 2)
    learn(machine, AHEAD_S / 10)
    assert machine.window == 2 + 2 * 10
    assert machine.granted == machine.accepted + 22
    learn(machine, AHEAD_S * 2)
    assert machine.window == 2
    assert machine.granted == 1 + 22, "what was promised stays promised"


def test_it_never_asks_for_more_than_so_many_a_slot() -> None:
    machine = up(2)
    learn(machine, 0.0)
    assert machine.window == 2 + 2 * AHEAD_MAX


def test_what_it_has_is_not_asked_for_again() -> None:
    machine = up(1)
    learn(machine, AHEAD_S / 10)
    assert (machine.accepted, machine.granted, machine.window) == (1, 12, 11)
    machine.step(0.0, [ev.Offered((*tasks(range(4)), task(5, function=G)))])  # fed, waiting, without code
    assert machine.granted == 12


def test_an_attempt_that_waits_for_an_older_one_counts_as_well() -> None:
    machine = up(1)
    learn(machine, QUICK_S)
    machine.step(1.0, [ev.Offered(tasks(range(2)))])
    accepted, granted = machine.accepted, machine.granted
    newer = structs.replace(task(1), attempt=2)
    assert machine.step(1.0, [ev.Offered((newer,))]) == [do.Recall(0)]
    assert (machine.accepted, machine.granted) == (accepted + 1, granted)


def test_a_slot_whose_task_runs_long_asks_for_nothing_beyond_it() -> None:
    machine = up(2)
    learn(machine, AHEAD_S / 10)
    machine.step(1.0, [ev.Offered((task(1),))])
    assert machine.window == 2 + 2 * 10
    machine.step(1.0 + AHEAD_S / 4, [])
    assert machine.window == 2 + 4 + 10
    machine.step(1.0 + 2 * AHEAD_S, [])
    assert machine.window == 2 + 10
    machine.step(1.0 + 2 * AHEAD_S, [ev.SlotSaid(0, ok(task(1)))])
    assert machine.window == 2 + 2 * 10


def test_it_asks_for_one_task_a_slot_even_while_slots_are_started_again() -> None:
    machine = up(2)
    learn(machine, AHEAD_S / 10)
    granted = machine.granted
    machine.step(1.0, [ev.SlotDown(0, "killed", 1), ev.SlotDown(1, "killed", 0)])
    assert (machine.window, machine.granted) == (2, granted)
    machine.step(1.0, [ev.SlotUp(0)])
    assert machine.window == 1 + 10


# ── cancels ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_cancel_behind_another_task_takes_it_back() -> None:
    machine = filled()
    assert machine.step(5.001, [ev.KillAsked((key(task(2)),))]) == [do.Recall(0)]
    actions = machine.step(5.001, [ev.Recalled(0, 2)])
    assert reports(actions) == [("t2", Cause.CANCELLED)]
    assert feeds(actions) == [(1, ["t3"])]
    assert pipe(machine, 0) == ["t1"]
    assert not machine._cancelled


def test_a_cancel_of_what_began_meanwhile_is_heeded_when_the_one_before_has_answered() -> None:
    machine = filled()
    machine.step(5.001, [ev.KillAsked((key(task(2)),))])
    assert feeds(machine.step(5.001, [ev.Recalled(0, 1)])) == [(1, ["t3"])]
    assert machine.step(5.002, [ev.SlotSaid(0, ok(task(1)))]) == [do.Report(ok(task(1))), do.KillSlot(0)]
    assert reports(machine.step(5.003, [ev.SlotDown(0, "killed", 3)])) == [("t2", Cause.CANCELLED)]


def test_a_cancel_of_the_current_task_first_saves_those_behind_it() -> None:
    machine = filled()
    assert machine.step(5.001, [ev.KillAsked((key(task(1)),))]) == [do.Recall(0)]
    actions = machine.step(5.001, [ev.Recalled(0, 2)])
    assert do.KillSlot(0) in actions
    assert feeds(actions) == [(1, ["t2", "t3"])]
    assert reports(machine.step(5.002, [ev.SlotDown(0, "killed", 2)])) == [("t1", Cause.CANCELLED)]


def test_a_cancel_that_comes_too_late_does_not_kill_the_slot_in_the_midst_of_the_next_task() -> None:
    """It would have to begin once more, under the same token."""
    machine = filled()
    assert machine.step(5.001, [ev.KillAsked((key(task(1)),))]) == [do.Recall(0)]
    assert machine.step(5.001, [ev.Recalled(0, 1)]) == [do.Feed(1, tasks((3,)), (F,))]
    assert machine.step(5.002, [ev.SlotSaid(0, ok(task(1)))]) == [do.Report(ok(task(1)))]
    assert machine.step(5.003, [ev.SlotSaid(0, ok(task(2)))]) == [do.Report(ok(task(2)))]
    assert not machine._cancelled


def test_a_cancel_of_what_never_began_kills_nothing() -> None:
    machine = filled()
    machine.step(5.001, [ev.KillAsked((key(task(1)), key(task(2))))])
    actions = machine.step(5.001, [ev.Recalled(0, 3)])
    assert sorted(reports(actions)) == [("t1", Cause.CANCELLED), ("t2", Cause.CANCELLED)]
    assert feeds(actions) == [(1, ["t3"])]
    assert not [one for one in actions if isinstance(one, do.KillSlot)]


def test_a_cancel_behind_a_crash_is_immediate() -> None:
    machine = filled()
    machine.step(5.001, [ev.KillAsked((key(task(2)),))])
    actions = machine.step(5.001, [ev.SlotDown(0, "killed", 2)])
    assert reports(actions) == [("t1", Cause.SLOT_CRASHED), ("t2", Cause.CANCELLED)]
    assert feeds(actions) == [(1, ["t3"])]
    assert not machine._cancelled


def test_a_newer_attempt_of_what_is_in_a_pipe_runs_when_the_older_one_is_out_of_it() -> None:
    machine = filled()
    newer = structs.replace(task(2), attempt=2)
    actions = machine.step(5.001, [ev.Offered((newer, *tasks(range(10, 20))))])
    assert actions[-1] == do.Recall(0)
    assert "t2" not in [name for _, fed in feeds(actions) for name in fed]
    actions = machine.step(5.001, [ev.Recalled(0, 2)])
    assert reports(actions) == [("t2", Cause.CANCELLED)]
    assert key(newer) in machine.running()
    assert key(task(2)) not in machine.running()


# ── deadlines ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_deadline_counts_from_when_the_one_before_ended() -> None:
    machine = filled(timeout_s=0.005)
    assert machine.next_timer() == 5.005
    machine.step(5.004, [ev.SlotSaid(0, ok(task(1)))])
    assert machine.next_timer() == pytest.approx(5.009)
    assert machine.step(5.0091, []) == [do.Recall(0)]
    actions = machine.step(5.0091, [ev.Recalled(0, 1)])
    assert do.KillSlot(0) in actions
    assert feeds(actions) == [(1, ["t3"])]
    assert reports(machine.step(5.01, [ev.SlotDown(0, "killed", 3)])) == [("t2", Cause.DEADLINE)]


def test_a_deadline_of_what_has_ended_does_not_kill_the_slot_in_the_midst_of_the_next_task() -> None:
    machine = filled(timeout_s=0.005)
    machine.step(5.006, [])
    assert feeds(machine.step(5.006, [ev.Recalled(0, 1)])) == [(1, ["t3"])]
    assert machine.next_timer() == pytest.approx(5.011), "only that of slot 1's: the answer comes next"
    machine.step(5.007, [ev.SlotSaid(0, ok(task(1))), ev.SlotSaid(1, ok(task(3)))])
    assert machine.next_timer() == pytest.approx(5.012)
    assert machine.step(5.0121, []) == [do.KillSlot(0)]


def test_a_deadline_holds_for_the_last_one_that_a_recall_left() -> None:
    """Whatever the recall was for."""
    machine = filled(timeout_s=0.5)
    machine.step(5.0 + RECALL_S, [])
    machine.step(5.0 + RECALL_S, [ev.Recalled(0, 2)])
    machine.step(5.0 + RECALL_S, [ev.SlotSaid(1, ok(task(2))), ev.SlotSaid(1, ok(task(3)))])
    assert machine.next_timer() == 5.5
    assert machine.step(5.5, []) == [do.KillSlot(0)]


# ── slots die ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_what_waits_behind_a_crash_is_fed_to_another_slot_in_order() -> None:
    machine = filled()
    actions = machine.step(5.001, [ev.SlotDown(0, "killed", 2)])
    assert reports(actions) == [("t1", Cause.SLOT_CRASHED)]
    assert pipe(machine, 1) == ["t2", "t3"]


def test_the_blame_is_on_the_task_that_had_begun() -> None:
    machine = filled()
    actions = machine.step(5.001, [ev.SlotSaid(0, ok(task(1))), ev.SlotDown(0, "killed", 3)])
    assert reports(actions) == [("t1", Cause.OK), ("t2", Cause.SLOT_CRASHED)]
    assert pipe(machine, 1) == ["t3"]


def test_nobody_is_blamed_when_the_next_one_had_not_begun() -> None:
    machine = filled()
    actions = machine.step(5.001, [ev.SlotSaid(0, ok(task(1))), ev.SlotDown(0, "killed", 2)])
    assert reports(actions) == [("t1", Cause.OK)]
    assert pipe(machine, 1) == ["t2", "t3"]


def test_nothing_is_asked_of_a_slot_that_died_meanwhile() -> None:
    machine = filled()
    actions = machine.step(5.001, [ev.KillAsked((key(task(2)),)), ev.SlotDown(0, "killed", 2)])
    assert do.Recall(0) not in actions
    assert reports(actions) == [("t1", Cause.SLOT_CRASHED), ("t2", Cause.CANCELLED)]


def test_a_slot_that_was_started_again_is_as_good_as_any() -> None:
    machine = up(1)
    learn(machine, QUICK_S)
    machine.step(5.0, [ev.Offered(tasks((1, 2)))])
    machine.step(5.0 + RECALL_S, [])
    machine.step(5.0 + RECALL_S, [ev.Recalled(0, 1), ev.SlotDown(0, "killed", 2)])
    actions = machine.step(5.02, [ev.SlotUp(0), ev.Offered(tasks((3, 4)))])
    assert feeds(actions) == [(0, ["t2", "t3", "t4"])]


def test_all_that_had_begun_unheard_is_lost_and_never_begins_again() -> None:
    """A function may have broken the connection over which its slot goes on to answer."""
    machine = filled()
    actions = machine.step(5.001, [ev.SlotDown(0, "garbled", 3)])
    assert reports(actions) == [("t1", Cause.SLOT_CRASHED), ("t2", Cause.SLOT_CRASHED)]
    assert pipe(machine, 1) == ["t3"]


def test_a_slot_that_lost_the_code_of_all_that_it_has_gets_it_again() -> None:
    machine = up(1)
    learn(machine, QUICK_S)
    machine.step(1.0, [ev.Offered(tasks((1, 2)))])
    lost = [ev.SlotSaid(0, ok(item, Cause.GIVEN_BACK)) for item in tasks((1, 2))]
    assert machine.step(1.001, lost) == [do.Feed(0, tasks((2, 1)), (F,))]
    actions = machine.step(1.002, [ev.SlotSaid(0, ok(item)) for item in tasks((2, 1))])
    assert reports(actions) == [("t2", Cause.OK), ("t1", Cause.OK)]


# ── the worker leaves ────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_drain_takes_back_what_has_not_begun() -> None:
    machine = filled()
    assert machine.step(5.001, [ev.Drained()]) == [do.Recall(0)]
    actions = machine.step(5.001, [ev.Recalled(0, 1)])
    assert reports(actions) == [("t3", Cause.GIVEN_BACK)]
    machine.step(5.002, [ev.SlotSaid(0, ok(task(1))), ev.SlotSaid(0, ok(task(2)))])
    assert machine.idle()


def test_what_a_slot_may_have_begun_is_not_said_to_be_unbegun() -> None:
    machine = filled()
    lacks = TaskItem(TaskId("lacks"), 1, G, b"")
    machine.step(5.0, [ev.Offered((lacks,))])
    assert machine.unbegun({}) == [key(lacks)]
    assert machine.unbegun({0: 0, 1: 0}) == [key(lacks)]
    assert machine.unbegun({0: 2, 1: 0}) == [key(lacks), key(task(2)), key(task(3))]
