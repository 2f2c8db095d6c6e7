"""Slots as real processes that are fed several quick tasks at a time: nobody waits, runs twice or pays for another."""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dill
import psutil
import pytest

from everfaas_core.model.states import Cause
from everfaas_core.wire.messages import Outcome, TaskItem, Tasks
from everfaas_core.worker.channel import Channel
from tests.unit.worker_kit import Slots, call, gone, wait_for


def code(function: Callable[..., Any]) -> bytes:
    """Pickle by value, with what it needs."""
    payload: bytes = dill.dumps(function, recurse=True, byref=False)
    return payload


def act(log: str, name: str, deed: str = "") -> str:
    """Write down that it runs; then do something out of the ordinary, if that is wanted."""
    import os
    import time

    file = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(file, f"{name}\n".encode())
    os.close(file)
    if deed == "wait":
        while not os.path.exists(log + ".go"):
            time.sleep(0.01)
    elif deed == "exit":
        os._exit(1)
    elif deed == "close all":
        os.closerange(3, 256)
    elif deed == "close pipes":
        for fd in [int(one) for one in os.listdir("/proc/self/fd")]:
            if fd > 2 and os.path.exists(f"/proc/self/fd/{fd}") and os.readlink(f"/proc/self/fd/{fd}")[:5] == "pipe:":
                os.close(fd)
    return name


ACT = code(act)


class Mix:
    """Many quick calls of one function, among them some that are not what they are thought to be."""

    def __init__(self, slots: Slots, directory: Path, count: int, deeds: dict[int, str]) -> None:
        self.log = directory / "log"
        slots.learn(ACT, call(str(self.log), "before"))
        self.log.unlink()
        self.slots = slots
        self.items: list[TaskItem] = []
        self.add(count, deeds)

    def add(self, count: int, deeds: dict[int, str]) -> None:
        """Offer so many more, all at once."""
        numbers = range(len(self.items), len(self.items) + count)
        payloads = [call(str(self.log), f"c{number}", deeds.get(number, "")) for number in numbers]
        self.items += self.slots.submit_all(ACT, payloads)

    def runs(self) -> Counter[str]:
        """Return how often each of them began."""
        return Counter(self.log.read_text().split())

    def others(self, *numbers: int) -> list[TaskItem]:
        """Return all but these."""
        return [item for number, item in enumerate(self.items) if number not in numbers]


def all_well(outcomes: list[Outcome]) -> bool:
    return all(outcome.cause is Cause.OK for outcome in outcomes)


def test_nobody_waits_behind_a_call_that_takes_long(tmp_path: Path) -> None:
    with Slots(2) as slots:
        mix = Mix(slots, tmp_path, 40, {0: "wait", 7: "wait-no-more"})
        assert all_well(slots.settle(mix.others(0)))  # those that were fed behind it to its slot as well
        assert [item.task_id for item in mix.items if (item.task_id, 1) not in slots.outcomes] == [mix.items[0].task_id]
        (tmp_path / "log.go").touch()
        (last,) = slots.settle(mix.items[:1])
        assert dill.loads(last.result) == "c0"
        assert mix.runs() == {f"c{number}": 1 for number in range(40)}


def test_two_that_take_long_give_back_what_waits_behind_them(tmp_path: Path) -> None:
    """With no slot left there are other workers."""
    with Slots(2) as slots:
        mix = Mix(slots, tmp_path, 2, {0: "wait", 1: "wait"})
        slots.until(lambda: mix.log.exists() and len(mix.runs()) == 2)
        mix.add(18, {})
        slots.until(lambda: len(slots.host.running()) == 2)
        given_back = mix.others(0, 1)
        assert {slots.outcomes[item.task_id, 1].cause for item in given_back} == {Cause.GIVEN_BACK}
        assert mix.runs() == {"c0": 1, "c1": 1}
        (tmp_path / "log.go").touch()
        assert all_well(slots.settle(mix.items))
        assert mix.runs() == {f"c{number}": 1 for number in range(20)}


def test_a_crash_costs_only_its_own_attempt(tmp_path: Path) -> None:
    with Slots(1) as slots:
        mix = Mix(slots, tmp_path, 30, {3: "exit", 17: "exit"})
        assert all_well(slots.settle(mix.others(3, 17)))
        causes = [outcome.cause for outcome in slots.settle([mix.items[3], mix.items[17]])]
        assert causes == [Cause.SLOT_CRASHED, Cause.SLOT_CRASHED]
        assert mix.runs() == {f"c{number}": 1 for number in range(30)}


def test_closing_all_descriptors_costs_only_its_own_attempt(tmp_path: Path) -> None:
    with Slots(1) as slots:
        mix = Mix(slots, tmp_path, 30, {3: "close all"})
        assert all_well(slots.settle(mix.others(3)))
        assert slots.settle([mix.items[3]])[0].cause is Cause.SLOT_CRASHED
        assert mix.runs() == {f"c{number}": 1 for number in range(30)}


def test_closing_the_pipe_of_permissions_costs_nobody_anything(tmp_path: Path) -> None:
    with Slots(1) as slots:
        mix = Mix(slots, tmp_path, 30, {3: "close pipes"})
        assert all_well(slots.settle(mix.items))
        assert mix.runs() == {f"c{number}": 1 for number in range(30)}


def test_a_stopped_slot_keeps_at_most_one_of_what_it_was_fed(tmp_path: Path) -> None:
    with Slots(2) as slots:
        slots.learn(ACT, call(str(tmp_path / "log"), "before"))
        stopped = slots.host.pids()[0]
        os.kill(stopped, signal.SIGSTOP)
        mix = Mix(slots, tmp_path, 60, {})
        slots.until(lambda: len(slots.host.running()) <= 1)
        os.kill(stopped, signal.SIGCONT)
        assert all_well(slots.settle(mix.items))
        assert mix.runs() == {f"c{number}": 1 for number in range(60)}


def test_a_cancel_of_what_waits_in_a_pipe_is_immediate(tmp_path: Path) -> None:
    with Slots(1) as slots:
        mix = Mix(slots, tmp_path, 8, {0: "wait"})
        slots.host.kill([(item.task_id, 1) for item in mix.items[2:4]])
        slots.until(lambda: all((item.task_id, 1) in slots.outcomes for item in mix.items[2:4]))
        assert {slots.outcomes[item.task_id, 1].cause for item in mix.items[2:4]} == {Cause.CANCELLED}
        (tmp_path / "log.go").touch()
        assert all_well(slots.settle(mix.others(2, 3)))
        assert not set(mix.runs()) & {"c2", "c3"}


def test_a_cancel_of_what_runs_costs_those_behind_it_nothing(tmp_path: Path) -> None:
    with Slots(1) as slots:
        mix = Mix(slots, tmp_path, 12, {0: "wait"})
        slots.until(mix.log.exists)
        slots.host.kill([(mix.items[0].task_id, 1)])
        assert all_well(slots.settle(mix.others(0)))
        assert slots.outcomes[mix.items[0].task_id, 1].cause is Cause.CANCELLED
        assert mix.runs() == {f"c{number}": 1 for number in range(12)}


def test_a_drain_begins_nothing_more(tmp_path: Path) -> None:
    with Slots(1) as slots:
        mix = Mix(slots, tmp_path, 12, {0: "wait"})
        slots.until(mix.log.exists)
        slots.host.drain()
        (tmp_path / "log.go").touch()
        slots.until(slots.host.idle)
        causes = Counter(slots.outcomes[item.task_id, 1].cause for item in mix.items)
        assert causes == {Cause.OK: 1, Cause.GIVEN_BACK: 11}
        assert mix.runs() == {"c0": 1}


def test_what_was_not_begun_when_the_worker_leaves_is_known_and_never_begins(tmp_path: Path) -> None:
    with Slots(1) as slots:
        mix = Mix(slots, tmp_path, 12, {0: "wait"})
        wait_for(mix.log.exists)
        assert set(slots.host.unbegun()) == {(item.task_id, 1) for item in mix.others(0)}
        (tmp_path / "log.go").touch()
        slots.until(lambda: (mix.items[0].task_id, 1) in slots.outcomes)
    assert mix.runs() == {"c0": 1}


def test_huge_payloads_of_a_quick_function_are_not_sent_again_and_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are on their way for longer than a slot may take to begin: in its pipe they would be taken back."""
    sent: list[int] = []
    feed = Channel.feed

    def counted(channel: Channel, tasks: Tasks) -> None:
        sent.extend(len(item.payload) for item in tasks.items)
        feed(channel, tasks)

    def size(data: bytes) -> int:
        return len(data)

    monkeypatch.setattr(Channel, "feed", counted)
    with Slots(1) as slots:
        payload = code(size)
        slots.learn(payload, call(b""))
        outcomes = slots.settle(slots.submit_all(payload, [call(bytes(20_000_000 + one)) for one in range(4)]))
        assert [dill.loads(outcome.result) for outcome in outcomes] == [20_000_000 + one for one in range(4)]
    assert sum(sent) < 81_000_000, "each goes to the slot when that is idle, and once"


def test_slots_that_come_and_go_leave_no_descriptor_behind() -> None:
    def descriptors(pid: int) -> int:
        return psutil.Process(pid).num_fds()

    with Slots(1) as slots:
        nursery = slots.host.nursery_pid()
        assert nursery is not None
        before = (descriptors(os.getpid()), descriptors(nursery))
        for _ in range(10):
            slots.value(ACT, call(os.devnull, "c"))  # so that its death is not taken for a failed start
            (pid,) = slots.host.pids().values()
            os.kill(pid, signal.SIGKILL)
            slots.until(lambda old=pid: slots.host.pids().get(0, old) != old and slots.host.ready())
            assert gone(pid)
        assert (descriptors(os.getpid()), descriptors(nursery)) == before
