"""What a worker says to its dispatcher, and when, on a clock of the test's."""

from __future__ import annotations

from typing import TypeVar

import pytest
from msgspec import Struct

from everfaas_core.model.ids import DispatcherId, FunctionId, TaskId, WorkerId
from everfaas_core.model.output import Printed, Stream
from everfaas_core.model.states import Cause
from everfaas_core.wire import messages as m
from everfaas_core.wire.messages import Held, Outcome
from everfaas_core.worker import directives as do
from everfaas_core.worker import session as s
from everfaas_core.worker.contact import PROOF_SHARE

WELCOME = m.Welcome(DispatcherId("d"), 1.0, 3.0)
T = TypeVar("T")


class Slots(Struct):
    """The capacity that a session sees."""

    granted: int = 0
    window: int = 7
    ahead: bool = False
    accepted: int = 0
    held: list[Held] = []
    printed: m.Said | None = None

    def said(self, now: float) -> m.Said | None:
        printed, self.printed = self.printed, None
        return printed

    def said_timer(self) -> float | None:
        return None if self.printed is None else 0.0

    def running(self) -> list[Held]:
        return list(self.held)


@pytest.fixture
def slots() -> Slots:
    return Slots(granted=4)


@pytest.fixture
def session(slots: Slots) -> s.Session:
    identity = s.Identity(mode="pull", host="h", pid=1, slots=4, python="3.11.0", dill="0.4")
    return s.Session(identity, slots, WorkerId("w1"))


def said(directives: list[do.Directive], kind: type[T]) -> list[T]:
    return [one.message for one in directives if isinstance(one, do.Say) and isinstance(one.message, kind)]


def join(session: s.Session, now: float = 100.0) -> m.Hello:
    (hello,) = said(session.tick(now), m.Hello)
    session.heard(now, WELCOME)
    assert session.joined
    assert said(session.tick(now), m.Beat), "a Beat tells the dispatcher that it is counted on from now on"
    session.heard(now, m.Pulse())
    return hello


def outcome(number: int, cause: Cause = Cause.OK) -> Outcome:
    return Outcome(TaskId(f"t{number}"), 1, cause, b"r")


def reconnects(directives: list[do.Directive]) -> bool:
    return any(isinstance(one, do.Reconnect) for one in directives)


def test_it_says_who_it_is_first(session: s.Session) -> None:
    hello = join(session)
    assert (hello.version, hello.worker_id, hello.mode) == (m.PROTOCOL_VERSION, "w1", "pull")
    assert (hello.slots, hello.granted, hello.held) == (4, 4, ())


def test_without_an_answer_it_begins_anew_ever_more_slowly_and_for_ever(session: s.Session) -> None:
    now, waits = 100.0, []
    session.tick(now)
    for _ in range(6):
        due = session.next_timer()
        waits.append(due - now)
        now = due
        directives = session.tick(now)
        assert reconnects(directives)
        assert len(said(directives, m.Hello)) == 1
    assert waits == [2.0, 4.0, 8.0, 8.0, 8.0, 8.0]


def test_nothing_is_said_or_heard_before_the_welcome(session: s.Session) -> None:
    session.tick(100.0)
    session.ended([outcome(1)])
    assert session.tick(100.5) == []
    assert session.heard(100.5, m.Tasks(())) == []
    assert session.heard(100.5, m.Kill(())) == []


def test_a_connection_that_came_back_before_the_welcome_gets_another_hello(session: s.Session) -> None:
    session.tick(100.0)
    directives = session.heard(100.1, m.Stranger())
    assert len(said(directives, m.Hello)) == 1
    assert not reconnects(directives)


def test_a_stranger_replaces_the_connection_and_presents_what_it_holds(session: s.Session, slots: Slots) -> None:
    join(session)
    slots.held, slots.accepted = [(TaskId("t2"), 3)], 2
    session.ended([outcome(1)])
    session.tick(100.1)
    directives = session.heard(100.2, m.Stranger())
    assert reconnects(directives)
    (hello,) = said(directives, m.Hello)
    assert hello.worker_id == "w1"
    assert hello.held == (("t2", 3), ("t1", 1))
    assert hello.granted == 2  # credit counts from the last Hello
    session.heard(100.3, WELCOME)
    assert said(session.tick(100.3), m.Outcomes)[0].items == (outcome(1),)


def test_outcomes_and_credit_go_in_one_message_and_are_kept_until_acknowledged(
    session: s.Session, slots: Slots
) -> None:
    join(session)
    slots.accepted, slots.granted = 2, 6
    session.ended([outcome(1), outcome(2)])
    assert session.next_timer() == 0.0
    (message,) = said(session.tick(100.1), m.Outcomes)
    assert message == m.Outcomes((outcome(1), outcome(2)), 6, 7)
    assert session.tick(100.2) == []
    assert set(session.retained) == {("t1", 1), ("t2", 1)}
    session.heard(100.3, m.Ack((("t1", 1), ("unknown", 1))))
    assert set(session.retained) == {("t2", 1)}


def test_what_was_printed_is_said_before_the_outcomes(session: s.Session, slots: Slots) -> None:
    join(session)
    slots.printed = m.Said((Printed(TaskId("t1"), 1, Stream.STDOUT, 0, b"x"),))
    assert session.next_timer() == 0.0, "it is due now"
    session.ended([outcome(1)])
    said_now = [one.message for one in session.tick(100.1) if isinstance(one, do.Say)]
    assert [type(one) for one in said_now] == [m.Said, m.Outcomes]
    assert session.next_timer() > 100.1


def test_nothing_is_said_before_the_welcome(session: s.Session, slots: Slots) -> None:
    slots.printed = m.Said()
    assert said(session.tick(100.0), m.Said) == []
    session.heard(100.0, WELCOME)
    assert said(session.tick(100.0), m.Said) == [m.Said()]


def test_output_alone_brings_no_credit_forgotten(session: s.Session, slots: Slots) -> None:
    join(session)
    slots.printed = m.Said()
    slots.granted = 9
    messages = [one.message for one in session.tick(100.1) if isinstance(one, do.Say)]
    assert messages == [m.Said(), m.Beat(9, 7)]


def test_new_credit_is_said_at_once_and_the_heartbeat_when_due(session: s.Session, slots: Slots) -> None:
    join(session)
    assert session.tick(100.5) == []
    slots.granted = 5
    assert said(session.tick(100.6), m.Beat) == [m.Beat(5, 7)]
    assert session.next_timer() == pytest.approx(101.6)
    session.heard(101.0, m.Pulse())
    assert said(session.tick(101.6), m.Beat) == [m.Beat(5, 7)]


def test_while_all_slots_have_more_to_do_news_wait_for_each_other(session: s.Session, slots: Slots) -> None:
    join(session)
    session.tick(100.05)
    slots.ahead, slots.granted = True, 6
    session.ended([outcome(1)])
    assert session.tick(100.1) == []
    assert session.next_timer() == pytest.approx(100.1 + s.GATHER_S)
    session.ended([outcome(2)])
    assert session.tick(100.1 + s.GATHER_S / 2) == []
    (message,) = said(session.tick(100.1 + s.GATHER_S), m.Outcomes)
    assert message == m.Outcomes((outcome(1), outcome(2)), 6, 7)

    slots.granted = 7
    assert session.tick(100.2) == [], "credit alone waits, too"
    (beat,) = said(session.tick(100.2 + s.GATHER_S), m.Beat)
    assert beat.granted == 7


def test_news_wait_no_longer_when_a_slot_has_nothing_more_to_do(session: s.Session, slots: Slots) -> None:
    join(session)
    session.tick(100.05)
    slots.ahead = True
    session.ended([outcome(1)])
    assert session.tick(100.1) == []
    slots.ahead = False
    assert said(session.tick(100.1 + s.GATHER_S / 4), m.Outcomes)[0].items == (outcome(1),)


def test_many_outcomes_do_not_wait(session: s.Session, slots: Slots) -> None:
    join(session)
    session.tick(100.05)
    slots.ahead = True
    session.ended([outcome(number) for number in range(s.GATHER_MAX)])
    assert len(said(session.tick(100.1), m.Outcomes)[0].items) == s.GATHER_MAX


def test_a_beat_is_never_late_because_of_what_is_gathered(session: s.Session, slots: Slots) -> None:
    join(session)
    session.tick(100.05)
    slots.ahead = True
    due = session.next_timer()
    session.ended([outcome(1)])
    assert session.tick(due - s.GATHER_S / 4) == []
    assert session.next_timer() <= due
    session.heard(due, m.Pulse())
    say = session.tick(due)
    assert said(say, m.Outcomes)
    assert said(say, m.Beat)


def test_how_much_it_wants_at_hand_goes_with_whatever_it_says(session: s.Session, slots: Slots) -> None:
    join(session)
    slots.window = 70
    assert session.tick(100.1) == [], "by itself it is no news"
    session.ended([outcome(number) for number in range(s.OUTCOMES_MAX + 5)])
    assert [message.window for message in said(session.tick(100.1), m.Outcomes)] == [70, 70]
    slots.window = 4
    session.heard(101.0, m.Pulse())
    assert said(session.tick(101.0), m.Beat) == [m.Beat(4, 4)]


def test_it_beats_even_while_outcomes_flow(session: s.Session) -> None:
    join(session)
    beats = 0
    for number in range(30):
        now = 100.0 + number / 10
        session.ended([outcome(number)])
        beats += len(said(session.tick(now), m.Beat))
        session.heard(now, m.Pulse())
    assert beats == 2


def test_no_new_credit_while_too_much_is_not_acknowledged(
    session: s.Session, slots: Slots, monkeypatch: pytest.MonkeyPatch
) -> None:
    join(session)
    monkeypatch.setattr(s, "RETAINED_BYTES_MAX", 1)
    session.ended([outcome(1), outcome(2)])
    slots.granted = 10
    assert said(session.tick(100.1), m.Outcomes)[0].granted == 4
    session.heard(100.2, m.Ack((("t1", 1),)))
    assert said(session.tick(100.3), m.Beat) == [m.Beat(10, 7)]


def test_silence_means_the_connection_is_replaced(session: s.Session) -> None:
    join(session)
    session.heard(102.0, m.Pulse())
    assert not reconnects(session.tick(104.9))
    directives = session.tick(105.0)
    assert reconnects(directives)
    assert not session.joined
    assert len(said(directives, m.Hello)) == 1


def test_a_final_refusal_ends_it(session: s.Session) -> None:
    session.tick(100.0)
    assert session.heard(100.1, m.Refuse("handshake", "wrong mode")) == [do.Leave("wrong mode")]


def test_a_kill_of_what_never_arrived_is_answered(session: s.Session, slots: Slots) -> None:
    join(session)
    slots.held = [(TaskId("t1"), 1)]
    session.ended([outcome(2)])
    session.tick(100.1)
    keys: tuple[Held, ...] = ((TaskId("t1"), 1), (TaskId("t2"), 1), (TaskId("t3"), 1))
    assert session.heard(100.2, m.Kill(keys)) == [do.StopAttempts(keys[:1])]
    (message,) = said(session.tick(100.2), m.Outcomes)
    assert [(one.task_id, one.cause) for one in message.items] == [("t3", Cause.CANCELLED)]


def test_missing_code_is_asked_for_again_after_a_reconnect(session: s.Session) -> None:
    assert session.lacks([FunctionId("f")]) == []
    session.tick(100.0)
    assert said(session.heard(100.1, WELCOME), m.Missing) == [m.Missing((FunctionId("f"),))]
    session.heard(100.2, m.Tasks((), (m.FunctionItem(FunctionId("f"), "f", b""),)))
    session.heard(100.3, m.Stranger())
    assert said(session.heard(100.4, WELCOME), m.Missing) == []


def test_a_repeated_task_whose_outcome_is_kept_is_not_run_again(session: s.Session) -> None:
    join(session)
    session.ended([outcome(1)])
    items = tuple(m.TaskItem(TaskId(f"t{number}"), 1, FunctionId("f"), b"") for number in (1, 2))
    assert session.heard(100.1, m.Tasks(items, epoch=1)) == [do.Accept(m.Tasks(items[1:]))]


def test_tasks_that_were_sent_for_an_earlier_hello_are_not_run(session: s.Session) -> None:
    assert join(session).epoch == 1
    session.heard(100.1, m.Stranger())
    session.heard(100.2, WELCOME)
    item = m.TaskItem(TaskId("t"), 1, FunctionId("f"), b"")
    code = m.FunctionItem(FunctionId("f"), "f", b"")
    assert session.heard(100.3, m.Tasks((item,), (code,), epoch=1)) == [do.Accept(m.Tasks((), (code,)))]
    assert session.heard(100.4, m.Tasks((item,), epoch=2)) == [do.Accept(m.Tasks((item,)))]


def test_a_worker_that_was_stopped_trusts_nothing_it_was_sent(session: s.Session) -> None:
    join(session)
    assert session.overslept(101.0, 1.0) == []
    directives = session.overslept(103.0, s.FENCE_SHARE * WELCOME.liveness_s)
    assert reconnects(directives)
    assert said(directives, m.Hello)
    assert not session.joined


def test_the_slots_are_fenced_before_the_dispatcher_gives_up_on_us(session: s.Session) -> None:
    session.tick(100.0)
    (fence,) = [one for one in session.heard(100.0, WELCOME) if isinstance(one, do.Fence)]
    assert 0 < fence.seconds < WELCOME.liveness_s


def test_a_draining_worker_says_so_now_and_after_each_welcome(session: s.Session) -> None:
    join(session)
    assert said(session.drain(), m.Draining)
    session.heard(100.1, m.Stranger())
    assert said(session.heard(100.2, WELCOME), m.Draining)


def test_many_outcomes_are_split(session: s.Session) -> None:
    join(session)
    session.ended([outcome(number) for number in range(s.OUTCOMES_MAX + 5)])
    assert [len(message.items) for message in said(session.tick(100.1), m.Outcomes)] == [s.OUTCOMES_MAX, 5]


def test_a_bye_lists_what_never_began(session: s.Session) -> None:
    join(session)
    session.ended([outcome(1), outcome(2, Cause.GIVEN_BACK)])
    assert session.returned([(TaskId("t3"), 1)]) == (("t2", 1), ("t3", 1))


# ── out of touch ─────────────────────────────────────────────────────────────────────────────────────────────────────


def stops(directives: list[do.Directive]) -> list[Held]:
    return [key for one in directives if isinstance(one, do.StopAttempts) for key in one.items]


RUNNING: Held = (TaskId("t"), 1)


def test_attempts_are_stopped_before_the_dispatcher_gives_them_to_others(session: s.Session, slots: Slots) -> None:
    """The last Beat that was answered is the proof; what the dispatcher says by itself proves nothing."""
    join(session)
    slots.held = [RUNNING]
    session.tick(101.0)  # a Beat
    session.heard(101.1, m.Pulse())
    session.tick(102.0)  # a Beat that is never answered
    session.heard(103.0, m.Ack(()))
    assert stops(session.tick(103.3)) == []
    assert session.next_timer() <= 101.0 + PROOF_SHARE * WELCOME.liveness_s
    assert stops(session.tick(101.0 + PROOF_SHARE * WELCOME.liveness_s)) == [RUNNING]
    assert 101.0 + PROOF_SHARE * WELCOME.liveness_s < 101.0 + WELCOME.liveness_s


def test_what_runs_outlives_a_dispatcher_that_is_surely_dead(slots: Slots) -> None:
    dead = [True]
    identity = s.Identity(mode="pull", host="h", pid=1, slots=4, python="3.11.0", dill="0.4")
    session = s.Session(identity, slots, lambda: WorkerId("w"), url="home", gone=lambda welcome, url: dead[0])
    join(session)
    slots.held = [RUNNING]
    now = 100.0
    for _ in range(100):  # far longer than its liveness
        now += 0.5
        assert stops(session.tick(now)) == []
    assert not session.joined
    dead[0] = False  # somebody listens there again, and has the usual time to welcome us
    assert stops(session.tick(now + 0.5)) == []
    assert stops(session.tick(now + PROOF_SHARE * WELCOME.liveness_s + 0.01)) == [RUNNING]


def test_an_idle_worker_stops_nothing(session: s.Session) -> None:
    join(session)
    assert stops(session.tick(150.0)) == []


def connects(directives: list[do.Directive]) -> list[str | None]:
    return [one.url for one in directives if isinstance(one, do.Reconnect)]


def test_it_goes_to_another_dispatcher_when_its_own_does_not_answer(slots: Slots) -> None:
    identity = s.Identity(mode="pull", host="h", pid=1, slots=4, python="3.11.0", dill="0.4")
    session = s.Session(identity, slots, lambda: WorkerId("w"), url="home")
    session.tick(100.0)
    session.heard(100.0, m.Welcome(DispatcherId("d"), 1.0, 3.0, peers=("second", "third")))
    tried, now = [], 100.0
    while len(tried) < 5 and now < 150:
        now += 0.25
        tried += connects(session.tick(now))
    assert tried == [None, "second", "third", "home", "second"]
    assert now < 103 + 5 * s.FAILOVER_S + 1


def test_it_learns_of_new_dispatchers_and_stays_where_it_is(slots: Slots) -> None:
    identity = s.Identity(mode="pull", host="h", pid=1, slots=4, python="3.11.0", dill="0.4")
    session = s.Session(identity, slots, lambda: WorkerId("w"), url="home")
    join(session)
    session.heard(100.1, m.Peers(("second",)))
    session.heard(100.2, m.Peers(("third",)))  # the second is gone, and may come back
    assert connects(session.tick(104.0)) == [None]
    assert connects(session.tick(106.0)) == ["third"]
    session.heard(106.1, m.Welcome(DispatcherId("d3"), 1.0, 3.0, peers=("home",)))
    assert connects(session.tick(110.0)) == [None], "first to where it was, which is the third"
    assert connects(session.tick(112.0)) == ["second"]


def test_a_dead_dispatchers_heirs_bound_how_long_attempts_go_on(slots: Slots) -> None:
    identity = s.Identity(mode="pull", host="h", pid=1, slots=4, python="3.11.0", dill="0.4")
    session = s.Session(identity, slots, lambda: WorkerId("w"), url="home", gone=lambda welcome, url: True)
    session.tick(100.0)
    session.heard(100.0, m.Welcome(DispatcherId("d"), 1.0, 3.0, peers=("heir",)))
    slots.held = [RUNNING]
    now = 100.0
    while not stops(session.tick(now)):
        now += 0.1
    assert m.EXCUSED_S_MAX - 0.01 <= now - 100.0 < 5.0


def test_heirs_of_another_mode_bound_it_too(slots: Slots) -> None:
    """They can't be joined, and still take over the tasks."""
    identity = s.Identity(mode="pull", host="h", pid=1, slots=4, python="3.11.0", dill="0.4")
    session = s.Session(identity, slots, lambda: WorkerId("w"), url="home", gone=lambda welcome, url: True)
    session.tick(100.0)
    session.heard(100.0, WELCOME)
    session.heard(100.1, m.Peers((), heirs=True))
    slots.held = [RUNNING]
    now = 100.0
    while not stops(session.tick(now)):
        now += 0.1
    assert now - 100.0 < 5.0
