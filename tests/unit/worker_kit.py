"""What the tests of the worker share: a client in a process of its own, and slots with a loop around them."""

from __future__ import annotations

import itertools
import logging
import os
import pickle
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import dill
import psutil
from msgspec import structs

from everfaas_core.model.ids import FunctionId, TaskId
from everfaas_core.model.output import Printed, Progressed, Stream
from everfaas_core.model.states import Cause
from everfaas_core.runtime.poll import Poller
from everfaas_core.wire.messages import FunctionItem, Held, Outcome, TaskItem, Tasks
from everfaas_core.worker.host import ProcessHost, SlotConfig
from everfaas_core.worker.pipes import AHEAD_S, PIPE_S

ROOT = Path(__file__).parent.parent.parent
PATIENCE_S = 30.0
"""How long the tests wait for what should take milliseconds, before they call it a failure."""


def client_payloads(source: str, directory: Path) -> dict[str, bytes]:
    """Run `source` as a client's script; return its `payloads`, pickled by dill.dumps unless they are bytes."""
    script = directory / "client.py"
    target = directory / "payloads.pickle"
    script.write_text(
        f"{source}\n"
        "import dill, pickle\n"
        "done = {name: value if isinstance(value, bytes) else dill.dumps(value) for name, value in payloads.items()}\n"
        f"pickle.dump(done, open({str(target)!r}, 'wb'))\n"
    )
    subprocess.run([sys.executable, str(script)], check=True, cwd=directory, timeout=60)
    loaded: dict[str, bytes] = pickle.loads(target.read_bytes())
    return loaded


def client_sees(result: bytes, expression: str, directory: Path, source: str = "") -> str:
    """Load a result in a fresh process that has dill and not everfaas; return what it prints for `expression` of it."""
    file = directory / f"{uuid.uuid4()}.result"
    file.write_bytes(result)
    script = directory / f"client_{uuid.uuid4().hex}.py"
    script.write_text(
        f"{source}\nimport dill, sys\nsys.modules['everfaas_core'] = sys.modules['everfaas_plugins'] = None\n"
        f"value = dill.loads(open({str(file)!r}, 'rb').read())\nprint(({expression}))\n"
    )
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, cwd=directory, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def call(*args: Any, **kwargs: Any) -> bytes:
    """Return the payload of a call."""
    payload: bytes = dill.dumps((args, kwargs))
    return payload


def gone(pid: int) -> bool:
    """Tell whether a process has ended (a zombie has)."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def wait_for(condition: Callable[[], object], what: str = "") -> None:
    """Wait until `condition` holds."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain: {what or condition}"
        time.sleep(0.005)


class Slots:
    """A host with a loop. Functions may be payloads, or are pickled here."""

    def __init__(self, slots: int = 1, *, path: tuple[str, ...] = (), keep_env: tuple[str, ...] = ()) -> None:
        self.poller = Poller()
        self.host = ProcessHost(
            SlotConfig(slots=slots, path=(*path, str(ROOT)), keep_env=keep_env), log=logging.getLogger("test.worker")
        )
        self.outcomes: dict[Held, Outcome] = {}
        self.printed: list[Printed] = []
        self.progress: list[Progressed] = []
        self._ids = itertools.count(1)
        self._functions: dict[bytes, FunctionId] = {}

    def __enter__(self) -> Slots:
        self.host.start(self.poller)
        self.until(lambda: len(self.host.pids()) == self.host.slots and self.host.granted >= self.host.slots)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self.host.close()
        self.poller.close()

    def turn(self) -> None:
        """One turn of the loop."""
        timers = [one for one in (self.host.next_timer(), self.host.said_timer()) if one is not None]
        wait_s = min(max(min(timers) - time.monotonic(), 0.0), 0.25) if timers else 0.25
        ready = self.poller.wait(wait_s)
        outcomes = self.host.turn(time.monotonic(), ready)
        if (said := self.host.said(time.monotonic())) is not None:
            self.printed += said.printed
            self.progress += said.progress
        for outcome in outcomes:
            key = (outcome.task_id, outcome.attempt)
            assert key not in self.outcomes, "an attempt was reported twice"
            self.outcomes[key] = outcome

    def until(self, condition: Callable[[], object], patience_s: float = PATIENCE_S) -> None:
        """Turn until `condition` holds."""
        deadline = time.monotonic() + patience_s
        while not condition():
            assert time.monotonic() < deadline, "waited in vain"
            self.turn()

    def submit(
        self,
        function: Callable[..., Any] | bytes,
        payload: bytes | None = None,
        *,
        timeout_s: float | None = None,
        python: str | None = None,
    ) -> Held:
        """Offer one task, its code with it when that is new."""
        (item,) = self.submit_all(function, [call() if payload is None else payload], timeout_s, python)
        return item.task_id, item.attempt

    def submit_all(
        self,
        function: Callable[..., Any] | bytes,
        payloads: Iterable[bytes],
        timeout_s: float | None = None,
        python: str | None = None,
    ) -> list[TaskItem]:
        """Offer a task for each payload, all at once."""
        code = function if isinstance(function, bytes) else dill.dumps(function)
        functions: tuple[FunctionItem, ...] = ()
        if code not in self._functions:
            self._functions[code] = FunctionId(str(uuid.uuid4()))
            name = getattr(function, "__name__", "function")
            functions = (FunctionItem(self._functions[code], name, code, python),)
        function_id = self._functions[code]
        items = [TaskItem(TaskId(f"task-{next(self._ids)}"), 1, function_id, one, timeout_s) for one in payloads]
        assert self.host.offer(Tasks(tuple(items), functions)) == []
        return items

    def offer_again(self, item: TaskItem) -> TaskItem:
        """Offer the next attempt of a task, as a dispatcher does with what was given back."""
        item = structs.replace(item, attempt=item.attempt + 1)
        self.host.offer(Tasks((item,)))
        return item

    def settle(self, items: list[TaskItem]) -> list[Outcome]:
        """Turn until tasks have ended; what is given back is offered again. Return how, in their order."""
        ended = []
        for item in items:
            outcome = self.wait((item.task_id, item.attempt))
            while outcome.cause is Cause.GIVEN_BACK:
                item = self.offer_again(item)
                outcome = self.wait((item.task_id, item.attempt))
            ended.append(outcome)
        return ended

    def learn(self, function: bytes, payload: bytes) -> None:
        """Run a function until it is known to be so quick that slots are fed several of its tasks at a time."""
        each_slot = 1 + int(AHEAD_S / (PIPE_S / 4))
        deadline = time.monotonic() + PATIENCE_S
        while self.host.window < self.host.slots * each_slot:
            assert time.monotonic() < deadline, "waited in vain"
            self.settle(self.submit_all(function, [payload]))

    def wait(self, key: Held) -> Outcome:
        """Turn until an attempt has ended."""
        self.until(lambda: key in self.outcomes)
        return self.outcomes[key]

    def run(self, function: Callable[..., Any] | bytes, payload: bytes | None = None, **options: Any) -> Outcome:
        """Run one task and return its outcome."""
        return self.wait(self.submit(function, payload, **options))

    def log(self, key: Held, stream: Stream | None = None) -> bytes:
        """Return what an attempt has printed, as far as it was heard; `stream`: only there."""
        mine = [one for one in self.printed if (one.task_id, one.attempt) == key]
        return b"".join(one.text for one in mine if stream is None or one.stream is stream)

    def value(self, function: Callable[..., Any] | bytes, payload: bytes | None = None) -> Any:
        """Run one task and return its value; what it raised is raised."""
        value = dill.loads(self.run(function, payload).result)
        if isinstance(value, BaseException):
            raise value
        return value


def environment(**changes: str) -> Mapping[str, str]:
    """Return this process's environment with changes."""
    return {**os.environ, **changes}
