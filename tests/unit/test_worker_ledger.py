"""The worker's machine against slots that do all that real ones can, and a ledger of what was told, asked and begun."""

from __future__ import annotations

from collections import deque

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from msgspec import structs

from everfaas_core.model.ids import FunctionId
from everfaas_core.model.states import Cause
from everfaas_core.wire.messages import Held, Outcome, TaskItem
from everfaas_core.worker import actions as do
from everfaas_core.worker import events as ev
from everfaas_core.worker.machine import WAITED_S_MAX, Machine
from everfaas_core.worker.pipes import AHEAD_MAX, PIPE_MAX, PIPE_S
from everfaas_core.worker.slot_state import START_S_MAX
from tests.unit.machine_kit import key, ok, task

FUNCTIONS = "abc"
RUNS_S = [0.0, PIPE_S / 4, PIPE_S / 4, 0.5]


class Process:
    """One life of a slot. What it was fed is answered, begun or neither, in this order."""

    def __init__(self, born_at: float) -> None:
        self.born_at = born_at
        self.live = False
        self.killed = False
        self.late = False  # killed because of a deadline: what it says still does not count
        self.codes: set[FunctionId] = set()
        self.told_codes: set[FunctionId] = set()  # that the machine may think it holds
        self.answers: deque[tuple[TaskItem, Outcome]] = deque()  # on the way to the worker
        self.runs: TaskItem | None = None
        self.fed: deque[TaskItem] = deque()
        self.begun = 0
        self.heard: Held | None = None  # the last answer that came in
        self.due: float | None = None  # the deadline of the first, as the worker sees it

    def pipe(self) -> list[TaskItem]:
        """Return what the worker has not heard to have ended."""
        return [*(item for item, _ in self.answers), *([self.runs] if self.runs else []), *self.fed]


class Ledger(RuleBasedStateMachine):
    """See the module. `haste`: how far slots get, each time, between the wish to take tasks back and its fulfilment."""

    @initialize(
        slots=st.integers(1, 3),
        haste=st.lists(st.integers(0, 6), min_size=1, max_size=8),
        warm=st.sampled_from([True, True, True, False]),
    )
    def begin(self, slots: int, haste: list[int], warm: bool) -> None:
        self.machine = Machine(slots)
        self.haste = deque(haste)
        self.now = 0.0
        self.count = 0
        self.offered: dict[Held, TaskItem] = {}
        self.reported: dict[Held, Cause] = {}
        self.begun: set[Held] = set()  # that a function was called for
        self.taken: set[Held] = set()  # that a slot came to: it began them, or found that it lacks their code
        self.doubted: set[Held] = set()  # nobody knows whether they had begun
        self.lacked: dict[Held, int] = {}
        self.last_run_s: dict[FunctionId, float] = {}
        self.processes: dict[int, Process] = {}
        self.codes: set[FunctionId] = set()
        self.cancelled: set[Held] = set()
        self.to_stop: set[Held] = set()  # of these, what the machine was asked to see to itself
        self.granted = 0
        self.fed_at = 0.0
        self.drained = False
        self.step()
        if warm:  # the interesting things happen when functions are known to be quick
            self.all_come_up()
            for name in "ab":
                self.code(name)
                self.offer([name], None)
                for slot in list(self.processes):
                    self.slot_works_and_is_heard(slot, 2, PIPE_S / 4)

    # ── what the host does ───────────────────────────────────────────────────────────────────────────────────────────

    def step(self, *events: ev.Event) -> None:
        more = list(events)
        while True:
            more = self.carry_out(self.machine.step(self.now, more))
            assert self.machine.granted >= self.granted, "credit was taken back"
            self.granted = self.machine.granted
            if not more:
                break

    def carry_out(self, actions: list[do.Action]) -> list[ev.Event]:
        recalled: list[ev.Event] = []
        for action in actions:
            match action:
                case do.SpawnSlot(slot):
                    assert slot not in self.processes, "a slot was started twice"
                    self.processes[slot] = Process(self.now)
                case do.KillSlot(slot):
                    if slot in self.processes:  # else it has died meanwhile
                        self.check_kill(self.processes[slot])
                case do.Feed(slot, items, functions):
                    self.check_feed(self.processes[slot], items, functions)
                case do.Recall(slot):
                    recalled.append(ev.Recalled(slot, self.recall(self.processes[slot])))
                case do.Report(outcome):
                    self.check_report(outcome)
        return recalled

    def recall(self, process: Process) -> int:
        assert process.live, "asked of a slot that is not up"
        self.haste.rotate(-1)
        for _ in range(self.haste[0]):
            self.work(process, 0.0)
        count = len(process.fed)
        process.fed.clear()
        return count

    def work(self, process: Process, run_s: float) -> None:
        """Let a slot do the next thing: end the task that runs, or begin one."""
        if process.runs is not None:
            if process.runs.function_id == "a":
                run_s = min(run_s, PIPE_S / 4)  # always quick: else no function would be for long
            process.answers.append((process.runs, ok(process.runs, run_s=run_s)))
            process.runs = None
        elif process.fed:
            item = process.fed.popleft()
            process.begun += 1
            self.taken.add(key(item))
            if item.function_id not in process.codes:
                process.answers.append((item, ok(item, Cause.GIVEN_BACK)))
                return
            assert key(item) not in self.begun, "an attempt began twice"
            self.begun.add(key(item))
            process.runs = item

    # ── what may be asked and told ───────────────────────────────────────────────────────────────────────────────────

    def check_kill(self, process: Process) -> None:
        assert not process.killed, "killed twice"
        process.killed = True
        if not process.live:
            assert self.now >= process.born_at + START_S_MAX
            return
        pipe = process.pipe()
        if not pipe:
            assert process.heard in self.cancelled, "an idle slot was killed, whose last answer did not come just now"
            return
        late = process.due is not None and self.now >= process.due
        assert late or key(pipe[0]) in self.cancelled, "killed for nothing"
        process.late = key(pipe[0]) not in self.cancelled
        assert len(pipe) == 1, "killed with what could have been saved, or in the midst of another task"

    def check_feed(self, process: Process, items: tuple[TaskItem, ...], functions: tuple[FunctionId, ...]) -> None:
        assert process.live, "fed a slot that is not up"
        assert not process.killed, "fed a slot that was killed"
        assert set(functions) == {item.function_id for item in items} - process.told_codes, "code is sent once per slot"
        assert len(set(functions)) == len(functions)
        assert set(functions) <= self.codes, "fed without code"
        process.codes.update(functions)
        process.told_codes.update(functions)
        self.fed_at = self.now
        for item in items:
            assert key(item) not in self.reported, "fed what has ended"
            everywhere = [one.task_id for process in self.processes.values() for one in process.pipe()]
            assert item.task_id not in everywhere, "two attempts of a task are in slots"
            before = process.pipe()
            if not before:
                process.due = None if item.timeout_s is None else self.now + item.timeout_s
            for one in [*before, item] if before else []:
                assert one.function_id in self.last_run_s, "a function of which nothing is known did not travel alone"
            assert not before or self.last_run_s[item.function_id] <= PIPE_S, "a slow function waits behind another"
            process.fed.append(item)
        assert len(process.pipe()) <= PIPE_MAX

    def check_report(self, outcome: Outcome) -> None:
        this = (outcome.task_id, outcome.attempt)
        assert this in self.offered, "reported what was never offered"
        assert this not in self.reported, "reported twice"
        assert this not in {key(one) for process in self.processes.values() for one in process.pipe()}
        reason = outcome.error or ""
        match outcome.cause:
            case Cause.OK:
                assert this in self.begun
            case Cause.CANCELLED:
                assert this in self.cancelled
            case Cause.GIVEN_BACK:
                assert this not in self.begun, "said to have never begun"
                assert self.drained or self.now >= self.fed_at + WAITED_S_MAX or "started" in reason
            case Cause.SLOT_CRASHED if "did not keep" in reason:
                assert self.lacked[this] >= 2
            case Cause.SLOT_CRASHED:
                assert this in self.begun | self.doubted, "blamed for what it had not begun"
            case Cause.DEADLINE:
                assert self.offered[this].timeout_s is not None
        self.reported[this] = outcome.cause

    # ── the dispatcher ───────────────────────────────────────────────────────────────────────────────────────────────

    @rule(
        names=st.lists(st.sampled_from("aaaaaabc"), min_size=1, max_size=12),
        timeout_s=st.sampled_from([None, None, 0.004, 1.0]),
    )
    def offer(self, names: list[str], timeout_s: float | None) -> None:
        items = []
        for name in names:
            self.count += 1
            items.append(task(self.count, function=FunctionId(name), timeout_s=timeout_s))
        self.offered.update({key(item): item for item in items})
        self.step(ev.Offered(tuple(items)))

    @precondition(lambda self: self.offered)
    @rule(number=st.integers(0, 30), others=st.integers(0, 4))
    def offer_again(self, number: int, others: int) -> None:
        """The dispatcher has given an attempt up, and sends us the next one of the same task, and with it others."""
        task_id = self.pick(number).task_id
        older = max(this for this in self.offered if this[0] == task_id)
        items = [structs.replace(self.offered[older], attempt=older[1] + 1)]
        if not self.drained:
            self.to_stop.add(older)
        self.cancelled.update(held for held in self.offered if held[0] == task_id)
        for _ in range(others):
            self.count += 1
            items.append(task(self.count, function=FunctionId("a")))
        self.offered.update({key(item): item for item in items})
        self.step(ev.Offered(tuple(items)))

    def pick(self, number: int) -> TaskItem:
        """Return a task, a late one rather than an early one."""
        items = list(self.offered.values())
        return items[-1 - number % len(items)]

    @rule(name=st.sampled_from(FUNCTIONS))
    def code(self, name: str) -> None:
        self.codes.add(FunctionId(name))
        self.step(ev.CodeArrived((FunctionId(name),)))

    @precondition(lambda self: self.offered)
    @rule(numbers=st.lists(st.integers(0, 30), min_size=1, max_size=3))
    def cancel(self, numbers: list[int]) -> None:
        self.step(self.cancelling(numbers))

    def cancelling(self, numbers: list[int]) -> ev.Event:
        these = tuple(key(self.pick(number)) for number in numbers)
        self.cancelled.update(these)
        self.to_stop.update(these)
        return ev.KillAsked(these)

    @precondition(lambda self: self.offered)
    @rule(slot=st.integers(0, 2), number=st.integers(0, 10), answers=st.integers(1, 3), tasks=st.integers(1, 6))
    def much_at_once(self, slot: int, number: int, answers: int, tasks: int) -> None:
        process = self.processes.get(slot)
        events = [self.cancelling([number])]
        if process is not None:
            events += self.hear_answers(process, answers)
        items = [task(self.count + at) for at in range(1, 1 + tasks)]
        items = [structs.replace(item, function_id=FunctionId("a")) for item in items]
        self.count += tasks
        self.offered.update({key(item): item for item in items})
        self.step(*events, ev.Offered(tuple(items)))

    @precondition(lambda self: self.count > 5)
    @rule()
    def drain(self) -> None:
        self.drained = True
        self.step(ev.Drained())

    # ── the slots ────────────────────────────────────────────────────────────────────────────────────────────────────

    @rule()
    def all_come_up(self) -> None:
        for slot in list(self.processes):
            self.come_up(slot)

    @rule(slot=st.integers(0, 2))
    def come_up(self, slot: int) -> None:
        process = self.processes.get(slot)
        if process is not None and not process.live and not process.killed:
            process.live = True
            self.step(ev.SlotUp(slot))

    @rule(slot=st.integers(0, 2), things=st.integers(1, 10), run_s=st.sampled_from(RUNS_S))
    def slot_works(self, slot: int, things: int, run_s: float) -> None:
        if slot in self.processes:
            for _ in range(things):
                self.work(self.processes[slot], run_s)

    @rule(slot=st.integers(0, 2), things=st.integers(1, 10), run_s=st.sampled_from(RUNS_S))
    def slot_works_and_is_heard(self, slot: int, things: int, run_s: float) -> None:
        self.slot_works(slot, things, run_s)
        self.hear(slot, things)

    @rule(slot=st.integers(0, 2), count=st.integers(1, 10))
    def hear(self, slot: int, count: int) -> None:
        process = self.processes.get(slot)
        if process is not None and process.answers:
            self.step(*self.hear_answers(process, count))

    def hear_answers(self, process: Process, count: int) -> list[ev.Event]:
        (slot,) = [index for index, one in self.processes.items() if one is process]
        events: list[ev.Event] = []
        for _ in range(min(count, len(process.answers))):
            item, outcome = process.answers.popleft()
            process.heard = key(item)
            if outcome.cause is Cause.GIVEN_BACK and not process.late:
                self.taken.discard(key(item))
                process.told_codes.discard(item.function_id)
                self.lacked[key(item)] = self.lacked.get(key(item), 0) + 1
            elif outcome.run_s is not None and not process.late:
                self.last_run_s[item.function_id] = outcome.run_s
            first = next(iter(process.pipe()), None)
            process.due = None if first is None or first.timeout_s is None else self.now + first.timeout_s
            events.append(ev.SlotSaid(slot, outcome))
        return events

    @rule(slot=st.integers(0, 2))
    def forget(self, slot: int) -> None:
        """A slot drops code to make room."""
        if slot in self.processes:
            self.processes[slot].codes.clear()

    @rule(
        slot=st.integers(0, 2),
        how=st.sampled_from(["known", "known", "mute", "unknown"]),
        cancels=st.lists(st.integers(0, 10), max_size=2),
    )
    def die(self, slot: int, how: str, cancels: list[int]) -> None:
        """Known: all it said is heard. Mute: nothing, its connection was garbled. Unknown: its nursery is dead, too."""
        process = self.processes.get(slot)
        if process is None:
            return
        events = [] if how == "mute" else self.hear_answers(process, len(process.answers))
        left = process.pipe()
        if how == "unknown" and left:
            self.doubted.add(key(left[0]))
        if how == "mute":
            self.doubted.update(key(item) for item, outcome in process.answers if outcome.cause is Cause.GIVEN_BACK)
        del self.processes[slot]
        if cancels and self.offered:
            events.insert(0, self.cancelling(cancels))
        self.step(*events, ev.SlotDown(slot, "died", None if how == "unknown" else process.begun))

    @rule(wait_s=st.sampled_from([0.0005, 0.002, 0.005, 0.02, 0.2, 3.0]))
    def wait(self, wait_s: float) -> None:
        self.now += wait_s
        self.step()

    # ── at all times, and in the end ─────────────────────────────────────────────────────────────────────────────────

    @invariant()
    def everything_is_accounted_for(self) -> None:
        if hasattr(self, "machine"):
            assert set(self.machine.running()) == set(self.offered) - set(self.reported)
            assert self.machine.accepted == len(self.offered)
            for slot in self.machine.slots:
                process = self.processes.get(slot.index)
                if process is None or not process.killed:
                    assert list(slot.queue) == (process.pipe() if process else [])

    @invariant()
    def no_credit_beyond_measure(self) -> None:
        if hasattr(self, "machine"):
            slots = len(self.machine.slots)
            assert self.machine.granted - self.machine.accepted <= slots * (1 + AHEAD_MAX)
            if not self.last_run_s:
                assert self.machine.granted - self.machine.accepted <= slots, "too much for tasks of unknown length"

    @invariant()
    def whatever_is_due_has_an_alarm(self) -> None:
        if hasattr(self, "machine"):
            due = [one.due for one in self.processes.values() if one.live and not one.killed and len(one.pipe()) == 1]
            alarm = self.machine.next_timer()
            assert alarm is None or alarm > self.now, "what was due was not done"
            for instant in due:
                assert instant is None or (alarm is not None and alarm <= instant)

    @invariant()
    def what_is_to_stop_does_not_go_on(self) -> None:
        if hasattr(self, "machine"):
            for process in self.processes.values():
                (first, *others) = process.pipe() or [None]
                if first is not None and not others and process.live:
                    assert process.killed or key(first) not in self.to_stop

    def teardown(self) -> None:
        """Behave well from now on: everything must end."""
        if not hasattr(self, "machine"):
            return
        self.check_unbegun()
        for name in FUNCTIONS:
            self.code(name)
        for _ in range(3 * self.count + 20):
            self.now += 0.05
            self.step()
            for slot, process in list(self.processes.items()):
                if process.killed:
                    self.die(slot, "known", [])
                elif not process.live:
                    self.come_up(slot)
                else:
                    self.slot_works_and_is_heard(slot, 3, PIPE_S / 4)
        open_ = set(self.offered) - set(self.reported)
        assert open_ <= set(self.machine.unbegun({})) if self.drained else not open_

    def check_unbegun(self) -> None:
        """What the worker would give back, should it leave now."""
        taken_back = {slot: len(process.fed) for slot, process in self.processes.items()}
        unbegun = self.machine.unbegun(taken_back)
        assert len(set(unbegun)) == len(unbegun)
        assert set(unbegun) == set(self.offered) - set(self.reported) - self.taken


Ledger.TestCase.settings = settings(max_examples=200, stateful_step_count=50, deadline=None)
TestLedger = Ledger.TestCase
