"""Slots as real processes under the real host: one task at a time, and streams of quick ones."""

from __future__ import annotations

import itertools
import logging
import time
from collections.abc import Collection

import dill

from bench.e2e.usage import cpu_s
from bench.micro.meter import Cost, Meter
from everfaas_core.model.ids import FunctionId, TaskId
from everfaas_core.model.states import Cause
from everfaas_core.runtime.poll import Poller
from everfaas_core.wire.messages import FunctionItem, TaskItem, Tasks
from everfaas_core.worker.host import ProcessHost, SlotConfig

TITLE = "slot"
ROUND_TRIPS = 500
STREAM = 1_000
SLOT_COUNTS = (1, 4)
PATIENCE_S = 30.0
FUNCTION = FunctionId("f" * 36)
NO_ARGUMENTS = dill.dumps(((), {}))


def measure(repeats: int) -> list[Cost]:
    """Return what a no-op costs from `offer` to its outcome. CPU is that of the worker and that of all slots."""
    costs = []
    for slots in SLOT_COUNTS:
        rig = _Rig(slots)
        try:
            meter = Meter(slots=rig.slots_cpu_s)
            for _ in range(repeats):
                if slots == 1:
                    with meter.phase("round trip: one at a time", ROUND_TRIPS):
                        for _ in range(ROUND_TRIPS):
                            rig.run(1)
                with meter.phase(f"a stream of {STREAM:,}: {slots} slot{'s' * (slots > 1)}", STREAM):
                    rig.run(STREAM)
            costs += meter.costs()
        finally:
            rig.close()
    return costs


class _Rig:
    """A host with a loop around it, as in a worker, that gives it as many tasks as it grants credit for."""

    def __init__(self, slots: int) -> None:
        self._poller = Poller()
        self._host = ProcessHost(SlotConfig(slots=slots), log=logging.getLogger("bench.micro"))
        self._host.start(self._poller)
        self._numbers = itertools.count()
        until = time.monotonic() + PATIENCE_S
        while len(self._host.pids()) < slots or self._host.granted < slots:
            if time.monotonic() > until:
                raise RuntimeError("the slots did not start")
            self._turn()
        code: bytes = dill.dumps(lambda: None, recurse=True)
        self._host.offer(Tasks((), (FunctionItem(FUNCTION, "no_op", code),)))
        self.run(STREAM)  # every slot loads it, and is known to be quick

    def slots_cpu_s(self) -> float:
        """Return the CPU time that the slots have used, in seconds."""
        return cpu_s(list(self._host.pids().values()))

    def run(self, count: int) -> None:
        """Run so many tasks, as fast as the host takes them."""
        left = waiting = count
        until = time.monotonic() + PATIENCE_S
        while waiting:
            room = min(self._host.granted - self._host.accepted, left)
            if room > 0:
                left -= room
                self._host.offer(Tasks(tuple(self._item() for _ in range(room))))
            waiting -= self._turn()
            if time.monotonic() > until:
                raise RuntimeError(f"{waiting} of {count} tasks have not ended")

    def close(self) -> None:
        self._host.close()
        self._poller.close()

    def _item(self) -> TaskItem:
        return TaskItem(TaskId(f"task-{next(self._numbers)}"), 1, FUNCTION, NO_ARGUMENTS)

    def _turn(self) -> int:
        due = self._host.next_timer()
        wait_s = PATIENCE_S if due is None else max(due - time.monotonic(), 0.0)
        ready: Collection[int] = self._poller.wait(wait_s)
        outcomes = self._host.turn(time.monotonic(), ready)
        if any(outcome.cause is not Cause.OK for outcome in outcomes):
            raise RuntimeError(f"a no-op failed: {outcomes}")
        return len(outcomes)
