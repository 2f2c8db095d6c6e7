"""The worker process: joins a dispatcher, keeps its slots busy, leaves in order."""

from __future__ import annotations

import logging
import os
import platform
import secrets
import time
from collections.abc import Callable, Iterable, Sequence
from importlib.metadata import version
from typing import Final, Protocol

from msgspec import Struct

from everfaas_core.model.ids import WorkerId
from everfaas_core.ports import SlotHost, Uplink
from everfaas_core.runtime.poll import Poller
from everfaas_core.runtime.processes import is_alive, this_machine
from everfaas_core.runtime.signals import DRAIN, STOP, StopRequest
from everfaas_core.wire.messages import Bye, Held, Welcome
from everfaas_core.worker import directives as do
from everfaas_core.worker import session as s

LONELY_S: Final = 3.0
"""Without a dispatcher for so long, say once what is waited for."""

ACK_S_MAX: Final = 5.0
"""How long a drained worker waits for its last outcomes to be acknowledged."""

EXIT_OK: Final = 0
EXIT_FORCED: Final = 1  # stopped by a second signal, or outcomes could not be delivered
EXIT_REFUSED: Final = 2  # version or mode do not match: trying again would not help


class WorkerHost(SlotHost, Protocol):
    """What an agent needs of its slots beyond the port."""

    @property
    def accepted(self) -> int:
        """Tasks accepted so far."""

    @property
    def ahead(self) -> bool:
        """Whether each slot has something to do after its current task."""

    def drain(self) -> None:
        """Begin nothing more; report what never began as GIVEN_BACK."""

    def idle(self) -> bool:
        """Tell whether nothing runs, waits to run, or waits to be reported."""

    def unbegun(self) -> Sequence[Held]:
        """Return accepted attempts that no slot has begun, and none will. What comes next is `close`."""


class AgentConfig(Struct, frozen=True, kw_only=True):
    mode: str
    url: str  # as the operator wrote it; for messages
    slots: int


class Agent:
    """One worker. `run` returns the process's exit status; afterwards no process of the worker is left."""

    def __init__(
        self,
        config: AgentConfig,
        uplink: Uplink,
        host: WorkerHost,
        stop: StopRequest,
        log: logging.Logger,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._config = config
        self._uplink = uplink
        self._host = host
        self._stop = stop
        self._log = log
        self._clock = clock
        self._poller = Poller()
        self._session = s.Session(self._identity(), host, self._new_id(), url=config.url, gone=self._gone)
        self._draining = False
        self._turned_at = 0.0
        self._drained_at: float | None = None  # when nothing ran any more
        self._lonely_since: float | None = None
        self._exit: int | None = None

    def _identity(self) -> s.Identity:
        return s.Identity(
            mode=self._config.mode,
            host=platform.node(),
            pid=os.getpid(),
            slots=self._config.slots,
            python=platform.python_version(),
            dill=version("dill"),
        )

    def _new_id(self) -> WorkerId:
        return WorkerId(f"{platform.node()}-{os.getpid()}-{secrets.token_hex(4)}")

    def _gone(self, welcome: Welcome, url: str) -> bool:
        """Tell whether the dispatcher that welcomed us there is surely dead, and nobody has taken its place."""
        if welcome.machine == this_machine() and is_alive(welcome.pid):
            return False
        return self._uplink.absent(url)

    def run(self) -> int:
        """Work until told to stop. Raises ConfigError if the url is no good."""
        try:
            self._poller.register(self._stop.fileno())
            self._uplink.open(self._poller)
            self._host.start(self._poller)
            self._turned_at = self._lonely_since = self._clock()
            while self._exit is None:
                self._turn()
            self._say_bye()
        finally:
            self._host.close()
            self._uplink.close()
            self._poller.close()
        return self._exit

    def _turn(self) -> None:
        ready_fds = self._poller.wait(self._timeout_s())
        now = self._clock()
        self._carry_out(self._session.overslept(now, now - self._turned_at))
        self._turned_at = now
        self._obey_signals(ready_fds)
        for message in self._uplink.receive():
            if not self._carry_out(self._session.heard(now, message)):
                break  # the connection was replaced: what else came over it is void
        self._session.ended(self._host.turn(now, ready_fds))
        self._carry_out(self._session.tick(now))
        self._watch_for_dispatcher(now)
        if self._draining and self._exit is None:
            self._leave_when_done(now)

    def _timeout_s(self) -> float:
        if self._uplink.pending():
            return 0.0
        times = [self._session.next_timer()]
        if (due := self._host.next_timer()) is not None:
            times.append(due)
        if self._lonely_since is not None:
            times.append(self._lonely_since + LONELY_S)
        if self._drained_at is not None:
            times.append(self._drained_at + ACK_S_MAX)
        return max(min(times) - self._clock(), 0.0)

    def _obey_signals(self, ready_fds: set[int]) -> None:
        if self._stop.fileno() in ready_fds:
            self._stop.clear_wakeup()
        if self._stop.level >= STOP:
            self._log.warning("stopping at once; %d running tasks are killed", len(self._host.running()))
            self._exit = EXIT_FORCED
        elif self._stop.level >= DRAIN:
            self._drain("asked to stop")

    def _carry_out(self, directives: Iterable[do.Directive]) -> bool:
        """Do what the session says; return False if the connection was replaced."""
        same_connection = True
        for directive in directives:
            match directive:
                case do.Say(message):
                    self._uplink.send(message)
                case do.Accept(tasks):
                    self._carry_out(self._session.lacks(self._host.offer(tasks)))
                case do.StopAttempts(items):
                    if items:
                        self._host.kill(items)
                case do.Reconnect(url):
                    self._uplink.reconnect(url or None)
                    same_connection = False
                case do.Drain():
                    self._drain("the dispatcher asked this worker to leave")
                case do.Fence(seconds, until):
                    self._host.fence(seconds, until)
                case do.Leave(reason):
                    self._log.error("the dispatcher at %s refused this worker: %s", self._config.url, reason)
                    self._exit = EXIT_REFUSED
                case do.Note(text):
                    self._log.info("%s", text)
        return same_connection

    def _drain(self, why: str) -> None:
        if not self._draining:
            self._draining = True
            self._log.info("draining (%s): %d tasks to finish", why, len(self._host.running()))
            self._carry_out(self._session.drain())
            self._host.drain()

    def _leave_when_done(self, now: float) -> None:
        """End once nothing runs and all outcomes are stored, or have had their time."""
        if not self._host.idle():
            self._drained_at = None
            return
        if self._drained_at is None:
            self._drained_at = now
        if not self._session.retained:
            self._exit = EXIT_OK
        elif now >= self._drained_at + ACK_S_MAX:
            count = len(self._session.retained)
            self._log.warning("%d outcomes were not acknowledged within %g s; leaving all the same", count, ACK_S_MAX)
            self._exit = EXIT_FORCED

    def _say_bye(self) -> None:
        """Let go of everything first: a Bye says that nothing of ours runs any more."""
        returned = self._session.returned(self._host.unbegun())
        self._host.close()
        if self._exit != EXIT_REFUSED:
            self._uplink.send(Bye(returned))

    def _watch_for_dispatcher(self, now: float) -> None:
        if self._session.joined:
            self._lonely_since = None
        elif self._lonely_since is None:
            self._lonely_since = now
        if self._lonely_since is not None and now >= self._lonely_since + LONELY_S:
            self._log.warning(
                "no dispatcher answers at %s; still trying. Start one there with: run_dispatcher.py -m %s",
                self._config.url,
                self._config.mode,
            )
            self._lonely_since = float("inf")  # said once, until the next time it is lost
