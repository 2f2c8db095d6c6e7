"""The worker's conversation with its dispatcher: what to say and do next, and when. No I/O, no clock of its own.

A connection is begun with a Hello, and nothing else is said on it before the Welcome. Whenever the connection may be
broken it is replaced and begun anew, so the dispatcher can take `held` as the truth: what it sent before and we do not
list will never arrive.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from enum import StrEnum
from typing import Final, Protocol

from msgspec import Struct

from everfaas_core.model.ids import DispatcherId, FunctionId, WorkerId
from everfaas_core.model.states import Cause
from everfaas_core.wire import messages as m
from everfaas_core.wire.messages import Held, Outcome
from everfaas_core.worker.contact import Contact
from everfaas_core.worker.directives import (
    Accept,
    Directive,
    Drain,
    Fence,
    Leave,
    Note,
    Reconnect,
    Say,
    StopAttempts,
)

HELLO_S_FIRST: Final = 2.0
HELLO_S_MAX: Final = 8.0
"""A Hello that is not answered is said again on a new connection, after waits that double between these two."""

FENCE_SHARE: Final = 0.6
"""Of the liveness: a worker that was stopped for so long trusts nothing it was sent, and its slots are dead by then,
before the dispatcher gives their tasks to others."""

URLS_MAX: Final = 8
"""Dispatchers whose addresses are remembered."""

FAILOVER_S: Final = 1.0
"""How long each dispatcher is tried for when there are several."""

ABSENCE_S: Final = 0.5
"""How often it is asked whether the dispatcher is gone, while it does not answer and something runs."""

OUTCOMES_MAX: Final = 1_000
"""Outcomes in one message."""

RETAINED_BYTES_MAX: Final = 1024**3
"""With more results than this waiting to be acknowledged, no new credit is granted."""

GATHER_S: Final = 0.008
GATHER_MAX: Final = 128
"""How long, or for how many, outcomes wait for others while each slot has more to do. Far less than a Beat."""


class Identity(Struct, frozen=True, kw_only=True):
    """What a Hello says of a worker, the same for all of its incarnations."""

    mode: str
    host: str
    pid: int
    slots: int
    python: str
    dill: str


class Capacity(Protocol):
    """What the session reads of the slots."""

    @property
    def granted(self) -> int:
        """Cumulative credit since the start."""

    @property
    def window(self) -> int:
        """Tasks that it wants to have at hand now."""

    @property
    def accepted(self) -> int:
        """Tasks accepted since the start."""

    @property
    def ahead(self) -> bool:
        """Whether each slot has something to do after its current task."""

    def said(self, now: float) -> m.Said | None:
        """What attempts have printed, if that is due."""

    def said_timer(self) -> float | None:
        """When it will be."""

    def running(self) -> Iterable[Held]:
        """Attempts accepted and not reported."""


class Phase(StrEnum):
    JOINING = "joining"  # Hello said (or about to be), not answered
    JOINED = "joined"


class Session:
    """See the module. Instants are monotonic seconds."""

    def __init__(
        self,
        identity: Identity,
        capacity: Capacity,
        worker_id: WorkerId,
        *,
        url: str = "",
        gone: Callable[[m.Welcome, str], bool] = lambda welcome, url: False,
    ) -> None:
        """`url` is where the first connection goes. `gone` tells whether who welcomed us there is surely dead."""
        self._identity = identity
        self._capacity = capacity
        self._urls = [url]  # where to try, in turn; the first is the operator's
        self._tried = 0
        self._heirs = False
        self._welcomed_at = url
        self._gone = gone
        self._contact = Contact()
        self._doubted_at = 0.0
        self._fenced_until = self._contact.ends_at(3.0, float("inf"))
        self.worker_id = worker_id
        self.phase = Phase.JOINING
        self.retained: dict[Held, Outcome] = {}  # outcomes until they are acknowledged
        self._retained_bytes = 0
        self._unsent: list[Held] = []
        self._gather_until: float | None = None
        self._lacking: set[FunctionId] = set()
        self._base = 0  # tasks accepted before the last Hello: credit counts from there
        self._granted = 0  # as last said, since the last Hello
        self._hello_at = 0.0  # when to say Hello (again)
        self._hello_wait_s = HELLO_S_FIRST
        self._heard_at = 0.0
        self._beat_at = 0.0
        self._epoch = 0  # counts our Hellos
        self._draining = False
        self._welcome = m.Welcome(DispatcherId(""), 1.0, 3.0)  # replaced by the first one that comes

    @property
    def joined(self) -> bool:
        """Whether the dispatcher has welcomed us, and is not known to be gone."""
        return self.phase is Phase.JOINED

    @property
    def liveness_s(self) -> float:
        """The silence that means lost, as the dispatcher sets it."""
        return self._welcome.liveness_s

    # ── what comes in ────────────────────────────────────────────────────────────────────────────────────────────────

    def heard(self, now: float, message: m.ToWorker) -> list[Directive]:
        """Take in a message; return what is to be done."""
        self._heard_at = now
        match message:
            case m.Welcome():
                return self._on_welcome(now, message)
            case m.Stranger():
                return self._on_stranger(now)
            case m.Refuse(_, reason):
                return [Leave(reason)]
            case m.Quit():
                return [Drain()]
            case m.Pulse():
                self._contact.pulse()
            case m.Peers(addresses, heirs):
                self._meet(addresses, heirs)
            case m.Ack(items):
                for key in items:
                    if (outcome := self.retained.pop(key, None)) is not None:
                        self._retained_bytes -= len(outcome.result)
            case m.Tasks(items, functions, epoch) if self.joined:
                self._lacking.difference_update(item.function_id for item in functions)
                ours = items if epoch == self._epoch else ()
                known = tuple(item for item in ours if (item.task_id, item.attempt) not in self.retained)
                return [Accept(m.Tasks(known, functions))]
            case m.Kill(items) if self.joined:
                return self._on_kill(items)
            case _:
                pass  # something from before the Welcome, which the dispatcher knows to be lost
        return []

    def _on_welcome(self, now: float, welcome: m.Welcome) -> list[Directive]:
        if self.joined:
            return []
        self._welcome = welcome
        self._welcomed_at = self._urls[self._tried % len(self._urls)]
        self._contact.welcomed()
        self._meet(welcome.peers, welcome.heirs)
        self.phase = Phase.JOINED
        self._hello_wait_s = HELLO_S_FIRST
        self._unsent = list(self.retained)
        self._beat_at = now  # a Beat at once: it tells the dispatcher that we count on it from now on
        say: list[Directive] = [
            Note(f"joined dispatcher {welcome.dispatcher_id} as {self.worker_id}"),
            self._fence_order(),
        ]
        if self._draining:
            say.append(Say(m.Draining()))
        if self._lacking:
            say.append(Say(m.Missing(tuple(self._lacking))))
        return say

    def _meet(self, addresses: tuple[str, ...], heirs: bool) -> None:
        """Remember where else to go; those that have gone may come back, and stay on the list while it is short."""
        self._heirs = heirs
        home, here = self._urls[0], self._urls[self._tried % len(self._urls)]
        self._urls = list(dict.fromkeys([home, here, *addresses, *self._urls]))[:URLS_MAX]
        self._tried = self._urls.index(here)

    def overslept(self, now: float, gap_s: float) -> list[Directive]:
        """Take note that this process was stopped for `gap_s`; called before anything that came meanwhile is heard."""
        if not self.joined or gap_s < FENCE_SHARE * self._welcome.liveness_s:
            return []
        return [Note(f"this worker was stopped for {gap_s:.1f} s; reconnecting"), *self._begin_anew(now)]

    def drain(self) -> list[Directive]:
        """Tell the dispatcher, now and after each Welcome, that we take no more."""
        self._draining = True
        return [Say(m.Draining())] if self.joined else []

    def _on_stranger(self, now: float) -> list[Directive]:
        if self.joined:  # tasks may be on their way to us: only a new connection makes sure that they never arrive
            return self._begin_anew(now)
        return self._hello(now)

    def _on_kill(self, items: tuple[Held, ...]) -> list[Directive]:
        running = set(self._capacity.running())
        for key in items:
            if key not in running and key not in self.retained:  # it never arrived: nothing of it will run
                self._retain(Outcome(key[0], key[1], Cause.CANCELLED, b"", "cancelled before it arrived"))
        return [StopAttempts(tuple(key for key in items if key in running))]

    def _begin_anew(self, now: float) -> list[Directive]:
        self.phase = Phase.JOINING
        return [Reconnect(), *self._hello(now)]

    def _hello(self, now: float) -> list[Directive]:
        self._hello_at = now + (self._hello_wait_s if len(self._urls) == 1 else FAILOVER_S)
        self._epoch += 1
        self._contact.hello(now)
        self._base = self._capacity.accepted
        held = dict.fromkeys([*self._capacity.running(), *self.retained])
        self._granted = max(self._capacity.granted - self._base, 0)
        one = self._identity
        return [
            Say(
                m.Hello(
                    version=m.PROTOCOL_VERSION,
                    worker_id=self.worker_id,
                    mode=one.mode,
                    host=one.host,
                    pid=one.pid,
                    slots=one.slots,
                    granted=self._granted,
                    python=one.python,
                    dill=one.dill,
                    held=tuple(held),
                    epoch=self._epoch,
                )
            )
        ]

    # ── what goes out ────────────────────────────────────────────────────────────────────────────────────────────────

    def ended(self, outcomes: Iterable[Outcome]) -> None:
        """Take in outcomes; they are said with the next `tick`, and kept until they are acknowledged."""
        for outcome in outcomes:
            self._retain(outcome)

    def _retain(self, outcome: Outcome) -> None:
        key = (outcome.task_id, outcome.attempt)
        self.retained[key] = outcome
        self._retained_bytes += len(outcome.result)
        self._unsent.append(key)

    def lacks(self, functions: Iterable[FunctionId]) -> list[Directive]:
        """Ask for code."""
        missing = tuple(functions)
        self._lacking.update(missing)
        return [Say(m.Missing(missing))] if missing and self.joined else []

    def tick(self, now: float) -> list[Directive]:
        """Do what is due; called in every turn, after all else."""
        news = [self._fence_order()] if self._ends_at() != self._fenced_until else []
        return [*news, *self._fence(now), *self._converse(now)]

    def _fence_order(self) -> Fence:
        """Tell the slots' keeper what this process would do at the end of its proof, should it be stopped by then."""
        self._fenced_until = self._ends_at()
        return Fence(FENCE_SHARE * self._welcome.liveness_s, self._fenced_until)

    def _fence(self, now: float) -> list[Directive]:
        """Stop everything once the dispatcher may have given it to others: out of touch, and not known to be dead."""
        if now < self._doubt_at():
            return []
        self._doubted_at = now
        running = tuple(self._capacity.running())
        if not running:
            return []
        if self._gone(self._welcome, self._welcomed_at):
            self._contact.excused(now)
        if now < self._ends_at():
            return []
        return [Note(f"out of touch with the dispatcher: stopping {len(running)} attempts"), StopAttempts(running)]

    def _doubt_at(self) -> float:
        """Return when to ask (again) whether the dispatcher is gone: well before the end, so that a successor that is
        there by then finds us excused for the time without it."""
        again = self._doubted_at + ABSENCE_S
        ends = self._ends_at()
        return max(
            self._contact.proof_at + 2 * self._welcome.heartbeat_s,
            min(again, ends) if self._doubted_at < ends else again,
        )

    def _ends_at(self) -> float:
        """Return when to stop; a dead dispatcher's tasks stay ours, but its heirs will give them away."""
        excused_s_max = m.EXCUSED_S_MAX if self._heirs or len(self._urls) > 1 else float("inf")
        return self._contact.ends_at(self._welcome.liveness_s, excused_s_max)

    def _converse(self, now: float) -> list[Directive]:
        if not self.joined:
            if now < self._hello_at:
                return []
            first = self._hello_at == 0.0
            self._hello_wait_s = HELLO_S_FIRST if first else min(2 * self._hello_wait_s, HELLO_S_MAX)
            if first:
                return self._hello(now)
            self._tried += 1
            return [Reconnect(self._urls[self._tried % len(self._urls)]), *self._hello(now)]
        if now >= self._heard_at + self._welcome.liveness_s:
            silent_s = now - self._heard_at
            return [Note(f"the dispatcher was silent for {silent_s:.1f} s; reconnecting"), *self._begin_anew(now)]
        return self._news(now)

    def _news(self, now: float) -> list[Directive]:
        """Say what has ended and what new credit there is, in one message; or that we live, when that is due."""
        granted = max(self._granted, self._credit())
        if self._gathers(now, granted > self._granted):
            return []
        window = self._capacity.window
        unsent = [self.retained[key] for key in self._unsent if key in self.retained]
        self._unsent.clear()
        said = self._capacity.said(now)
        say: list[Directive] = [] if said is None else [Say(said)]  # before the outcomes: then it is stored with them
        starts = range(0, len(unsent), OUTCOMES_MAX)
        say += [Say(m.Outcomes(tuple(unsent[at : at + OUTCOMES_MAX]), granted, window)) for at in starts]
        if now >= self._beat_at or (granted > self._granted and not unsent):
            say.append(Say(m.Beat(granted, window)))  # only a Beat is answered by a Pulse
            self._contact.beat(now)
            self._beat_at = now + self._welcome.heartbeat_s
        self._granted = granted
        return say

    def _gathers(self, now: float, credit: bool) -> bool:
        """Tell whether to wait for more to say: while no slot is about to be idle, a message is worth more than one."""
        if not (self._unsent or credit) or not self._capacity.ahead or now >= self._beat_at:
            self._gather_until = None
            return False
        if self._gather_until is None:
            self._gather_until = now + GATHER_S
        if now < self._gather_until and len(self._unsent) < GATHER_MAX:
            return True
        self._gather_until = None
        return False

    def _credit(self) -> int:
        if self._retained_bytes > RETAINED_BYTES_MAX:
            return 0  # `_news` never says less than before
        return self._capacity.granted - self._base

    def next_timer(self) -> float:
        """Return the instant at which `tick` has to be called at the latest."""
        due = [self._doubt_at()] if self._capacity.running() else []
        if not self.joined:
            return min([self._hello_at, *due])
        if self._gather_until is not None:
            due.append(self._gather_until)
        elif self._unsent:
            return 0.0
        elif (said_due := self._capacity.said_timer()) is not None:
            due.append(said_due)
        return min([self._beat_at, self._heard_at + self._welcome.liveness_s, *due])

    def returned(self, unbegun: Iterable[Held]) -> tuple[Held, ...]:
        """Return what a Bye lists: attempts that never began, as far as the dispatcher has not acknowledged that."""
        given_back = [key for key, outcome in self.retained.items() if outcome.cause is Cause.GIVEN_BACK]
        return tuple(dict.fromkeys([*given_back, *unbegun]))
