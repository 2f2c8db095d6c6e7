"""Slots as processes: the machine that plans them, the nursery that forks them, a channel to each."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path
from typing import Final

from msgspec import Struct

from everfaas_core.model.errors import WireError
from everfaas_core.model.ids import FunctionId
from everfaas_core.ports import Selector
from everfaas_core.wire.messages import Held, Outcome, Said, Tasks
from everfaas_core.worker import actions as do
from everfaas_core.worker import events as ev
from everfaas_core.worker.births import Report, Tell, Why
from everfaas_core.worker.channel import Channel, Tokens, make_pipe
from everfaas_core.worker.code_cache import CodeCache
from everfaas_core.worker.fence import Fence
from everfaas_core.worker.hearing import Hearing
from everfaas_core.worker.machine import Machine
from everfaas_core.worker.nursery import Nursery, death_reason
from everfaas_core.worker.speech import Speeches

CLOSED_S_MAX: Final = 0.5
"""A slot whose connection has ended, and that is not dead after so long, is killed."""

LAST_WORDS_READS_MAX: Final = 64
"""Rounds of reading what a dead slot had said; its pipe holds far less."""


class SlotConfig(Struct, frozen=True, kw_only=True):
    slots: int
    path: tuple[str, ...] = ()  # directories whose modules functions can import, besides the current one
    keep_env: tuple[str, ...] = ()  # variables that slots get although the scrubbing rule hides them
    fence_s: float | None = None  # kill all slots when this process was stopped for so long


class ProcessHost:
    """Implements `ports.SlotHost` with one child process per slot. One instance, one thread."""

    def __init__(
        self,
        config: SlotConfig,
        *,
        log: logging.Logger,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._config = config
        self._log = log
        self._clock = clock
        self._machine = Machine(config.slots)
        self._codes = CodeCache()
        self._selector: Selector | None = None
        self._nursery: Nursery | None = None
        self._channels: dict[int, Channel] = {}  # slot → pipe to its present life
        self._slots: dict[int, int] = {}  # birth → slot
        self._pids: dict[int, int] = {}  # slot → process id
        self._births = 0
        self._complaints: dict[int, str] = {}  # birth → why its connection is no good
        self._suspects: dict[int, float] = {}  # birth whose connection has ended → when to kill it
        self._outcomes: list[Outcome] = []
        self._missing: list[FunctionId] = []
        self._early: list[ev.Event] = []  # learnt while carrying out actions
        self._fence = Fence(config.fence_s)
        self._speeches = Speeches()
        self._hearing = Hearing(self._machine.slots, self._speeches, self._machine.holds)
        self._closed = False

    # ── ports.SlotHost ───────────────────────────────────────────────────────────────────────────────────────────────

    @property
    def slots(self) -> int:
        """How many slots there are."""
        return self._config.slots

    @property
    def granted(self) -> int:
        """Cumulative credit: never falls."""
        return self._machine.granted

    @property
    def window(self) -> int:
        """Tasks that it wants to have at hand now; may fall."""
        return self._machine.window

    @property
    def ahead(self) -> bool:
        """Whether each slot has something to do after its current task: then nothing is urgent."""
        return self._machine.ahead

    @property
    def accepted(self) -> int:
        """Tasks accepted so far."""
        return self._machine.accepted

    def start(self, selector: Selector) -> None:
        """Start the nursery and all slots; `ready` tells when the first one is up, some 0.2 s later."""
        self._selector = selector
        self._hearing.start(selector)
        self._step(self._clock(), ())

    def ready(self) -> bool:
        """Tell whether a slot would run a task at once."""
        return self._machine.ready()

    def offer(self, tasks: Tasks) -> Sequence[FunctionId]:
        """Accept tasks; those for which a slot is free are fed at once. Returns functions whose code is missing."""
        events: list[ev.Event] = []
        if tasks.functions:
            self._codes.put(tasks.functions)
            events.append(ev.CodeArrived(tuple(item.function_id for item in tasks.functions)))
        if tasks.items:
            events.append(ev.Offered(tasks.items))
        self._step(self._clock(), events, heard=False)
        if self._codes.full:
            dropped = self._codes.trim(self._machine.in_use())
            self._step(self._clock(), [ev.CodeDropped(dropped)], heard=False)
        missing, self._missing = self._missing, []
        return missing

    def kill(self, attempts: Sequence[Held]) -> None:
        """Stop these attempts. Unknown ones are ignored."""
        self._step(self._clock(), [ev.KillAsked(tuple(attempts))], heard=False)

    def running(self) -> Sequence[Held]:
        """Return all attempts accepted and not yet reported."""
        reported = {(outcome.task_id, outcome.attempt) for outcome in self._outcomes}
        return [*self._machine.running(), *reported]

    def turn(self, now: float, ready_fds: Collection[int]) -> Sequence[Outcome]:
        """Do what is due without blocking, and return what has ended."""
        if self._closed:
            return ()
        events = self._hear_channels(ready_fds)
        self._hearing.turn(now, ready_fds)
        events += self._hear_nursery()
        self._kill_suspects(now)
        self._step(now, events)
        self._fence.keep(now, self._nursery, idle=self._machine.idle())
        outcomes, self._outcomes = self._outcomes, []
        if self._speeches:
            self._speeches.end(outcomes)
        return outcomes

    def said(self, now: float) -> Said | None:
        """Return what attempts have printed, and how far they are, if that is due; before the outcomes of `turn`."""
        said = self._speeches.take(now) if self._speeches else None
        if said is not None and self._log.isEnabledFor(logging.DEBUG):
            for one in said.printed:
                text = one.text.decode(errors="replace").rstrip("\n")
                self._log.debug("task %s, attempt %d, %s: %s", one.task_id, one.attempt, one.stream, text)
        return said

    def said_timer(self) -> float | None:
        """Return from when on `said` has something, or None."""
        return self._speeches.due() if self._speeches else None

    def next_timer(self) -> float | None:
        """Return the instant of the next deadline, respawn or pulse; the past if outcomes wait to be fetched."""
        if self._outcomes or self._early:
            return 0.0
        due = [*self._suspects.values()]
        if (planned := self._machine.next_timer()) is not None:
            due.append(planned)
        due += [one for one in (self._fence.due, self._hearing.next_timer()) if one is not None]
        return min(due, default=None)

    def close(self) -> None:
        """Kill all slots with all their descendants, and reap them. Idempotent."""
        self._closed = True
        for slot in list(self._channels):
            self._hang_up(slot)
        if self._nursery is not None:
            self._nursery.close()
            self._nursery = None
        self._hearing.end()

    # ── beyond the port, for agents and tests ────────────────────────────────────────────────────────────────────────

    def drain(self) -> None:
        """Begin nothing more; what never began is reported as GIVEN_BACK."""
        self._step(self._clock(), [ev.Drained()], heard=False)

    def idle(self) -> bool:
        """Tell whether nothing runs or waits, but what came too late while draining (see `unbegun`)."""
        return self._machine.idle() and not self._outcomes

    def unbegun(self) -> Sequence[Held]:
        """Return accepted attempts that no slot has begun, and none will. What comes next is `close`."""
        return self._machine.unbegun({slot: channel.recall() for slot, channel in self._channels.items()})

    def fence(self, fence_s: float | None, until: float | None = None) -> None:
        """Have all slots killed whenever this process shows no life for so long (stopped, swapped out); None: never.

        At `until` (monotonic) they are killed in any case, FENCE_LATE_S later than this process would stop what runs.
        The fence stands while there is something to run: idle slots need none, and then nobody wakes for it.
        """
        self._fence.change(self._clock(), self._nursery, fence_s, until, idle=self._machine.idle())

    def pids(self) -> dict[int, int]:
        """Return the process id of each living slot."""
        return dict(self._pids)

    def nursery_pid(self) -> int | None:
        """Return the process id of the nursery."""
        return None if self._nursery is None else self._nursery.pid

    # ── hearing ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def _hear_channels(self, ready_fds: Collection[int]) -> list[ev.Event]:
        events, self._early = self._early, []
        for slot, channel in list(self._channels.items()):
            if channel.fileno() in ready_fds:
                if channel.choked:
                    channel.flush()
                    self._watch(channel)
                events += self._hear(slot, channel)
        return events

    def _hear(self, slot: int, channel: Channel) -> list[ev.Event]:
        events: list[ev.Event] = []
        try:
            messages = channel.receive()
            if messages:
                self._hearing.answered(slot)  # what they had printed is known before they are said to have ended
            for message in messages:
                events += [ev.SlotSaid(slot, outcome) for outcome in message.items] or [ev.SlotUp(slot)]
        except WireError as error:
            self._complaints.setdefault(channel.birth, f"the slot's connection was garbled: {error}")
            channel.ended = True
        if channel.ended and self._selector is not None:
            self._selector.unregister(channel.fileno())
            # Usually it is dying, and the nursery says so next. But a function may have closed the slot's descriptor.
            grace_s = 0.0 if channel.birth in self._complaints else CLOSED_S_MAX
            self._suspects.setdefault(channel.birth, self._clock() + grace_s)
        return events

    def _kill_suspects(self, now: float) -> None:
        """Kill slots that can't be talked to and do not die by themselves."""
        for birth, due in list(self._suspects.items()):
            if now >= due:
                del self._suspects[birth]
                self._complaints.setdefault(birth, "the function closed the connection of its slot to the worker")
                if self._nursery is not None:
                    self._nursery.kill(birth)

    def _hear_nursery(self) -> list[ev.Event]:
        if self._nursery is None:
            return []
        events: list[ev.Event] = []
        try:
            for report in self._nursery.reports():
                events += self._on_report(report)
        except EOFError:
            nursery, self._nursery = self._nursery, None
            self._fence.open(None)
            nursery.close()
            reason = f"the nursery of the worker's slots {nursery.epitaph()}, and the slots with it"
            self._log.error("%s; starting a new one", reason)
            for slot in list(self._channels):
                events += self._bury(slot, reason, None)
        return events

    def _on_report(self, report: Report) -> list[ev.Event]:
        slot = self._slots.get(report.birth)
        if slot is None:
            return []
        if report.tell is Tell.BORN:
            self._pids[slot] = report.number
            return []
        if report.tell is Tell.STILLBORN:
            return self._bury(slot, f"a slot's process could not be started: {os.strerror(report.number)}", 0)
        return self._bury(slot, self._reason(report), report.begun)

    def _reason(self, report: Report) -> str:
        complaint = self._complaints.get(report.birth)
        if report.why is Why.FENCED:
            return f"the worker showed no life for {self._fence.fence_s or 0:g} s, so its slots were stopped"
        if report.why is Why.ASKED:
            return complaint or "the slot was killed by its worker"
        return death_reason(report.number)

    def _bury(self, slot: int, reason: str, begun: int | None) -> list[ev.Event]:
        """Hear a dead slot's last words, and forget its process."""
        channel = self._channels[slot]
        events: list[ev.Event] = []
        for _ in range(LAST_WORDS_READS_MAX):
            said = [] if channel.ended else self._hear(slot, channel)
            if not said:
                break
            events += said
        if strays := self._hearing.last_words(slot):
            level = logging.DEBUG if begun else logging.WARNING  # what kept it from its start is the operator's
            self._log.log(level, "slot %d, outside of a task: %s", slot, strays.decode(errors="replace").rstrip())
        self._hang_up(slot)
        self._log.debug("slot %d: %s", slot, reason)
        return [*events, ev.SlotDown(slot, reason, begun)]

    def _hang_up(self, slot: int) -> None:
        self._hearing.close(slot)
        channel = self._channels.pop(slot)
        self._slots.pop(channel.birth, None)
        self._complaints.pop(channel.birth, None)
        self._suspects.pop(channel.birth, None)
        self._pids.pop(slot, None)
        if self._selector is not None:
            self._selector.unregister(channel.fileno())
        channel.close()

    # ── doing ────────────────────────────────────────────────────────────────────────────────────────────────────────

    def _step(self, now: float, events: Iterable[ev.Event], *, heard: bool = True) -> None:
        if self._closed:
            return
        actions = self._machine.step(now, events, heard=heard)
        while recalled := self._carry_out(actions):
            actions = self._machine.step(now, recalled, heard=heard)

    def _carry_out(self, actions: Iterable[do.Action]) -> list[ev.Event]:
        """Do what the machine wants; return what it has to hear before anything else."""
        recalled: list[ev.Event] = []
        for action in actions:
            match action:
                case do.Feed(slot, items, functions):
                    self._fence.raise_for(self._clock(), self._nursery)  # before anything can run
                    self._channels[slot].feed(Tasks(items, tuple(self._codes.get(one) for one in functions)))
                    self._watch(self._channels[slot])
                case do.Recall(slot):
                    recalled.append(ev.Recalled(slot, self._channels[slot].recall()))
                case do.Report(outcome):
                    self._outcomes.append(outcome)
                case do.SpawnSlot(slot):
                    self._spawn(slot)
                case do.KillSlot(slot):
                    if self._nursery is not None and slot in self._channels:
                        self._nursery.kill(self._channels[slot].birth)
                case do.Need(functions):
                    self._missing.extend(functions)
        return recalled

    def _spawn(self, slot: int) -> None:
        assert self._selector is not None
        theirs: list[int] = []  # copied to the slot
        try:
            if self._nursery is None:
                # This process's directory first: functions pickled by reference are looked for where it was started.
                path = [str(Path.cwd()), *(str(Path(one).absolute()) for one in self._config.path)]
                nursery = Nursery(self._hearing.cells_fd, path, self._config.keep_env)
                nursery.start(self._selector)
                self._nursery = nursery
            theirs += self._hearing.open(slot)
            ours, end = make_pipe()
            theirs.append(end.detach())
            tokens = Tokens()
        except OSError as error:  # out of processes or descriptors: the machine tries again, ever more slowly
            self._log.error("a slot can't be started: %s", error)
            self._hearing.close(slot)
            self._early.append(ev.SlotDown(slot, f"a slot can't be started: {error}", 0))
        else:
            self._births += 1
            channel = Channel(ours, self._births, tokens)
            self._channels[slot] = channel
            self._slots[channel.birth] = slot
            self._selector.register(channel.fileno())
            self._nursery.fork(channel.birth, slot, [theirs[2], tokens.reader, *theirs[:2]])
        for fd in theirs:
            os.close(fd)

    def _watch(self, channel: Channel) -> None:
        if self._selector is not None and not channel.ended and channel.choked != channel.watched_for_room:
            channel.watched_for_room = channel.choked
            self._selector.register(channel.fileno(), write=channel.choked)
