"""Simulated slots around the production machine of a worker: what `worker.host` does with processes, without them.

A slot's process lives and works on while its worker is stopped, until the nursery's fence kills it; when the worker is
killed it dies with it.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from everfaas_core.model.ids import FunctionId
from everfaas_core.model.states import Cause
from everfaas_core.sim.clock import Clock
from everfaas_core.sim.ledger import Deed, Execution, Ledger
from everfaas_core.sim.trace import Trace
from everfaas_core.wire.messages import Held, Outcome, Said, TaskItem, Tasks
from everfaas_core.worker import actions as do
from everfaas_core.worker import events as ev
from everfaas_core.worker.code_cache import CodeCache
from everfaas_core.worker.fence import FENCE_LATE_S, PULSES_PER_FENCE
from everfaas_core.worker.machine import Machine

BIRTH_S: Final = 0.010  # from the wish for a slot's process to its first word
KILL_S: Final = 0.001  # from the wish for its death to its death
CODES_MAX: Final = 6
"""Functions whose code a simulated worker keeps: few, so that it has to ask for code again."""


class Process:
    """One life of a slot."""

    __slots__ = ("alive", "begun", "index", "pipe", "run")

    def __init__(self, index: int) -> None:
        self.index = index
        self.alive = True
        self.begun = 0
        self.pipe: deque[TaskItem] = deque()  # fed and not begun
        self.run: Execution | None = None


class SimHost:
    """The slots of one worker process. `wake` asks for a turn; `local` is the worker's own clock."""

    def __init__(
        self,
        name: str,
        slots: int,
        clock: Clock,
        local: Callable[[], float],
        ledger: Ledger,
        trace: Trace,
        chance: random.Random,
        wake: Callable[[], None],
    ) -> None:
        self._name = name
        self._clock = clock
        self._local = local
        self._ledger = ledger
        self._trace = trace
        self._chance = chance
        self._wake = wake
        self._machine = Machine(slots)
        self._codes = CodeCache(count_max=CODES_MAX)
        self._processes: dict[int, Process] = {}
        self._heard: list[ev.Event] = []
        self._outcomes: list[Outcome] = []
        self._missing: list[FunctionId] = []
        self._fence_s: float | None = None
        self._fence_until: float | None = None
        self._fence_left_s = 0.0  # as told with the last pulse
        self._pulse_at = 0.0
        self._pulsed_at = 0.0  # by the world's clock: the nursery is a process of its own, on the same machine
        self._closed = False

    # ── what the session and the worker's loop want ──────────────────────────────────────────────────────────────────

    @property
    def granted(self) -> int:
        """Cumulative credit."""
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

    def running(self) -> Sequence[Held]:
        """Return all attempts accepted and not yet reported."""
        return [*self._machine.running(), *((one.task_id, one.attempt) for one in self._outcomes)]

    def start(self) -> None:
        """Start all slots."""
        self._step(())

    def offer(self, tasks: Tasks) -> Sequence[FunctionId]:
        """Accept tasks; return functions whose code is missing."""
        events: list[ev.Event] = []
        if tasks.functions:
            self._codes.put(tasks.functions)
            events.append(ev.CodeArrived(tuple([item.function_id for item in tasks.functions])))
        if tasks.items:
            events.append(ev.Offered(tasks.items))
        self._step(events, heard=False)
        if self._codes.full:
            self._step([ev.CodeDropped(self._codes.trim(self._machine.in_use()))], heard=False)
        missing, self._missing = self._missing, []
        return missing

    def kill(self, attempts: Sequence[Held]) -> None:
        """Stop these attempts."""
        self._step([ev.KillAsked(tuple(attempts))], heard=False)

    def turn(self) -> Sequence[Outcome]:
        """Do what is due, and return what has ended."""
        due = self._machine.next_timer()
        if self._heard or (due is not None and self._local() >= due):  # a step without either would change nothing
            events, self._heard = self._heard, []
            self._step(events)
        self._pulse()
        outcomes, self._outcomes = self._outcomes, []
        return outcomes

    def said(self, now: float) -> Said | None:
        """Return nothing: simulated functions do not print."""
        return None

    def said_timer(self) -> float | None:
        """There is nothing to come."""
        return None

    def next_timer(self) -> float | None:
        """Return when the next turn is due, by the worker's clock."""
        if self._outcomes or self._heard:
            return 0.0
        due = self._machine.next_timer()
        if self._fence_s is None:
            return due
        return self._pulse_at if due is None else min(due, self._pulse_at)

    def drain(self) -> None:
        """Begin nothing more."""
        self._step([ev.Drained()], heard=False)

    def idle(self) -> bool:
        """Tell whether nothing runs or waits."""
        return self._machine.idle() and not self._outcomes

    def unbegun(self) -> Sequence[Held]:
        """Return accepted attempts that no slot has begun, and none will. What comes next is `close`."""
        recalled = {process.index: self._recall(process) for process in self._processes.values()}
        return self._machine.unbegun(recalled)

    def fence(self, fence_s: float | None, until: float | None = None) -> None:
        """Have all slots killed whenever the worker shows no life for so long, or past `until` by its clock."""
        self._fence_s = fence_s
        self._fence_until = until
        self._pulse_at = 0.0

    def close(self) -> None:
        """Kill all slots."""
        self._closed = True
        for process in list(self._processes.values()):
            self._end_life(process)
        self._processes.clear()

    # ── carrying out ─────────────────────────────────────────────────────────────────────────────────────────────────

    def _step(self, events: Iterable[ev.Event], *, heard: bool = True) -> None:
        if self._closed:
            return
        actions = self._machine.step(self._local(), events, heard=heard)
        while recalled := self._carry_out(actions):
            actions = self._machine.step(self._local(), recalled, heard=heard)

    def _carry_out(self, actions: Iterable[do.Action]) -> list[ev.Event]:
        recalled: list[ev.Event] = []
        for action in actions:
            match action:
                case do.Feed(slot, items):
                    self._processes[slot].pipe.extend(items)
                    self._begin(self._processes[slot])
                case do.Recall(slot):
                    recalled.append(ev.Recalled(slot, self._recall(self._processes[slot])))
                case do.Report(outcome):
                    self._outcomes.append(outcome)
                case do.SpawnSlot(slot):
                    process = self._processes[slot] = Process(slot)
                    self._clock.after(BIRTH_S * (0.5 + self._chance.random()), self._up, process)
                case do.KillSlot(slot):
                    self._clock.after(KILL_S, self.crash, slot, "killed", self._processes.get(slot))
                case do.Need(functions):
                    self._missing.extend(functions)
        return recalled

    @staticmethod
    def _recall(process: Process) -> int:
        count = len(process.pipe)
        process.pipe.clear()
        return count

    def _up(self, process: Process) -> None:
        if process.alive:
            self._hear(ev.SlotUp(process.index))

    def _begin(self, process: Process) -> None:
        """Begin the next task of a slot's pipe, if it is free."""
        if not process.alive or process.run is not None or not process.pipe:
            return  # a dead one's pipe is read by nobody; its death is told next
        item = process.pipe.popleft()
        plan = self._ledger.plans[item.task_id]
        run = process.run = Execution(plan, item.attempt, self._name, self._clock.now)
        process.begun += 1
        self._trace.tell(self._clock.now, f"{self._name}/{process.index}", f"begins {item.task_id}.{item.attempt}")
        self._ledger.begins(run)
        if plan.deed is Deed.EXITS:
            self._clock.after(plan.run_s, self.crash, process.index, "exited", process)
        elif plan.deed is not Deed.HANGS:
            self._clock.after(plan.run_s, self._said, process, run)

    def _said(self, process: Process, run: Execution) -> None:
        if process.run is not run:
            return
        process.run = None
        plan = run.plan
        cause = Cause.OK if plan.deed is Deed.RETURNS else Cause.RAISED
        result = f"{plan.task_id}.{run.attempt} by {self._name}".encode()
        self._ledger.ends(run, cause, result)
        self._trace.tell(self._clock.now, f"{self._name}/{process.index}", f"ends {plan.task_id}.{run.attempt} {cause}")
        self._hear(ev.SlotSaid(process.index, Outcome(plan.task_id, run.attempt, cause, result, None, plan.run_s)))
        self._begin(process)

    def crash(self, slot: int, why: str, process: Process | None = None) -> bool:
        """End a slot's process (this one, or whichever lives), with what runs in it; return whether one lived."""
        lives = self._processes.get(slot)
        if lives is None or not lives.alive or (process is not None and process is not lives):
            return False
        if why == "exited" and lives.run is None:
            return False
        self._end_life(lives)
        self._trace.tell(self._clock.now, f"{self._name}/{slot}", f"is dead: {why}")
        self._hear(ev.SlotDown(slot, f"the slot's process was {why}", lives.begun))
        return True

    def _end_life(self, process: Process) -> None:
        process.alive = False
        run, process.run = process.run, None
        if run is not None:
            self._ledger.ends(run, Cause.SLOT_CRASHED, b"")

    def _hear(self, event: ev.Event) -> None:
        self._heard.append(event)
        self._wake()

    # ── the fence ────────────────────────────────────────────────────────────────────────────────────────────────────

    def _pulse(self) -> None:
        if self._fence_s is not None and self._local() >= self._pulse_at:
            self._pulse_at = self._local() + self._fence_s / PULSES_PER_FENCE
            self._pulsed_at = self._clock.now
            left_s = -1.0 if self._fence_until is None else self._fence_until + FENCE_LATE_S - self._local()
            self._fence_left_s = min(self._fence_s, left_s) if left_s > 0 else self._fence_s

    def stopped(self, rate: float) -> None:
        """The worker's process is stopped from now on: the nursery's fence falls when its pulse is due no longer."""
        if self._fence_s is not None:
            self._clock.at(self._pulsed_at + self._fence_left_s / rate, self._fall, self._pulsed_at)

    def _fall(self, pulsed_at: float) -> None:
        if self._closed or self._pulsed_at != pulsed_at:
            return
        for slot in list(self._processes):
            self.crash(slot, "fenced")
