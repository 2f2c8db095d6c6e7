"""Random histories, compared with a ledger that is kept apart from every store, with and without faults."""

from __future__ import annotations

import random
from dataclasses import dataclass

import pytest

from everfaas_core.model.ids import DispatcherId, TaskId, WorkerId
from everfaas_core.model.records import Adopt, Finish, Requeue, Start
from everfaas_core.model.states import TERMINAL, TRANSITIONS, Cause, Status
from everfaas_core.ports import Store
from everfaas_core.testing.faults import Fault, FaultyStore, persistently
from everfaas_core.testing.store_scene import PLENTY, A, B, Scene

STEPS = 150
DISPATCHERS = (A, B)


@dataclass
class Entry:
    """What the ledger says of one task."""

    status: Status = Status.QUEUED
    attempt: int = 0
    charged: int = 0
    holder: DispatcherId | None = None
    is_live: bool = False
    worker: WorkerId | None = None  # of the last attempt
    is_cancelled: bool = False
    result: bytes = b""
    cause: Cause | None = None

    def become(self, status: Status) -> None:
        assert status == self.status or status in TRANSITIONS[self.status], "the ledger itself is wrong"
        self.status = status

    def end(self, status: Status, cause: Cause, result: bytes) -> None:
        self.become(status)
        self.holder, self.is_live, self.result, self.cause = None, False, result, cause


class History:
    """Does random things to a store, and holds every answer against the ledger."""

    def __init__(self, store: Store, seed: int, fault_rate: float) -> None:
        self.random = random.Random(seed)  # noqa: S311 - a seed replays it
        self.fault_rate = 0.0
        self.calm = Scene(store)
        self.scene = Scene(FaultyStore(store, self._fault))
        self.function = self.calm.function()
        self.ledger: dict[TaskId, Entry] = {}
        self.fault_rate = fault_rate

    def _fault(self, name: str) -> Fault | None:
        if self.random.random() >= self.fault_rate:
            return None
        return self.random.choice((Fault.BEFORE, Fault.AFTER))

    def run(self, steps: int) -> None:
        actions = [self.submit, self.claim, self.claim, self.start, self.start, self.finish, self.finish]
        actions += [self.requeue, self.cancel, self.adopt, self.mixed]
        for _ in range(steps):
            self.random.choice(actions)()
            if self.random.random() < 0.2:
                self.compare()
        self.compare()

    def some(self, most: int = 6) -> list[tuple[TaskId, Entry]]:
        known = list(self.ledger.items())
        return self.random.sample(known, min(len(known), self.random.randint(1, most)))

    def who(self, entry: Entry) -> DispatcherId:
        """Choose the right dispatcher, mostly."""
        return entry.holder if entry.holder and self.random.random() < 0.8 else self.random.choice(DISPATCHERS)

    def token(self, entry: Entry, right: int) -> int:
        """Choose the right attempt, mostly."""
        return right if self.random.random() < 0.8 else self.random.randint(0, entry.attempt + 2)

    # each action calls the store, works out by itself what should come of it, and compares

    def submit(self) -> None:
        specs = [self.calm.spec(self.function) for _ in range(self.random.randint(1, 5))]
        specs += [self.calm.spec(self.function, task_id=task) for task, _ in self.some(2)]  # known ones change nothing
        assert persistently(self.scene.store.submit, specs, PLENTY) == [spec.task_id for spec in specs]
        for spec in specs:
            self.ledger.setdefault(spec.task_id, Entry())

    def claim(self) -> None:
        me, count = self.random.choice(DISPATCHERS), self.random.randint(1, 6)
        free = [task for task, entry in self.ledger.items() if entry.status not in TERMINAL and not entry.holder]
        claimed = persistently(self.scene.claim, count, me)
        assert len(claimed) == min(count, len(free))
        for item in claimed:
            entry = self.ledger[item.task_id]
            assert item.task_id in free
            assert (item.attempt, item.charged) == (entry.attempt, entry.charged)
            entry.holder = me
            free.remove(item.task_id)

    def start(self) -> None:
        for task, entry in self.some():
            me, attempt = self.who(entry), self.token(entry, entry.attempt + 1)
            item = Start(task_id=task, attempt=attempt, worker=WorkerId(f"worker-of-{me}"))
            is_held = entry.status not in TERMINAL and entry.holder == me
            applied = is_held and not entry.is_live and attempt == entry.attempt + 1
            repeated = is_held and entry.is_live and (attempt, item.worker) == (entry.attempt, entry.worker)
            (started,) = persistently(lambda me=me, item=item: self.scene.turn(me, starts=(item,)).started)
            assert started == (applied or repeated)
            if applied:
                entry.become(Status.RUNNING)
                entry.attempt, entry.is_live, entry.worker = attempt, True, item.worker

    def finish(self) -> None:
        for task, entry in self.some():
            me, attempt = self.who(entry), self.token(entry, entry.attempt)
            cause, status = self.random.choice(
                ((Cause.OK, Status.COMPLETED), (Cause.RAISED, Status.FAILED), (Cause.CANCELLED, Status.CANCELLED))
            )
            if cause is Cause.OK and not entry.is_live:
                cause, status = Cause.DEADLINE, Status.FAILED
            result = self.random.randbytes(8)
            item = Finish(task_id=task, attempt=attempt, status=status, cause=cause, result=result)
            current = attempt == entry.attempt
            repeated = current and entry.status == status and entry.cause == cause
            applied = current and entry.status not in TERMINAL and (entry.is_live or entry.holder == me)
            (finished,) = persistently(lambda me=me, item=item: self.scene.turn(me, finishes=(item,)).finished)
            assert finished == (applied or repeated)
            if applied:
                entry.end(status, cause, result)

    def requeue(self) -> None:
        for task, entry in self.some(3):
            me, attempt, charged = self.who(entry), self.token(entry, entry.attempt), self.random.random() < 0.5
            cause = Cause.WORKER_LOST if charged else Cause.GIVEN_BACK
            item = Requeue(task_id=task, attempt=attempt, cause=cause, charged=charged)
            persistently(lambda me=me, item=item: self.scene.turn(me, requeues=(item,)))
            if entry.status in TERMINAL or entry.holder != me or attempt != entry.attempt:
                continue
            if entry.is_live and charged:
                entry.charged += 1
            entry.holder, entry.is_live = None, False
            if entry.is_cancelled:
                entry.end(Status.CANCELLED, Cause.CANCELLED, self.calm.result(task))

    def cancel(self) -> None:
        chosen = self.some(2)
        statuses = persistently(self.scene.store.cancel, [task for task, _ in chosen])
        for (task, entry), status in zip(chosen, statuses, strict=True):
            if entry.status not in TERMINAL:
                entry.is_cancelled = True
                if not entry.is_live:
                    entry.end(Status.CANCELLED, Cause.CANCELLED, self.calm.result(task))
            assert status == entry.status

    def adopt(self) -> None:
        """A worker comes to a dispatcher, perhaps another one, and says what it runs."""
        for task, entry in self.some(3):
            me, attempt = self.random.choice(DISPATCHERS), self.token(entry, entry.attempt)
            worker = entry.worker if entry.worker and self.random.random() < 0.8 else WorkerId("another")
            item = Adopt(task_id=task, attempt=attempt, worker=worker)
            (found,) = persistently(lambda me=me, item=item: self.scene.turn(me, adopts=(item,)).adoptions)
            is_there = entry.is_live and (attempt, worker) == (entry.attempt, entry.worker)
            assert (found is not None) == is_there
            if is_there:
                entry.holder = me

    def mixed(self) -> None:
        """One turn that gives tasks back and claims, as dispatchers do: the claim may bring the same ones again."""
        me = self.random.choice(DISPATCHERS)
        held = [task for task, e in self.ledger.items() if e.holder == me and not e.is_live]
        back = self.random.sample(held, min(len(held), 2))
        items = tuple(
            Requeue(task_id=task, attempt=self.ledger[task].attempt, cause=Cause.GIVEN_BACK, charged=False)
            for task in back
        )
        persistently(lambda: self.scene.turn(me, requeues=items))
        for task in back:
            self.ledger[task].holder = None
        self.claim()

    def compare(self) -> None:
        ids = list(self.ledger)
        records = self.calm.store.tasks(ids)
        results = self.calm.store.results(ids)
        for task, record, result in zip(ids, records, results, strict=True):
            entry = self.ledger[task]
            assert record is not None
            assert result is not None
            assert record.status == result.status == entry.status, task
            assert result.result == entry.result
            assert len(record.attempts) == entry.attempt
            live = [attempt for attempt in record.attempts if attempt.ended_ms is None]
            assert len(live) == entry.is_live
            assert record.cancel_requested == entry.is_cancelled
            assert record.cause == entry.cause
        waiting = sum(entry.status not in TERMINAL and entry.holder is None for entry in self.ledger.values())
        assert self.calm.store.health().queued == waiting
        for me in DISPATCHERS:
            told = set(self.calm.turn(me, sweep=True).cancels)
            wanted = {task for task, e in self.ledger.items() if e.holder == me and e.is_live and e.is_cancelled}
            assert told == wanted


class HistoryContract:
    @pytest.mark.parametrize("seed", range(4))
    def test_random_histories(self, store: Store, seed: int) -> None:
        History(store, seed, fault_rate=0.0).run(STEPS)

    @pytest.mark.parametrize("seed", range(4))
    def test_random_histories_with_faults(self, store: Store, seed: int) -> None:
        History(store, 100 + seed, fault_rate=0.3).run(STEPS)
