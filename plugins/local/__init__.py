"""Mode `local`: the dispatcher runs the slots itself. No workers, no sockets."""

from __future__ import annotations

import os
import platform
from collections.abc import Collection, Iterable, Sequence
from importlib.metadata import version

from everfaas_core.dispatch.events import Beaten, CodeMissing, Ended, Joined, Told
from everfaas_core.hookspecs import Mode, hookimpl
from everfaas_core.model.ids import FunctionId, WorkerId
from everfaas_core.ports import LinkContext, LinkEvent, Selector, SlotHost
from everfaas_core.wire.messages import Kill, Outcome, Tasks, ToWorker

EVERFAAS_API_VERSION = 1


class LocalLink:
    """One worker that is not a process of its own: its slots are children of the dispatcher."""

    credit = "granted"
    bound = True

    def __init__(self, context: LinkContext) -> None:
        self._host: SlotHost = context.make_slots(context.slots)
        self._worker_id = WorkerId(f"local-{context.dispatcher_id}")
        self._joined = False
        self._granted = 0
        self._missing: list[FunctionId] = []
        self._outcomes: list[Outcome] = []

    @property
    def address(self) -> str:
        """There is no address: nobody can connect."""
        return ""

    def open(self, selector: Selector) -> None:
        """Start the slots."""
        self._host.start(selector)

    def receive(self, now: float, ready_fds: Collection[int]) -> Sequence[LinkEvent]:
        """Let the slots do their turn, and report what has ended, what code is missing, and new credit."""
        self._outcomes.extend(self._host.turn(now, ready_fds))
        if not self._joined:
            return self._join()
        events: list[LinkEvent] = []
        if (said := self._host.said(now)) is not None:
            events.append(Told(self._worker_id, said))
        if self._missing:
            events.append(CodeMissing(self._worker_id, tuple(self._missing)))
            self._missing.clear()
        granted = self._host.granted
        if self._outcomes:
            events.append(Ended(self._worker_id, tuple(self._outcomes), granted))
            self._outcomes = []
        elif granted != self._granted:
            events.append(Beaten(self._worker_id, granted))
        self._granted = granted
        return events

    def _join(self) -> Sequence[LinkEvent]:
        if not self._host.ready():
            return ()
        self._joined = True
        self._granted = self._host.granted
        return [
            Joined(
                worker_id=self._worker_id,
                slots=self._host.slots,
                granted=self._granted,
                host=platform.node(),
                pid=os.getpid(),
                python=platform.python_version(),
                dill=version("dill"),
            )
        ]

    def send(self, worker_id: WorkerId, message: ToWorker) -> None:
        """Hand tasks and kills to the slots; there is nobody to welcome or to acknowledge."""
        if isinstance(message, Tasks):
            self._missing.extend(self._host.offer(message))
        elif isinstance(message, Kill):
            self._host.kill(message.items)

    def fence(self, fence_s: float, until: float | None) -> None:
        """Leave it to the slots' keeper, which is a process of its own."""
        self._host.fence(fence_s, until)

    def next_timer(self) -> float | None:
        """Return when the slots want their next turn."""
        if self._missing:
            return 0.0
        due = [one for one in (self._host.next_timer(), self._host.said_timer()) if one is not None]
        return min(due, default=None)

    def close(self) -> None:
        """Kill and reap all slots."""
        self._host.close()


@hookimpl
def everfaas_modes() -> Iterable[Mode]:
    """Offer `local`."""
    return [
        Mode(
            name="local",
            summary="the dispatcher runs the slots itself, on this machine",
            factory=LocalLink,
            strategy="round-robin",
            runs_slots=True,
        )
    ]
