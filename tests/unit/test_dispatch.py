"""The dispatch machine's smaller parts, each by itself: retries, credit, adoption, entries."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from everfaas_core.dispatch import actions as do
from everfaas_core.dispatch import events as ev
from everfaas_core.dispatch import fleet
from everfaas_core.dispatch.entries import PHASES, Phase, entry_of
from everfaas_core.dispatch.fleet import COUNTED_BYTES
from everfaas_core.dispatch.holding import QUICK_CLAIMS
from everfaas_core.dispatch.machine import CLAIM_MAX, Machine, MachineConfig
from everfaas_core.dispatch.retries import BACKOFF_S_MAX, backoff_s, verdict
from everfaas_core.model.records import AdoptedTask, ClaimedTask
from everfaas_core.model.states import Cause, Status
from everfaas_core.wire.messages import Outcome, Said
from everfaas_plugins.round_robin import RoundRobin


def claimed(task_id: str = "t", **fields) -> ClaimedTask:
    return ClaimedTask(**({"task_id": task_id, "function_id": "f", "payload": b""} | fields))


def entry(**fields):
    return entry_of(0.0, claimed(**fields), Phase.RUNNING, None)


class TestBackoff:
    @given(st.floats(0.001, 10_000), st.integers(1, 200), st.text(max_size=5))
    def test_it_stays_between_half_and_all_of_the_doubled_wait(self, first_s, charged, key):
        whole = min(first_s * 2 ** min(charged - 1, 60), BACKOFF_S_MAX)
        assert whole / 2 <= backoff_s(first_s, charged, key) <= whole

    def test_none_asked_for_is_none_given(self):
        assert backoff_s(0.0, 5, "t") == 0.0

    def test_tasks_that_failed_together_do_not_come_back_together(self):
        waits = {round(backoff_s(10.0, 1, f"task-{n}"), 1) for n in range(200)}
        assert len(waits) > 30

    def test_the_same_course_gives_the_same_waits(self):
        assert backoff_s(10.0, 2, "t") == backoff_s(10.0, 2, "t")


class TestVerdict:
    @pytest.mark.parametrize("cause", [Cause.SLOT_CRASHED, Cause.WORKER_LOST, Cause.DISPATCHER_LOST])
    def test_system_failures_are_tried_again_until_the_cap(self, cause):
        first = verdict(entry(max_attempts=3), cause, "why")
        assert isinstance(first, do.RequeueAttempt)
        assert first.charged
        last = verdict(entry(max_attempts=3, charged=2), cause, "why")
        assert isinstance(last, do.FinishAttempt)
        assert (last.status, last.reason) == (Status.FAILED, "why (attempt 3 of 3)")

    def test_user_errors_are_final(self):
        assert verdict(entry(), Cause.RAISED, "why", has_result=True, raised=("ValueError",)) == do.FinishAttempt(
            "t", 0, Status.FAILED, Cause.RAISED, None
        )

    @pytest.mark.parametrize("listed", ["ConnectionError", "builtins.OSError", "Exception"])
    def test_listed_exceptions_and_their_subclasses_are_tried_again(self, listed):
        raised = ("ConnectionResetError", "ConnectionError", "OSError", "builtins.OSError", "Exception")
        first = verdict(entry(retry_on=(listed,)), Cause.RAISED, "why", has_result=True, raised=raised)
        assert isinstance(first, do.RequeueAttempt)
        assert first.charged
        last = verdict(entry(retry_on=(listed,), charged=2), Cause.RAISED, "why", has_result=True, raised=raised)
        assert last == do.FinishAttempt("t", 0, Status.FAILED, Cause.RAISED, None), "the exception itself is delivered"

    def test_what_never_began_goes_back_at_no_charge(self):
        back = verdict(entry(charged=2, max_attempts=3), Cause.GIVEN_BACK, "why")
        assert isinstance(back, do.RequeueAttempt)
        assert (back.charged, back.delay_s) == (False, 0.0)

    @pytest.mark.parametrize("cause", [Cause.SLOT_CRASHED, Cause.GIVEN_BACK, Cause.CANCELLED])
    def test_a_cancelled_task_never_runs_again(self, cause):
        one = entry()
        one.cancelled = True
        end = verdict(one, cause, "why")
        assert isinstance(end, do.FinishAttempt)
        assert end.status is Status.CANCELLED

    def test_a_stop_that_nobody_asked_for_goes_back(self):
        assert isinstance(verdict(entry(), Cause.CANCELLED, "why"), do.RequeueAttempt)

    def test_an_outcome_that_came_before_the_cancel_stands(self):
        one = entry()
        one.cancelled = True
        end = verdict(one, Cause.OK, "", has_result=True)
        assert isinstance(end, do.FinishAttempt)
        assert end.status is Status.COMPLETED


def machine(rule="granted", **config) -> Machine:
    return Machine(MachineConfig(rule=rule, **config), RoundRobin())


def kinds(actions) -> list[str]:
    return [type(action).__name__ for action in actions]


class TestMachine:
    def test_it_claims_what_its_fleet_can_run_and_no_more(self):
        one = machine()
        assert kinds(one.step(0.0, [])) == []
        actions = one.step(0.0, [ev.Joined("w", 4, 3)])
        assert actions[-1] == do.Claim(3)

    def test_a_huge_fleet_claims_in_portions(self):
        one = machine()
        assert one.step(0.0, [ev.Joined("w", 5000, 5000)])[-1] == do.Claim(CLAIM_MAX)

    def test_by_capacity_it_claims_what_its_workers_want_to_have_at_hand(self):
        one = machine("capacity")
        one._pace.ran("f", 0.001)
        one._quick_claims = QUICK_CLAIMS
        one.fleet.look_ahead(True)
        assert one.step(0.0, [ev.Joined("w", 4, 99)])[-1] == do.Claim(4), "its slots, until it says otherwise"
        one.step(0.1, [ev.Claimed(4, tuple(claimed(f"t{n}") for n in range(4)))])
        one.step(0.1, [ev.Started(tuple((f"t{n}", 1) for n in range(4)), ())])
        done = Outcome("t0", 1, Cause.OK, b"r")
        assert one.step(0.2, [ev.Ended("w", (done,), 99, 20), ev.Rung()])[-1] == do.Claim(17), "it holds three"

    def test_a_window_that_shrinks_takes_nothing_away_and_gives_nothing_more(self):
        one = machine("capacity")
        one.step(0.0, [ev.Joined("w", 4, 0)])
        assert one.step(0.1, [ev.Beaten("w", 0, 6), ev.Claimed(4, tuple(claimed(f"t{n}") for n in range(4)))])
        one.step(0.1, [ev.Started(tuple((f"t{n}", 1) for n in range(4)), ())])
        one.step(0.2, [ev.Claimed(2, ()), ev.Beaten("w", 0, 3)])
        assert kinds(one.step(0.2, [ev.Rung()])) == []
        outcomes = tuple(Outcome(f"t{n}", 1, Cause.OK, b"r") for n in range(2))
        assert one.step(0.3, [ev.Ended("w", outcomes, 0, 3), ev.Rung()])[-1] == do.Claim(1)

    def test_a_worker_that_says_nothing_of_its_window_keeps_it(self):
        one = machine("capacity")
        one.fleet.look_ahead(True)
        one.step(0.0, [ev.Joined("w", 4, 0)])
        one.step(0.1, [ev.Claimed(4, ()), ev.Beaten("w", 1, 9)])
        one.step(0.2, [ev.Beaten("w", 5)])
        assert one.step(0.3, [ev.Rung()]) == [do.Claim(9)]

    def test_a_worker_whose_tasks_print_lives_and_nothing_else_follows_from_it(self):
        one = machine(liveness_s=2.5)
        one.step(0.0, [ev.Joined("w", 4, 0)])
        one.step(2.0, [ev.Told("w", Said())])
        assert one.step(4.0, [ev.Told("w", Said())]) == []
        assert one.fleet.get("w") is not None
        one.step(7.0, [])
        assert one.fleet.get("w") is None
        assert kinds(one.step(7.1, [ev.Told("w", Said())])) == ["AskedAgain"]

    def test_a_window_ends_with_the_hello_that_comes_next(self):
        one = machine("capacity")
        one.step(0.0, [ev.Joined("w", 4, 0, epoch=1)])
        one.step(0.1, [ev.Claimed(4, ()), ev.Beaten("w", 0, 9)])
        one.step(0.2, [ev.Joined("w", 4, 0, epoch=2)])
        assert one.step(0.3, [ev.Rung()])[-1:] == [do.Claim(4)]

    def test_what_is_sent_ahead_is_bounded_in_bytes(self, monkeypatch):
        """A claim brings no more than there is room for; then only free slots are given something."""
        monkeypatch.setattr(fleet, "AHEAD_BYTES_MAX", 5 * COUNTED_BYTES)
        one = machine("granted")
        one._pace.ran("f", 0.001)
        one._quick_claims = QUICK_CLAIMS
        one.fleet.look_ahead(True)
        room = 5 * COUNTED_BYTES
        assert one.step(0.0, [ev.Joined("w", 2, 100)])[-1] == do.Claim(100, room)
        small = [claimed(f"s{n}", payload=bytes(COUNTED_BYTES - 1)) for n in range(5)]
        large = [claimed(f"t{n}", payload=bytes(COUNTED_BYTES)) for n in range(3)]
        one.step(0.1, [ev.Claimed(100, (*small, *large))])
        assert one.step(0.2, [ev.Rung()])[-1:] == [do.Claim(92, 2 * COUNTED_BYTES)], "only large ones are counted"
        one.step(0.3, [ev.Claimed(92, tuple(claimed(f"u{n}", payload=bytes(COUNTED_BYTES)) for n in range(2)))])
        assert one.step(0.4, [ev.Rung()])[-1:] != [do.Claim(90)], "no slot is free, and no room is left"
        assert one.next_timer() == 0.0 + 2.5, "it waits for an end, not in a loop"
        tasks = [*(f"s{n}" for n in range(5)), "t0", "t1", "t2", "u0"]
        one.step(0.5, [ev.Started(tuple((task, 1) for task in (*tasks, "u1")), ())])
        ends = tuple(Outcome(task, 1, Cause.OK, b"r", None, 0.001) for task in tasks)
        assert one.step(0.6, [ev.Ended("w", ends, 0)])[-1] == do.Claim(90, 4 * COUNTED_BYTES)

    def test_free_slots_are_given_payloads_of_any_size(self, monkeypatch):
        monkeypatch.setattr(fleet, "AHEAD_BYTES_MAX", 10)
        one = machine("granted")
        one.step(0.0, [ev.Joined("w", 3, 3)])
        one.step(0.1, [ev.Claimed(3, (claimed("t0", payload=bytes(COUNTED_BYTES)),))])
        assert one.step(0.2, [ev.Rung()])[-1:] == [do.Claim(2)]

    def test_only_what_is_known_to_be_quick_is_sent_ahead_of_free_slots(self):
        """What waits in a worker is RUNNING for all the world."""
        one = machine("granted")
        one.step(0.0, [ev.Joined("w", 1, 100)])
        for number in range(3):  # its pace is not known, then known; and a claim alone proves nothing
            task = f"t{number}"
            assert one.step(1.0, [ev.Rung()])[-1:] in ([do.Claim(1)], [])
            one.step(1.1, [ev.Claimed(1, (claimed(task),))])
            one.step(1.2, [ev.Started(((task, 1),), ())])
            one.step(1.3, [ev.Ended("w", (Outcome(task, 1, Cause.OK, b"r", None, 0.001),), 101 + number)])
            one.step(1.4, [ev.Settled(((task, 1),)), ev.Claimed(1, ())])
        assert one.step(2.0, [ev.Rung()])[-1] == do.Claim(100), "all of them were quick"
        slow = ClaimedTask(task_id="s", function_id="slow", payload=b"", attempt=0, charged=0, max_attempts=3)
        actions = one.step(2.1, [ev.Claimed(100, (claimed("q"), slow))])
        assert do.StartAttempt("q", 1, "w", 0) in actions
        assert any(isinstance(one, do.RequeueAttempt) and one.task_id == "s" for one in actions), "it stays QUEUED"

    def test_a_window_is_not_a_grant(self):
        one = machine("granted")
        one.step(0.0, [ev.Joined("w", 4, 2)])
        one.step(0.1, [ev.Claimed(2, ()), ev.Beaten("w", 1, 9)])
        assert one.step(0.2, [ev.Rung()]) == [do.Claim(2)], "nor does a lower grant, come late, take any away"

    def test_an_empty_answer_is_not_asked_again_until_the_bell_rings(self):
        one = machine()
        one.step(0.0, [ev.Joined("w", 4, 4)])
        assert one.step(0.1, [ev.Claimed(4, ())]) == []
        assert one.step(0.2, [ev.Rung()]) == [do.Claim(4)]

    def test_a_bell_during_a_claim_is_not_lost(self):
        one = machine()
        one.step(0.0, [ev.Joined("w", 4, 4)])
        one.step(0.1, [ev.Rung()])
        assert one.step(0.2, [ev.Claimed(4, ())]) == [do.Claim(4)]

    def test_a_delayed_task_is_looked_for_when_it_is_due(self):
        one = machine()
        one.step(0.0, [ev.Joined("w", 4, 4)])
        one.step(0.0, [ev.Claimed(4, (), 1.5)])
        assert one.next_timer() == 1.5
        assert one.step(1.4, [ev.Beaten("w", 4)]) == [do.Pulsed("w")]
        assert one.step(1.5, [])[-1] == do.Claim(4)

    def test_a_silent_worker_is_lost_and_asked_who_it_is_when_it_comes_back(self):
        one = machine(liveness_s=2.0)
        one.step(0.0, [ev.Joined("w", 1, 1)])
        one.step(0.1, [ev.Claimed(1, (claimed(),))])
        one.step(0.2, [ev.Started((("t", 1),), ())])
        (lost,) = one.step(2.3, [])
        assert isinstance(lost, do.RequeueAttempt)
        assert (lost.cause, lost.charged) == (Cause.WORKER_LOST, True)
        assert one.step(2.4, [ev.Ended("w", (Outcome("t", 1, Cause.OK, b"late"),), 2)]) == [do.AskedAgain("w")]

    def test_a_lost_worker_comes_back_with_a_new_incarnation_and_what_was_given_up_is_killed(self):
        one = machine(liveness_s=2.0)
        one.step(0.0, [ev.Joined("w", 1, 1, epoch=1)])
        one.step(0.1, [ev.Claimed(1, (claimed(),))])
        one.step(0.2, [ev.Started((("t", 1),), ())])
        one.step(2.3, [])  # its requeue is on the way to the store
        actions = one.step(2.4, [ev.Joined("w", 1, 0, held=(("t", 1),), epoch=2)])
        assert actions == [do.Welcomed("w"), do.KillAttempts("w", (("t", 1),))]

    def test_a_presented_attempt_is_taken_over_or_killed(self):
        one = machine()
        actions = one.step(0.0, [ev.Joined("w", 2, 0, held=(("a", 1), ("b", 7)), epoch=3)])
        assert actions == [do.AdoptAttempt("a", 1, "w", 3), do.AdoptAttempt("b", 7, "w", 3)]
        assert one.step(0.1, [ev.Answered(("a", 1), "w", 3, claimed("a", attempt=1))]) == []
        actions = one.step(0.1, [ev.Answered(("b", 7), "w", 3, None)])
        assert actions == [do.Welcomed("w"), do.KillAttempts("w", (("b", 7),))]
        finish, *_ = one.step(0.2, [ev.Ended("w", (Outcome("a", 1, Cause.OK, b"r"),), 1)])
        assert finish == do.FinishAttempt("a", 1, Status.COMPLETED, Cause.OK, None)

    def test_a_presented_attempt_that_crashed_meanwhile_is_requeued_once_it_is_ours(self):
        one = machine()
        one.step(0.0, [ev.Company(False), ev.Joined("w", 2, 0, held=(("a", 1),))])
        assert one.step(0.1, [ev.Ended("w", (Outcome("a", 1, Cause.SLOT_CRASHED, b"", "died"),), 1)])[-1:] != []
        actions = one.step(0.2, [ev.Answered(("a", 1), "w", 0, claimed("a", attempt=1))])
        assert [type(action) for action in actions if not isinstance(action, do.Claim)] == [do.RequeueAttempt]

    def test_where_there_are_no_others_nobody_waits_for_the_store_to_be_welcomed(self):
        one = machine()
        assert kinds(one.step(0.0, [ev.Joined("w", 2, 0, held=(("a", 1),))])) == ["AdoptAttempt"]
        assert kinds(one.step(0.1, [ev.Company(False)])) == ["Welcomed"]

    def test_a_worker_that_waits_for_its_welcome_is_given_nothing(self):
        one = machine("capacity")
        assert kinds(one.step(0.0, [ev.Joined("w", 2, 2, held=(("a", 1),))])) == ["AdoptAttempt"]
        assert kinds(one.step(0.1, [ev.Rung()])) == []
        assert kinds(one.step(0.2, [ev.Answered(("a", 1), "w", 0, claimed("a", attempt=1))])) == ["Welcomed", "Claim"]

    def test_an_answer_to_an_earlier_hello_does_not_count(self):
        one = machine()
        one.step(0.0, [ev.Joined("w", 2, 0, held=(("a", 1),), epoch=1)])
        one.step(0.1, [ev.Joined("w", 2, 0, held=(("a", 1),), epoch=2)])
        assert one.step(0.2, [ev.Answered(("a", 1), "w", 1, claimed("a", attempt=1))]) == []
        assert one.step(0.2, [ev.Answered(("a", 1), "w", 2, claimed("a", attempt=1))]) == [do.Welcomed("w")]

    def test_a_worker_that_vanishes_before_it_counts_on_us_gets_its_time(self):
        """It may have gone to another dispatcher, which has not been able to say so yet."""
        one = machine(liveness_s=2.0, adoption_s=5.0)
        one.step(0.0, [ev.Joined("w", 1, 0, held=(("a", 1),))])
        one.step(0.1, [ev.Answered(("a", 1), "w", 0, claimed("a", attempt=1))])
        assert one.step(2.5, []) == []
        assert kinds(one.step(5.1, [])) == ["RequeueAttempt"]

    def test_a_worker_that_counts_on_us_is_lost_after_its_silence(self):
        one = machine(liveness_s=2.0, adoption_s=5.0)
        one.step(0.0, [ev.Joined("w", 1, 0, held=(("a", 1),))])
        one.step(0.1, [ev.Answered(("a", 1), "w", 0, claimed("a", attempt=1))])
        one.step(0.2, [ev.Beaten("w", 0)])
        assert kinds(one.step(2.3, [])) == ["RequeueAttempt"]

    def test_the_store_hears_of_each_hello_even_of_attempts_that_are_ours(self):
        """Another dispatcher may have an adoption under way that stems from an earlier one."""
        one = machine()
        one.step(0.0, [ev.Joined("w", 1, 1, epoch=1)])
        one.step(0.1, [ev.Claimed(1, (claimed(),))])
        one.step(0.2, [ev.Started((("t", 1),), ())])
        assert one.step(0.3, [ev.Joined("w", 1, 0, held=(("t", 1),), epoch=4)]) == [do.AdoptAttempt("t", 1, "w", 4)]

    def test_an_older_attempt_that_is_held_as_well_takes_nothing_from_the_newer_one(self):
        one = machine()
        one.step(0.0, [ev.Company(False), ev.Joined("w", 1, 1, epoch=1)])
        one.step(0.1, [ev.Claimed(1, (claimed(attempt=1),))])
        one.step(0.2, [ev.Started((("t", 2),), ())])
        actions = one.step(0.3, [ev.Joined("w", 1, 0, held=(("t", 2), ("t", 1)), epoch=2)])
        assert actions == [
            do.AdoptAttempt("t", 2, "w", 2), do.Welcomed("w"), do.KillAttempts("w", (("t", 1),)),
        ]  # fmt: skip

    def test_an_adopted_claim_waits_for_its_worker_and_then_goes_back(self):
        one = machine(adoption_s=5.0)
        one.step(0.0, [ev.Adopted((AdoptedTask(task=claimed("a", attempt=1), worker="w"),))])
        assert one.next_timer() == 5.0
        assert one.step(4.9, []) == []
        (back,) = one.step(5.0, [])
        assert isinstance(back, do.RequeueAttempt)

    def test_an_adopted_claim_waits_even_if_its_worker_is_known(self):
        """The worker may have been elsewhere since we knew it, and be on its way back with the attempt."""
        one = machine(liveness_s=100.0)
        one.step(0.0, [ev.Joined("w", 2, 2), ev.Rung()])
        assert one.step(0.1, [ev.Adopted((AdoptedTask(task=claimed("a", attempt=1), worker="w"),))]) == []
        assert kinds(one.step(5.1, [])) == ["RequeueAttempt"]

    def test_an_adopted_claim_that_was_never_sent_goes_back_as_soon_as_its_worker_says_hello(self):
        one = machine(adoption_s=5.0)
        never_sent = AdoptedTask(task=claimed("a", attempt=1), worker="w", epoch=3)
        assert one.step(0.0, [ev.Company(False), ev.Adopted((never_sent,))]) == []
        actions = one.step(0.1, [ev.Joined("w", 1, 1, held=(("b", 1),), epoch=4)])
        back = next(action for action in actions if isinstance(action, do.RequeueAttempt))
        assert (back.task_id, back.cause, back.charged) == ("a", Cause.GIVEN_BACK, False)

    def test_an_adopted_claim_that_was_never_sent_goes_back_if_its_worker_is_here_already(self):
        one = machine(adoption_s=5.0)
        one.step(0.0, [ev.Company(False), ev.Joined("w", 1, 0, epoch=4)])
        never_sent = AdoptedTask(task=claimed("a", attempt=1), worker="w", epoch=3)
        assert kinds(one.step(0.1, [ev.Adopted((never_sent,))])) == ["RequeueAttempt"]
        later = AdoptedTask(task=claimed("b", attempt=1), worker="w", epoch=5)  # it was elsewhere since: it may hold it
        assert kinds(one.step(0.2, [ev.Adopted((later,))])) == []

    def test_an_adopted_claim_that_its_worker_presented_is_not_given_back(self):
        one = machine(adoption_s=5.0)
        sent = AdoptedTask(task=claimed("a", attempt=1), worker="w", epoch=3)
        one.step(0.0, [ev.Company(False), ev.Joined("w", 1, 0, held=(("a", 1),), epoch=4)])
        one.step(0.1, [ev.Adopted((sent,)), ev.Beaten("w", 0)])
        assert one.step(4.0, [ev.Beaten("w", 0)]) == [do.Pulsed("w")]
        finish, *_ = one.step(4.1, [ev.Ended("w", (Outcome("a", 1, Cause.OK, b"r"),), 1)])
        assert finish == do.FinishAttempt("a", 1, Status.COMPLETED, Cause.OK, None)

    def test_a_claim_replaces_what_is_left_of_an_older_one(self):
        """Others had the task in between: the store gives out what nobody runs, so our old entry is outdated."""
        one = machine()
        one.step(0.0, [ev.Adopted((AdoptedTask(task=claimed("a", attempt=1), worker="gone"),)), ev.Joined("w", 1, 1)])
        actions = one.step(0.1, [ev.Claimed(1, (claimed("a", attempt=2),))])
        assert do.StartAttempt("a", 3, "w") in actions

    def test_undelivered_tasks_go_back_and_their_worker_gets_nothing_until_it_is_heard(self):
        one = machine("capacity")
        one.step(0.0, [ev.Joined("w", 1, 1)])
        one.step(0.1, [ev.Claimed(1, (claimed(),))])
        one.step(0.2, [ev.Started((("t", 1),), ())])
        assert kinds(one.step(0.3, [ev.Undelivered("w", (("t", 1),)), ev.Rung()])) == ["RequeueAttempt"]
        assert kinds(one.step(0.4, [ev.Beaten("w", 1)])) == ["Pulsed", "Claim"]

    def test_a_draining_worker_gets_nothing_more(self):
        one = machine("capacity")
        one.step(0.0, [ev.Joined("w", 4, 4)])
        one.step(0.0, [ev.Claimed(4, ())])
        assert kinds(one.step(0.1, [ev.Draining("w"), ev.Rung()])) == []

    def test_an_evicted_dispatcher_lets_go_of_everything(self):
        one = machine()
        one.step(0.0, [ev.Joined("w", 1, 1)])
        one.step(0.1, [ev.Claimed(1, (claimed(),))])
        one.step(0.2, [ev.Started((("t", 1),), ())])
        assert do.KillAttempts("w", (("t", 1),)) in one.step(0.3, [ev.Evicted()])
        assert one.entries == {}

    def test_the_phase_table_has_every_phase_and_a_way_out_of_each(self):
        assert set(PHASES) == {None, *Phase}
        assert all(PHASES[phase] for phase in Phase)
