"""The whole worker, with real slots, against a dispatcher played by the test over an uplink in memory."""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import dill
import pytest

from everfaas_core.model.ids import DispatcherId, FunctionId, TaskId
from everfaas_core.model.states import Cause
from everfaas_core.ports import Selector, Uplink
from everfaas_core.runtime.signals import STOP, StopRequest
from everfaas_core.wire import messages as m
from everfaas_core.wire.messages import Held, ToDispatcher, ToWorker
from everfaas_core.worker import agent as agents
from everfaas_core.worker.agent import Agent, AgentConfig
from everfaas_core.worker.host import ProcessHost, SlotConfig
from everfaas_core.worker.pipes import AHEAD_MAX
from tests.unit.worker_kit import PATIENCE_S, ROOT, call, gone, wait_for

M = TypeVar("M", bound=m.Message)
WELCOME = m.Welcome(DispatcherId("d1"), 0.2, 60.0)


class MemoryUplink:
    """A connection in memory: what the worker says is in `said`; `deliver` speaks to it."""

    def __init__(self) -> None:
        self.said: queue.Queue[ToDispatcher] = queue.Queue()
        self.connections = 1
        self.closed = False
        self._epoch = 0
        self.nobody_there = False
        self.urls: list[str | None] = []
        self._inbox: deque[tuple[int, ToWorker]] = deque()
        self._reader, self._writer = os.pipe()
        os.set_blocking(self._reader, False)

    def open(self, selector: Selector) -> None:
        selector.register(self._reader)

    def deliver(self, *messages: ToWorker) -> None:
        for message in messages:
            if isinstance(message, m.Tasks):
                message = m.Tasks(message.items, message.functions, self._epoch)
            self._inbox.append((self.connections, message))
        os.write(self._writer, b"!")

    def receive(self) -> Sequence[ToWorker]:
        with contextlib.suppress(BlockingIOError):
            os.read(self._reader, 4096)
        taken = []
        while self._inbox:
            connection, message = self._inbox.popleft()
            if connection == self.connections:
                taken.append(message)
        return taken

    def pending(self) -> bool:
        return False

    def send(self, message: ToDispatcher) -> None:
        if isinstance(message, m.Hello):
            self._epoch = message.epoch
        self.said.put(message)

    def absent(self, url: str) -> bool:
        return self.nobody_there

    def reconnect(self, url: str | None = None) -> None:
        self.urls.append(url)
        self.connections += 1

    def close(self) -> None:
        self.closed = True

    def release(self) -> None:
        os.close(self._reader)
        os.close(self._writer)


class Worker:
    """An agent in a thread, and what a dispatcher would know of it."""

    def __init__(self, slots: int = 2) -> None:
        self.uplink = MemoryUplink()
        self.stop = StopRequest()
        log = logging.getLogger("test.agent")
        self.host = ProcessHost(SlotConfig(slots=slots, path=(str(ROOT),)), log=log)
        config = AgentConfig(mode="pull", url="memory://test", slots=slots)
        self.agent = Agent(config, self.uplink, self.host, self.stop, log)
        self.status: int | None = None
        self.heard: list[ToDispatcher] = []
        self.pids: list[int] = []
        self._thread = threading.Thread(target=self._run)
        self._numbers = itertools.count(1)

    def _run(self) -> None:
        self.status = self.agent.run()

    def __enter__(self) -> Worker:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop.request(STOP)
        self._thread.join(PATIENCE_S)
        assert not self._thread.is_alive()
        self.stop.close()
        self.uplink.release()

    def join(self) -> m.Hello:
        hello = self.expect(m.Hello)
        self.uplink.deliver(WELCOME)
        self.wait(lambda: any(getattr(message, "granted", 0) >= self.host.slots for message in self.heard))
        self.pids = [*self.host.pids().values(), self.host.nursery_pid() or 0]
        return hello

    def expect(self, kind: type[M], where: Callable[[M], object] = lambda message: True) -> M:
        """Return the next message of a kind."""
        deadline = time.monotonic() + PATIENCE_S
        while True:
            message = self.uplink.said.get(timeout=max(deadline - time.monotonic(), 0.01))
            self.heard.append(message)
            if isinstance(message, kind) and where(message):
                return message

    def wait(self, condition: Callable[[], object]) -> None:
        while not condition():
            self.expect(m.Message)

    def ended(self) -> int:
        self._thread.join(PATIENCE_S)
        assert self.status is not None
        while not self.uplink.said.empty():
            self.heard.append(self.uplink.said.get())
        return self.status

    def run(self, *functions: Callable[..., Any], payload: bytes | None = None) -> list[Held]:
        """Send tasks, each with its code."""
        items, codes = [], []
        for function in functions:
            number = next(self._numbers)
            codes.append(m.FunctionItem(FunctionId(f"f{number}"), "f", dill.dumps(function, recurse=True)))
            items.append(m.TaskItem(TaskId(f"t{number}"), 1, FunctionId(f"f{number}"), payload or call()))
        self.uplink.deliver(m.Tasks(tuple(items), tuple(codes)))
        return [(item.task_id, item.attempt) for item in items]

    def outcome(self, key: Held) -> m.Outcome:
        """Wait for an outcome."""
        while True:
            for message in self.heard:
                for one in getattr(message, "items", ()) if isinstance(message, m.Outcomes) else ():
                    if (one.task_id, one.attempt) == key:
                        assert isinstance(one, m.Outcome)
                        return one
            self.expect(m.Message)


@pytest.fixture
def worker() -> Iterator[Worker]:
    with Worker() as started:
        yield started


def seven() -> int:
    return 7


def nap() -> str:
    import time

    time.sleep(0.6)
    return "rested"


def sleep_long() -> None:
    import time

    time.sleep(3600)


def hold_the_gil() -> int:
    return sum(range(10**13))


def touch_and_hold_the_gil(file: str) -> int:
    import pathlib

    pathlib.Path(file).touch()
    return sum(range(10**13))


def all_gone(worker: Worker) -> bool:
    return bool(worker.pids) and all(gone(pid) for pid in worker.pids)


def test_the_uplink_of_these_tests_is_one(worker: Worker) -> None:
    uplink: Uplink = worker.uplink
    assert uplink.pending() is False


def test_it_joins_runs_and_reports(worker: Worker) -> None:
    hello = worker.join()
    assert hello.slots == 2
    assert hello.pid == os.getpid()
    assert hello.version == m.PROTOCOL_VERSION
    assert hello.dill == dill.__version__
    (key,) = worker.run(seven)
    outcome = worker.outcome(key)
    assert (outcome.cause, dill.loads(outcome.result)) == (Cause.OK, 7)
    last = [message for message in worker.heard if isinstance(message, m.Outcomes)][-1]
    wanted = 2 + 2 * AHEAD_MAX  # a task a slot, and more because it was a quick one
    assert (last.granted, last.window) == (1 + wanted, wanted)


def test_missing_code_is_asked_for(worker: Worker) -> None:
    worker.join()
    item = m.TaskItem(TaskId("t"), 1, FunctionId("f"), call())
    worker.uplink.deliver(m.Tasks((item,)))
    assert worker.expect(m.Missing).functions == ("f",)
    worker.uplink.deliver(m.Tasks((), (m.FunctionItem(FunctionId("f"), "f", dill.dumps(seven, recurse=True)),)))
    assert worker.outcome(("t", 1)).cause is Cause.OK  # type: ignore[arg-type]


def test_it_beats_while_a_function_holds_the_gil(worker: Worker) -> None:
    worker.join()
    worker.run(hold_the_gil, hold_the_gil)
    for _ in range(4):
        worker.expect(m.Beat)
    worker.uplink.deliver(m.Kill(tuple(worker.host.running())))
    assert worker.outcome((TaskId("t1"), 1)).cause is Cause.CANCELLED


def test_unacknowledged_outcomes_are_presented_to_the_next_dispatcher(worker: Worker) -> None:
    worker.join()
    done, running = worker.run(seven, sleep_long)
    worker.outcome(done)
    worker.heard.clear()
    worker.uplink.deliver(m.Stranger())
    hello = worker.expect(m.Hello)
    assert set(hello.held) == {done, running}
    assert 1 <= hello.granted <= 1 + 2 * AHEAD_MAX  # one slot is free, and of late tasks were quick
    worker.uplink.deliver(m.Welcome(DispatcherId("d2"), 0.2, 60.0))
    assert worker.outcome(done).cause is Cause.OK
    worker.uplink.deliver(m.Ack((done,)))
    worker.uplink.deliver(m.Stranger())
    assert worker.expect(m.Hello).held == (running,)


def test_a_dispatcher_that_falls_silent_is_looked_for_again() -> None:
    with Worker(1) as worker:
        worker.expect(m.Hello)
        worker.uplink.deliver(m.Welcome(DispatcherId("d"), 0.1, 0.5))
        worker.expect(m.Hello)
        assert worker.uplink.connections >= 2


def test_a_final_refusal_ends_it_with_status_2(worker: Worker, caplog: pytest.LogCaptureFixture) -> None:
    worker.expect(m.Hello)
    worker.uplink.deliver(m.Refuse("handshake", "this dispatcher runs in push mode"))
    assert worker.ended() == agents.EXIT_REFUSED == 2
    assert "push mode" in caplog.text
    assert not any(isinstance(message, m.Bye) for message in worker.heard)


@pytest.mark.parametrize("how", ["signal", "quit"])
def test_a_drain_finishes_what_runs_and_leaves_nothing(how: str) -> None:
    with Worker(1) as worker:
        worker.join()
        running, waiting = worker.run(nap, seven)
        worker.expect(m.Beat)
        if how == "signal":
            worker.stop.request()
        else:
            worker.uplink.deliver(m.Quit())
        assert worker.outcome(waiting).cause is Cause.GIVEN_BACK
        assert dill.loads(worker.outcome(running).result) == "rested"
        worker.uplink.deliver(m.Ack((running, waiting)))
        assert worker.ended() == 0
        assert worker.heard[-1] == m.Bye(())
        assert all_gone(worker)
        assert worker.uplink.closed


def test_a_drain_does_not_wait_for_acknowledgements_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agents, "ACK_S_MAX", 0.3)
    with Worker(1) as worker:
        worker.join()
        (key,) = worker.run(seven)
        worker.outcome(key)
        worker.stop.request()
        assert worker.ended() == agents.EXIT_FORCED
        assert worker.heard[-1] == m.Bye(())


def test_a_second_signal_stops_at_once(worker: Worker, tmp_path: Path) -> None:
    worker.join()
    files = [tmp_path / "one", tmp_path / "two"]
    for file in files:
        worker.run(touch_and_hold_the_gil, payload=call(str(file)))
    wait_for(lambda: all(file.exists() for file in files), "both to begin: else they would be given back, too")
    worker.run(seven)
    worker.expect(m.Beat)
    worker.stop.request()
    worker.outcome((TaskId("t3"), 1))
    worker.stop.request(STOP)
    assert worker.ended() == agents.EXIT_FORCED
    assert worker.heard[-1] == m.Bye(((TaskId("t3"), 1),))  # given back, and not yet acknowledged
    assert all_gone(worker)


def test_an_idle_worker_without_a_dispatcher_ends_at_the_first_signal(worker: Worker) -> None:
    worker.expect(m.Hello)
    worker.stop.request()
    assert worker.ended() == 0


def test_it_says_once_what_it_waits_for(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(agents, "LONELY_S", 0.1)
    with Worker(1) as worker:
        worker.expect(m.Hello)
        worker.expect(m.Hello)  # two seconds later
        said = [record for record in caplog.records if "no dispatcher answers at memory://test" in record.message]
        assert len(said) == 1
        assert "run_dispatcher.py -m pull" in said[0].message
