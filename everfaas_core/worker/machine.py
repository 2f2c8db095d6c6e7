"""The worker's machine: decides which slot runs what. `step(now, events) -> actions`.

Pure: no clock, no I/O, no randomness. The host carries the actions out and tells what came of them. Each attempt that
was accepted is reported exactly once, and begins once at the most. A slot that dies ends what it had begun; what waited
behind that is fed to another slot, or given back, without losing an attempt.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from typing import Final

from everfaas_core.model.ids import FunctionId, TaskId
from everfaas_core.model.states import Cause
from everfaas_core.wire.messages import Held, Outcome, TaskItem
from everfaas_core.worker import actions as do
from everfaas_core.worker import events as ev
from everfaas_core.worker.pipes import RECALL_S, Pipes
from everfaas_core.worker.slot_state import BROKEN_STARTS, Phase, SlotState, held

WAITED_S_MAX: Final = 0.1
"""When no slot has taken a task for so long, what waits here goes back, for a worker that may have a slot free."""

WAITING_MAX: Final = 10_000
"""Tasks that wait for a slot or for code; what comes beyond it is given back at once."""


class Machine:
    """See the module. One instance, one thread; `now` is monotonic seconds and never goes back."""

    def __init__(self, slots: int) -> None:
        self.slots = [SlotState(index) for index in range(slots)]
        self.draining = False
        self.accepted = 0
        self.granted = 0
        self.window = 0  # tasks that it wants to have in hand now, all in all
        self._attempts: dict[Held, SlotState | None] = {}  # accepted and not reported; None: not fed
        self._items: dict[Held, TaskItem] = {}
        self._waiting: deque[TaskItem] = deque()
        self._lacking: dict[FunctionId, list[TaskItem]] = {}
        self._live: dict[TaskId, Held] = {}  # the latest attempt of each task
        self._behind: dict[Held, TaskItem] = {}  # new attempts, by the older one that has to end first
        self._kept: list[TaskItem] = []  # came while draining: leaves with the Bye
        self._pipes = Pipes(self.slots)
        self._fed_at = 0.0  # when a task was last fed, or nothing was waiting
        self._recalls: list[SlotState] = []  # to be emptied with the end of this step
        self._returned = 0  # tasks given back because they came while draining
        self._refed: set[Held] = set()  # fed a second time because the slot lacked the code
        self._cancelled: set[Held] = set()  # fed and to be killed: taken back, or as their slot's current task
        self._codes: set[FunctionId] = set()
        self._out: list[do.Action] = []

    # ── questions ────────────────────────────────────────────────────────────────────────────────────────────────────

    def running(self) -> list[Held]:
        """Return all attempts accepted and not reported."""
        return list(self._attempts)

    def unbegun(self, taken_back: Mapping[int, int]) -> list[Held]:
        """Return the attempts that no slot has begun. `taken_back` counts the last ones of each slot's pipe."""
        behind: list[Held] = []
        for index, count in taken_back.items():
            queue = [held(item) for item in self.slots[index].queue]
            behind += queue[len(queue) - count :]
        return [key for key, slot in self._attempts.items() if slot is None] + behind

    def holds(self, key: Held) -> bool:
        """Tell whether an attempt was accepted and is not reported."""
        return key in self._attempts

    def idle(self) -> bool:
        """Tell whether nothing runs or waits to run; what came too late in a drain does not count."""
        return len(self._attempts) == len(self._kept)

    def in_use(self) -> set[FunctionId]:
        """Return the functions of all attempts: their code has to stay."""
        return {item.function_id for item in self._items.values()}

    @property
    def ahead(self) -> bool:
        """Whether each slot has something to do after its current task: then nothing is urgent."""
        return len(self._attempts) >= 2 * len(self.slots)

    def ready(self) -> bool:
        """Tell whether a slot would run a task at once."""
        return any(slot.phase is Phase.LIVE and not slot.queue for slot in self.slots)

    def next_timer(self) -> float | None:
        """Return the instant at which `step` has to be called at the latest, or None."""
        times = [slot.due for slot in self.slots if slot.due is not None]
        times += [slot.current_at + RECALL_S for slot in self.slots if slot.keeps_waiting]
        if self._waiting and self._pipes.all_busy():
            times.append(self._fed_at + WAITED_S_MAX)
        return min(times, default=None)

    def step(self, now: float, events: Iterable[ev.Event], *, heard: bool = True) -> list[do.Action]:
        """Take in what has happened, and return what is to be done, in order.

        `heard`: all that slots have said by now has been told. Otherwise nothing is concluded from their silence.
        """
        if not self._waiting:
            self._fed_at = now
        for event in events:
            self._take(now, event)
        if heard:
            self._pass_time(now)
        self._place(now)
        self._note_credit(now)
        # Last, so that what is counted as taken back are the last ones of the queue as it is when that is told.
        recalls = [do.Recall(slot.index) for slot in self._recalls if slot.phase is Phase.LIVE]
        out, self._out, self._recalls = [*self._out, *recalls], [], []
        return out

    def _take(self, now: float, event: ev.Event) -> None:
        match event:
            case ev.SlotSaid(index, outcome):
                self._on_said(now, self.slots[index], outcome)
            case ev.Offered(items):
                for item in items:
                    self._on_offered(item)
            case ev.SlotUp(index):
                if self.slots[index].phase is Phase.STARTING:
                    self.slots[index].move(Phase.LIVE)
                    self.slots[index].due = None
            case ev.Recalled(index, count):
                self._on_recalled(self.slots[index], count)
            case ev.SlotDown(index, reason, begun):
                self._on_down(now, self.slots[index], reason, begun)
            case ev.CodeArrived(functions):
                self._codes.update(functions)
                for function_id in functions:
                    self._waiting.extend(self._lacking.pop(function_id, ()))
            case ev.CodeDropped(functions):
                self._codes.difference_update(functions)
            case ev.KillAsked(items):
                for key in items:
                    self._on_kill(key)
            case ev.Drained():
                self._on_drained()

    # ── tasks come ───────────────────────────────────────────────────────────────────────────────────────────────────

    def _on_offered(self, item: TaskItem) -> None:
        key = held(item)
        if key in self._attempts:
            return  # repeated
        self.accepted += 1
        self._attempts[key] = None
        self._items[key] = item
        older = self._live.get(item.task_id)
        self._live[item.task_id] = key
        if older is not None and not self.draining:
            self._behind[older] = item  # the dispatcher has given the older one up, and we may not have heard of it
            self._on_kill(older)
            return
        self._admit(item)

    def _admit(self, item: TaskItem) -> None:
        key = held(item)
        if self.draining:
            self._turn_away(item)
        elif len(self._attempts) > WAITING_MAX + len(self.slots):
            self._report(key, Cause.GIVEN_BACK, "the worker has too many tasks waiting")
        elif item.function_id in self._codes:
            self._waiting.append(item)
        else:
            if item.function_id not in self._lacking:
                self._out.append(do.Need((item.function_id,)))
            self._lacking.setdefault(item.function_id, []).append(item)

    def _turn_away(self, item: TaskItem) -> None:
        """Give back what comes while draining; but after a slotful keep it, for a dispatcher might send it for ever."""
        if self._returned < len(self.slots):
            self._returned += 1
            self._report(held(item), Cause.GIVEN_BACK, "the worker is draining")
        else:
            self._kept.append(item)

    def _on_drained(self) -> None:
        if self.draining:
            return
        self.draining = True
        unfed = [key for key, slot in self._attempts.items() if slot is None]
        self._waiting.clear()
        self._lacking.clear()
        self._behind.clear()
        for key in unfed:
            self._report(key, Cause.GIVEN_BACK, "the worker is draining")
        for slot in self.slots:
            if slot.keeps_waiting:
                self._recall(slot)

    def _place(self, now: float) -> None:
        """Feed what waits: idle slots first, then the pipes of slots whose work is quick."""
        fed: dict[int, tuple[list[TaskItem], list[FunctionId]]] = {}
        while self._waiting:
            item = self._waiting[0]
            slot = self._pipes.choose(now, item)
            if slot is None:
                self._return_if_broken()
                break
            self._fed_at = now
            self._waiting.popleft()
            self._attempts[held(item)] = slot
            self._pipes.fill(slot, item)
            items, functions = fed.setdefault(slot.index, ([], []))
            items.append(item)
            if not slot.hold(item.function_id):
                functions.append(item.function_id)
            if len(slot.queue) == 1:
                slot.begin_current(now)
        for index, (items, functions) in fed.items():
            self._out.append(do.Feed(index, tuple(items), tuple(functions)))

    def _note_credit(self, now: float) -> None:
        """Raise the credit to what could be accepted now. It is a promise: never taken back."""
        if self.draining:
            return
        wanted, fed = self._pipes.window(now)
        self.window = max(wanted, len(self.slots))  # slots that are being started are back before this is acted on
        unfed = len(self._waiting) + len(self._behind) + sum(len(items) for items in self._lacking.values())
        free = wanted - unfed - fed
        self.granted = max(self.granted, self.accepted + max(free, 0))

    def _on_recalled(self, slot: SlotState, count: int) -> None:
        """Let others have what a slot did not come to."""
        self._put_back([slot.queue.pop() for _ in range(count)][::-1])
        if len(slot.queue) != 1:
            slot.due = None  # it has begun none, or the next one already: then the first one's outcome is on its way
        self._heed_cancel(slot)

    def _return_what_waits(self) -> None:
        waiting, self._waiting = self._waiting, deque()
        for item in waiting:
            self._report(held(item), Cause.GIVEN_BACK, "the worker's slots were busy for longer than expected")

    def _return_if_broken(self) -> None:
        """When no slot will start any more for now, keep nothing waiting for it."""
        if all(slot.phase is Phase.DOWN and slot.failed_starts >= BROKEN_STARTS for slot in self.slots):
            waiting, self._waiting = self._waiting, deque()
            for item in waiting:
                self._report(held(item), Cause.GIVEN_BACK, "the worker's slots can't be started")

    # ── attempts end ─────────────────────────────────────────────────────────────────────────────────────────────────

    def _on_said(self, now: float, slot: SlotState, outcome: Outcome) -> None:
        if slot.phase is Phase.DOWN or slot.doom is Cause.DEADLINE:
            return  # a result after the deadline counts no more
        item = slot.queue[0] if slot.queue else None
        if item is None or held(item) != (outcome.task_id, outcome.attempt):
            self._kill_slot(slot)  # it answers for a task it was not given
            return
        slot.queue.popleft()
        slot.ended += 1
        slot.recalled = False
        if outcome.run_s is not None:
            self._pipes.pace.ran(item.function_id, outcome.run_s)
        if slot.doom is not None:
            slot.doom = Cause.GIVEN_BACK  # killed for a task that ended first: nobody else is to blame
        if outcome.cause is Cause.GIVEN_BACK:
            self._feed_again(slot, item)
        else:
            self._forget(held(item))
            self._out.append(do.Report(outcome))
        if slot.phase is Phase.LIVE:
            slot.begin_current(now)
            self._heed_cancel(slot)

    def _feed_again(self, slot: SlotState, item: TaskItem) -> None:
        """The slot lacked the code: feed the task once more, with it."""
        key = held(item)
        slot.functions.pop(item.function_id, None)
        if key in self._refed:
            self._report(key, Cause.SLOT_CRASHED, "a slot did not keep the code that it was sent")
            return
        self._refed.add(key)
        self._put_back([item])

    def _on_down(self, now: float, slot: SlotState, reason: str, begun: int | None) -> None:
        if slot.phase is Phase.DOWN:
            return
        doom = slot.doom
        queue = slot.bury(now, began=bool(slot.queue) if begun is None else begun > 0)
        if self.draining:
            slot.due = None
        if queue and doom in (Cause.DEADLINE, Cause.CANCELLED):
            timeout_s = queue[0].timeout_s or 0.0
            text = f"exceeded deadline of {timeout_s:g} s" if doom is Cause.DEADLINE else "cancelled"
            self._report(held(queue.pop(0)), doom, text)
        # Usually one. It may have begun others since if it could not say so, having broken its connection.
        lost = min(1 if begun is None else max(begun - slot.ended, 0), len(queue))
        for item in queue[:lost]:
            self._report(held(item), Cause.SLOT_CRASHED, reason)
        self._put_back(queue[lost:])

    def _put_back(self, items: list[TaskItem]) -> None:
        """Put fed tasks that never began before all that wait."""
        for item in reversed(items):
            key = held(item)
            self._attempts[key] = None
            if key in self._cancelled:
                self._report(key, Cause.CANCELLED, "cancelled")
            elif self.draining:
                self._report(key, Cause.GIVEN_BACK, "the worker is draining")
            elif item.function_id in self._codes:
                self._waiting.appendleft(item)
            else:
                self._lacking.setdefault(item.function_id, []).insert(0, item)
                self._out.append(do.Need((item.function_id,)))

    def _on_kill(self, key: Held) -> None:
        if key not in self._attempts:
            return
        slot = self._attempts[key]
        if slot is None:
            item = self._items[key]
            if item in self._waiting:
                self._waiting.remove(item)
            elif item in self._kept:
                self._kept.remove(item)
            elif item in self._behind.values():
                self._step_aside(item)
            elif item in (lacking := self._lacking.get(item.function_id, [])):
                lacking.remove(item)
            self._report(key, Cause.CANCELLED, "cancelled")
            return
        self._cancelled.add(key)
        if held(slot.queue[0]) != key:
            self._recall(slot)
        elif slot.doom is not Cause.DEADLINE:
            self._end_current(slot, Cause.CANCELLED)

    def _step_aside(self, item: TaskItem) -> None:
        """Take an attempt that waits for an older one out of their line."""
        older = next(one for one, behind in self._behind.items() if behind is item)
        if (newer := self._behind.pop(held(item), None)) is None:
            del self._behind[older]
            self._live[item.task_id] = older
        else:
            self._behind[older] = newer

    def _heed_cancel(self, slot: SlotState) -> None:
        if slot.queue and held(slot.queue[0]) in self._cancelled:
            self._end_current(slot, Cause.CANCELLED)

    def _end_current(self, slot: SlotState, cause: Cause) -> None:
        """Kill a slot for its current task; but not before it is certain that it will not be in the midst of the next.

        If what is behind can't be taken back, it has begun, so the current one has ended, and its outcome comes next.
        """
        if len(slot.queue) > 1:
            self._recall(slot)
        else:
            slot.doom = cause
            self._kill_slot(slot)

    def _kill_slot(self, slot: SlotState) -> None:
        if slot.phase in (Phase.LIVE, Phase.STARTING):
            slot.move(Phase.DYING)
            slot.due = None
            self._out.append(do.KillSlot(slot.index))

    def _recall(self, slot: SlotState) -> None:
        if slot.phase is Phase.LIVE and not slot.recalled:
            slot.recalled = True
            self._recalls.append(slot)

    def _pass_time(self, now: float) -> None:
        if self._waiting and now >= self._fed_at + WAITED_S_MAX and self._pipes.all_busy():
            self._return_what_waits()
        for slot in self.slots:
            if slot.keeps_waiting and now >= slot.current_at + RECALL_S:
                self._recall(slot)
            if slot.due is None or now < slot.due:
                continue
            if slot.phase is Phase.DOWN and not self.draining:
                slot.start(now)
                self._out.append(do.SpawnSlot(slot.index))
            elif slot.phase is Phase.DOWN:
                slot.due = None
            elif slot.phase is Phase.STARTING:
                self._kill_slot(slot)
            elif slot.phase is Phase.LIVE:
                self._end_current(slot, Cause.DEADLINE)

    def _report(self, key: Held, cause: Cause, reason: str) -> None:
        self._forget(key)
        self._out.append(do.Report(Outcome(key[0], key[1], cause, b"", reason)))

    def _forget(self, key: Held) -> None:
        del self._attempts[key]
        del self._items[key]
        self._refed.discard(key)
        self._cancelled.discard(key)
        if self._live.get(key[0]) == key:
            del self._live[key[0]]
        if (newer := self._behind.pop(key, None)) is not None:
            self._admit(newer)
