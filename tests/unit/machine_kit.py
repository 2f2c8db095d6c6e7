"""What the tests of the worker's machine share: tasks, answers, and machines that are ready to work."""

from __future__ import annotations

from collections.abc import Iterable

from everfaas_core.model.ids import FunctionId, TaskId
from everfaas_core.model.states import Cause
from everfaas_core.wire.messages import Held, Outcome, TaskItem
from everfaas_core.worker import actions as do
from everfaas_core.worker import events as ev
from everfaas_core.worker.machine import Machine

F = FunctionId("f")


def task(number: int, *, function: FunctionId = F, timeout_s: float | None = None) -> TaskItem:
    return TaskItem(TaskId(f"t{number}"), 1, function, b"payload", timeout_s)


def tasks(numbers: Iterable[int], *, function: FunctionId = F, timeout_s: float | None = None) -> tuple[TaskItem, ...]:
    return tuple(task(number, function=function, timeout_s=timeout_s) for number in numbers)


def key(item: TaskItem) -> Held:
    return item.task_id, item.attempt


def ok(item: TaskItem, cause: Cause = Cause.OK, run_s: float | None = None) -> Outcome:
    return Outcome(item.task_id, item.attempt, cause, b"42", None, run_s)


def up(slots: int) -> Machine:
    """Return a machine whose slots are live, and which has the code of F."""
    machine = Machine(slots)
    assert machine.step(0.0, []) == [do.SpawnSlot(index) for index in range(slots)]
    assert machine.step(0.0, [ev.CodeArrived((F,)), *(ev.SlotUp(index) for index in range(slots))]) == []
    return machine


def learn(machine: Machine, run_s: float, *, function: FunctionId = F, now: float = 0.0, slot: int = 0) -> None:
    """Have an idle slot (which it has to be that is chosen) run a function once, in so long."""
    item = TaskItem(TaskId(f"first of {function}"), 1, function, b"")
    assert [one for one in machine.step(now, [ev.Offered((item,))]) if isinstance(one, do.Feed) and one.slot == slot]
    assert do.Report(ok(item, run_s=run_s)) in machine.step(now, [ev.SlotSaid(slot, ok(item, run_s=run_s))])


def reports(actions: list[do.Action]) -> list[tuple[TaskId, Cause]]:
    return [(one.outcome.task_id, one.outcome.cause) for one in actions if isinstance(one, do.Report)]


def feeds(actions: list[do.Action]) -> list[tuple[int, list[TaskId]]]:
    return [(one.slot, [item.task_id for item in one.items]) for one in actions if isinstance(one, do.Feed)]


def pipe(machine: Machine, slot: int) -> list[TaskId]:
    return [item.task_id for item in machine.slots[slot].queue]
