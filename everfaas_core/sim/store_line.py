"""The way from the dispatchers to the store: latency, refusals, silence, and answers that get lost."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from typing import Final

from msgspec import Struct

from everfaas_core.model.ids import DispatcherId
from everfaas_core.model.records import FleetReport, Turn, TurnReply
from everfaas_core.sim.clock import Clock
from everfaas_core.sim.store import SimStore
from everfaas_core.sim.surroundings import Answered
from everfaas_core.sim.trace import Trace

EVERYBODY: Final = ""
REFUSED_S: Final = 0.001  # until a refused connection is known to be refused
TIMEOUT_S: Final = 2.0  # of an exchange that is not answered


class StoreWeather(Struct, frozen=True, kw_only=True):
    """An exchange takes `latency_s` × (0.5 … 1.5)."""

    latency_s: float = 0.001
    request_lost: float = 0.0  # share of the exchanges that never reach the store
    reply_lost: float = 0.0  # share of those that are applied, and the dispatcher is told that they failed


class FaultyLine:
    """Implements `StoreLine` over a `SimStore`."""

    def __init__(
        self, clock: Clock, trace: Trace, chance: random.Random, weather: StoreWeather,
        store: Callable[[], SimStore], faults: Counter[str],
    ) -> None:  # fmt: skip
        self.weather = weather
        self._clock = clock
        self._trace = trace
        self._chance = chance
        self._store = store
        self._faults = faults
        self._outages: dict[str, tuple[float, bool]] = {}  # dispatcher's name or EVERYBODY → until, silent
        self.exchanges = 0

    def outage(self, who: str, until: float, *, silent: bool) -> None:
        """Let no exchange through until then: refused at once, or (`silent`) not answered at all."""
        self._outages[who] = until, silent

    def heal(self) -> None:
        """End all trouble."""
        self._outages.clear()
        self.weather = StoreWeather(latency_s=self.weather.latency_s)

    def resign(self, dispatcher_id: DispatcherId) -> None:
        """Give up a lease."""
        self._clock.after(self.weather.latency_s, self._store().resign, dispatcher_id)

    def fleet(self, who: str) -> list[FleetReport] | None:
        """See `StoreLine`."""
        if any(self._outages.get(name, (0.0, False))[0] > self._clock.now for name in (who, EVERYBODY)):
            return None
        return self._store().fleet()

    def exchange(self, who: str, turn: Turn, answer: Answered) -> None:
        """See `StoreLine`."""
        self.exchanges += 1
        latency_s = self.weather.latency_s * (0.5 + self._chance.random())
        for name in (who, EVERYBODY):
            until, silent = self._outages.get(name, (0.0, False))
            if until > self._clock.now:
                self._tell(who, turn, "no answer" if silent else "refused")
                self._clock.after(TIMEOUT_S if silent else REFUSED_S, answer, turn, None)
                return
        luck = self._chance.random()
        if luck < self.weather.request_lost:
            self._faults["request to the store lost"] += 1
            self._tell(who, turn, "the request is lost")
            self._clock.after(latency_s, answer, turn, None)
        else:
            is_lost = luck < self.weather.request_lost + self.weather.reply_lost
            self._clock.after(latency_s / 2, self._apply, who, turn, answer, latency_s / 2, is_lost)

    def _apply(self, who: str, turn: Turn, answer: Answered, rest_s: float, is_lost: bool) -> None:
        store = self._store()
        reply: TurnReply | None = store.exchange(turn)
        assert reply is not None
        self._tell(who, turn, _given(turn, reply))
        if is_lost:
            self._faults["answer of the store lost"] += 1
            self._tell(who, turn, "the answer is lost")
            store.lose(turn.dispatcher_id, reply)
            reply = None
        self._clock.after(rest_s, answer, turn, reply)

    def _tell(self, who: str, turn: Turn, what: str) -> None:
        asked = _asked(turn)
        if what == "gets nothing" and len(asked) == 1:
            self._trace.note(self._clock.now, who, what)
        elif asked or what.startswith(("adopts", "evicted")):
            self._trace.tell(self._clock.now, who, f"⇄ store: {', '.join(asked) or 'report'} | {what}")


def _asked(turn: Turn) -> list[str]:
    asked = [f"finish {one.task_id}.{one.attempt} {one.status}" for one in turn.finishes]
    asked += [f"requeue {one.task_id}.{one.attempt} {one.cause}" for one in turn.requeues]
    asked += [f"start {one.task_id}.{one.attempt}" for one in turn.starts]
    asked += [f"adopt {one.task_id}.{one.attempt}" for one in turn.adopts]
    if turn.claim:
        asked.append(f"claim {turn.claim}")
    return asked


def _given(turn: Turn, reply: TurnReply) -> str:
    parts = ["evicted"] if reply.evicted else []
    if reply.adopted:
        parts.append("adopts " + " ".join(f"{one.task.task_id}.{one.task.attempt}" for one in reply.adopted))
    if turn.claim:
        parts.append("gets " + (" ".join(one.task_id for one in reply.claimed) or "nothing"))
    refused = [one.task_id for one, ok in zip(turn.starts, reply.started, strict=True) if not ok]
    if refused:
        parts.append("not to be started: " + " ".join(refused))
    not_adopted = [one.task_id for one, task in zip(turn.adopts, reply.adoptions, strict=True) if task is None]
    if not_adopted:
        parts.append("not to be adopted: " + " ".join(not_adopted))
    return ", ".join(parts) or "done"
