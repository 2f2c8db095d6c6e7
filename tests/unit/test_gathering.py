"""When a dispatcher's next exchange with the store is due."""

from __future__ import annotations

import pytest

from everfaas_core.model.ids import DispatcherId, FunctionId, TaskId, WorkerId
from everfaas_core.model.records import ClaimedTask, Start, Turn, TurnReply
from everfaas_core.runtime import gathering as g


def turn(*, claim: int = 0, starts: int = 0) -> Turn:
    begun = tuple(Start(task_id=TaskId(f"t{n}"), attempt=1, worker=WorkerId("w")) for n in range(starts))
    return Turn(dispatcher_id=DispatcherId("d"), claim=claim, starts=begun)


def claimed(count: int) -> TurnReply:
    tasks = (ClaimedTask(task_id=TaskId(f"t{n}"), function_id=FunctionId("f"), payload=b"") for n in range(count))
    return TurnReply(claimed=tuple(tasks))


def test_with_little_to_do_nothing_waits() -> None:
    gathering = g.Gathering()
    assert not gathering.waits(10.0, 1)
    gathering.exchanged(10.0, turn(claim=8), claimed(1), ahead=True)
    assert not gathering.waits(10.0, 1)


def test_after_a_large_exchange_the_next_one_waits_a_little() -> None:
    gathering = g.Gathering()
    gathering.exchanged(10.0, turn(starts=g.BUSY_MIN), TurnReply(), ahead=False)
    assert gathering.until == pytest.approx(10.0 + g.GATHER_S)
    assert gathering.waits(10.0, 1)
    assert not gathering.waits(10.0, g.GATHER_MAX), "so many are worth it"
    assert not gathering.waits(gathering.until, 1)


@pytest.mark.parametrize("starts", [0, 1, g.BUSY_MIN])
def test_with_more_queued_than_claimed_and_quick_tasks_at_hand_it_waits_longer(starts: int) -> None:
    gathering = g.Gathering()
    gathering.exchanged(10.0, turn(claim=4), claimed(4), ahead=True)
    gathering.exchanged(10.1, turn(starts=starts), TurnReply(), ahead=True)  # which has claimed nothing: still behind
    assert gathering.until == pytest.approx(10.1 + g.GATHER_BEHIND_S)


def test_slow_tasks_never_wait_for_that() -> None:
    gathering = g.Gathering()
    gathering.exchanged(10.0, turn(claim=4), claimed(4), ahead=False)
    assert not gathering.waits(10.0, 1)


def test_the_end_of_the_queue_ends_the_wait() -> None:
    gathering = g.Gathering()
    gathering.exchanged(10.0, turn(claim=4), claimed(4), ahead=True)
    gathering.exchanged(10.1, turn(claim=4), claimed(3), ahead=True)
    assert not gathering.waits(10.1, 1)
