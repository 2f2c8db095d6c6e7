"""From the machine's actions to one turn of the store and the messages for workers, and from the answer to events.

The bytes that bypass the machine are kept here: payloads from Claimed to Run, results from Ended to Settled.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

import msgspec
from msgspec import Struct

from everfaas_core.dispatch import actions as do
from everfaas_core.dispatch import events as ev
from everfaas_core.model.failure import failure_payload
from everfaas_core.model.ids import FunctionId, TaskId, WorkerId
from everfaas_core.model.output import PIECE_COST_BYTES, Printed, Progressed
from everfaas_core.model.records import CLAIM_BYTES_MAX, Adopt, ClaimedTask, Finish, Requeue, Start, Turn, TurnReply
from everfaas_core.model.states import Cause, Status
from everfaas_core.runtime.codebook import Codebook
from everfaas_core.wire.messages import (
    Ack,
    Held,
    Kill,
    Outcome,
    Pulse,
    Quit,
    Refuse,
    Said,
    Stranger,
    TaskItem,
    Tasks,
    ToWorker,
    Welcome,
)

PRINTED_BYTES_MAX: Final = 8 * 1024 * 1024
PROGRESS_MAX: Final = 10_000
"""Of what attempts have printed, and words of their progress, that wait for the store."""

Letters = list[tuple[WorkerId, ToWorker]]


class Errand(Struct):
    """What the store is still to be asked. Survives a failed exchange: everything but the claim is idempotent."""

    finishes: list[Finish]
    requeues: list[Requeue]
    starts: list[Start]
    adopts: list[Adopt]
    functions: set[FunctionId]
    printed: list[Printed] = []
    progress: list[Progressed] = []
    printed_bytes: int = 0
    claim: int = 0
    claim_bytes: int = CLAIM_BYTES_MAX

    @property
    def size(self) -> int:
        """How many tasks it is about."""
        return len(self.finishes) + len(self.requeues) + len(self.starts) + len(self.adopts)

    def __bool__(self) -> bool:
        work = self.finishes or self.requeues or self.starts or self.adopts or self.functions or self.claim
        return bool(work or self.printed or self.progress)

    def tell(self, said: Said) -> None:
        """Add what attempts have printed, as far as there is room: the store may be away for long."""
        for one in said.printed:
            size_bytes = len(one.text) + PIECE_COST_BYTES
            if self.printed_bytes + size_bytes <= PRINTED_BYTES_MAX:
                self.printed.append(one)
                self.printed_bytes += size_bytes
        known = {(one.task_id, one.attempt): one for one in (*self.progress, *said.progress)}
        self.progress = list(known.values())[-PROGRESS_MAX:]

    def told(self, turn: Turn) -> None:
        """Forget what the store has been told."""
        del self.printed[: len(turn.printed)]
        self.printed_bytes -= sum(len(one.text) + PIECE_COST_BYTES for one in turn.printed)
        if turn.progress:
            told = set(turn.progress)
            self.progress = [one for one in self.progress if one not in told]


class Turns:
    """Translates; holds bytes; decides nothing."""

    def __init__(self, welcome: Welcome, codebook: Codebook, *, bound: bool) -> None:
        self._welcome = welcome
        self._codebook = codebook
        self._bound = bound
        self._payloads: dict[TaskId, ClaimedTask] = {}
        self._code_wanted: list[tuple[WorkerId, FunctionId]] = []
        self.errand = Errand([], [], [], [], set())

    def meet(self, peers: tuple[str, ...], *, heirs: bool) -> bool:
        """Tell workers that join from now on of other dispatchers; return False if that is nothing new."""
        if (peers, heirs) == (self._welcome.peers, self._welcome.heirs):
            return False
        self._welcome = msgspec.structs.replace(self._welcome, peers=peers, heirs=heirs)
        return True

    def forget(self) -> None:
        """Drop what only the holder of a claim may ask for. Results are kept: anybody may store them."""
        self._payloads.clear()
        errand = self.errand
        del errand.requeues[:], errand.starts[:], errand.adopts[:]

    def take(self, actions: Sequence[do.Action], outcomes: dict[Held, Outcome]) -> Letters:
        """Add the store's part of a step to the errand, and return the messages, tasks and acknowledgements batched.

        `outcomes` are those that came with the events of this step: their results go into its finishes.
        """
        letters: Letters = []
        runs: dict[tuple[WorkerId, int], list[do.Run]] = {}
        acks: dict[WorkerId, list[Held]] = {}
        kills: dict[WorkerId, list[Held]] = {}
        for action in actions:
            match action:
                case do.Run():
                    runs.setdefault((action.worker_id, action.epoch), []).append(action)
                case do.StartAttempt(task_id, attempt, worker_id, epoch):
                    self.errand.starts.append(
                        Start(task_id=task_id, attempt=attempt, worker=worker_id, bound=self._bound, epoch=epoch)
                    )
                case do.AdoptAttempt(task_id, attempt, worker_id, epoch):
                    self.errand.adopts.append(Adopt(task_id=task_id, attempt=attempt, worker=worker_id, epoch=epoch))
                case do.FinishAttempt(task_id, attempt):
                    self.errand.finishes.append(self._finish(action, outcomes.get((task_id, attempt))))
                case do.RequeueAttempt():
                    self.errand.requeues.append(self._requeue(action))
                case do.Claim(count, bytes_max):
                    self.errand.claim, self.errand.claim_bytes = count, bytes_max
                case do.Acknowledge(worker_id, items):
                    acks.setdefault(worker_id, []).extend(items)
                case do.KillAttempts(worker_id, items):
                    kills.setdefault(worker_id, []).extend(items)
                case do.SendCode(worker_id, functions):
                    self._code_wanted.extend((worker_id, function_id) for function_id in functions)
                    self.errand.functions.update(self._codebook.missing(functions))
                case do.Welcomed(worker_id):
                    letters.append((worker_id, self._welcome))
                case do.Refused(worker_id, code, reason):
                    letters.append((worker_id, Refuse(code, reason)))
                case do.AskedAgain(worker_id):
                    letters.append((worker_id, Stranger()))
                case do.Pulsed(worker_id):
                    letters.append((worker_id, Pulse()))
                case do.QuitWorker(worker_id):
                    letters.append((worker_id, Quit()))
        letters.extend((worker_id, Ack(tuple(items))) for worker_id, items in acks.items())
        letters.extend((worker_id, Kill(tuple(items))) for worker_id, items in kills.items())
        letters.extend((worker_id, self._tasks(batch, epoch)) for (worker_id, epoch), batch in runs.items())
        letters.extend(self._code_letters())
        return letters

    def _finish(self, action: do.FinishAttempt, outcome: Outcome | None) -> Finish:
        if action.reason is None and outcome is not None:
            result, error = outcome.result, outcome.error
        else:
            result = failure_payload(action.cause, _plain(action))
            error = action.reason
        return Finish(
            task_id=action.task_id,
            attempt=action.attempt,
            status=action.status,
            cause=action.cause,
            result=result,
            error=error,
            run_s=None if outcome is None else outcome.run_s,
        )

    def _requeue(self, action: do.RequeueAttempt) -> Requeue:
        return Requeue(
            task_id=action.task_id,
            attempt=action.attempt,
            cause=action.cause,
            charged=action.charged,
            delay_s=action.delay_s,
            error=action.reason,
        )

    def _tasks(self, runs: Iterable[do.Run], epoch: int) -> Tasks:
        items: list[TaskItem] = []
        code: dict[FunctionId, None] = {}
        for run in runs:
            payload = self._payloads.pop(run.task_id).payload
            items.append(TaskItem(run.task_id, run.attempt, run.function_id, payload, run.timeout_s))
            if run.with_code:
                code[run.function_id] = None
        # Code that has left the cache since it was fetched is not sent: the worker asks for it.
        found = [self._codebook.item(function_id) for function_id in code]
        return Tasks(tuple(items), tuple(item for item in found if item is not None), epoch)

    def _code_letters(self) -> Letters:
        letters: Letters = []
        wanted, self._code_wanted = self._code_wanted, []
        for worker_id, function_id in wanted:
            item = self._codebook.item(function_id)
            if item is None:
                self._code_wanted.append((worker_id, function_id))
            else:
                letters.append((worker_id, Tasks((), (item,))))
        return letters

    def events(self, turn: Turn, reply: TurnReply) -> list[ev.Event]:
        """Return what the store's answer means to the machine, and forget what has been carried out."""
        errand = self.errand
        del errand.finishes[: len(turn.finishes)], errand.requeues[: len(turn.requeues)]
        del errand.starts[: len(turn.starts)], errand.adopts[: len(turn.adopts)]
        errand.told(turn)
        errand.functions.difference_update(turn.functions)
        for function_id, record in zip(turn.functions, reply.functions, strict=True):
            self._codebook.put(function_id, record)
        events: list[ev.Event] = []
        settled = [(finish.task_id, finish.attempt) for finish in turn.finishes]
        settled += [(requeue.task_id, requeue.attempt) for requeue in turn.requeues]
        if settled:
            events.append(ev.Settled(tuple(settled)))
            for task_id, _ in settled:
                self._payloads.pop(task_id, None)
        if turn.starts:
            events.append(self._started(turn, reply))
        for adopt, task in zip(turn.adopts, reply.adoptions, strict=True):
            events.append(ev.Answered((adopt.task_id, adopt.attempt), adopt.worker, adopt.epoch, task))
        if reply.evicted:
            self._payloads.clear()
            events.append(ev.Evicted())
        if reply.adopted:
            events.append(ev.Adopted(reply.adopted))
        if reply.claimed:
            for task in reply.claimed:
                self._payloads[task.task_id] = task
            wanted = {task.function_id for task in reply.claimed}
            errand.functions.update(self._codebook.missing(wanted))
        if turn.claim:
            errand.claim = 0
            events.append(ev.Claimed(turn.claim, reply.claimed, reply.next_due_s))
        events.extend(ev.WorkerDrained(worker_id) for worker_id in reply.drains)
        if reply.cancels:
            events.append(ev.CancelAsked(reply.cancels))
        return events

    def _started(self, turn: Turn, reply: TurnReply) -> ev.Started:
        accepted: list[Held] = []
        refused: list[Held] = []
        for start, is_accepted in zip(turn.starts, reply.started, strict=True):
            held = start.task_id, start.attempt
            (accepted if is_accepted else refused).append(held)
            if not is_accepted:
                self._payloads.pop(start.task_id, None)
        return ev.Started(tuple(accepted), tuple(refused))

    def unclaimed(self) -> list[ev.Event]:
        """Give up the claim of a failed exchange: the store repeats its answer to the next one."""
        asked, self.errand.claim = self.errand.claim, 0
        return [ev.Claimed(asked, ()), ev.Rung()] if asked else []


def _plain(action: do.FinishAttempt) -> str:
    """Return the reason as a client reads it behind `WorkerFailure: `."""
    reason = action.reason or f"ended as {action.cause}"
    if action.cause is Cause.DEADLINE and "exceeded deadline" not in reason:
        return f"exceeded deadline: {reason}"
    if action.status is Status.CANCELLED and "cancelled" not in reason:
        return f"cancelled: {reason}"
    return reason
