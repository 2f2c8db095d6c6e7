"""The work of `everfaas map`: submit in batches within a window, take results from the group's stream as they end."""

from __future__ import annotations

import itertools
import pickle
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

from everfaas_core.cli.interrupts import Interrupts
from everfaas_core.cli.map_inputs import Call
from everfaas_core.cli.map_journal import Journal
from everfaas_core.cli.outcomes import value_fields
from everfaas_core.cli.shown import brief, count_of
from everfaas_core.client.errors import ApiFailed, ApiRefused, ApiUnreachable, TaskVanished
from everfaas_core.client.http import Api, ApiStream, segment
from everfaas_core.shipping import load_result

BATCH_TASKS: Final = 1_000
FIRST_TASKS: Final = 100  # in the first batch
BATCH_BYTES: Final = 8 * 1024 * 1024  # of payloads in one request: a quarter of what a server takes by default
WINDOW: Final = 10_000
"""Tasks that are submitted and have no result yet: so much is in the queue and in memory, whatever comes in."""

DOUBTFUL: Final = 2 * BATCH_TASKS
"""The first of the submits after a resume may be known to the API already."""

PATIENCE_S: Final = 120.0  # with an API that is away
RETRY_S: Final = 0.5
SILENCE_S: Final = 20.0  # without a result, until it is asked what has become of the tasks
STOP_S: Final = 10.0  # for the ends of tasks that were cancelled


class Counts:
    """How far a map is. Written by its threads, read by the bar: each number on its own is right."""

    def __init__(self) -> None:
        self.completed = 0
        self.failed = 0
        self.cancelled = 0
        self.earlier = 0  # had a result when we went on with this map
        self.submitted = 0  # and not ended
        self.running = 0

    @property
    def ended(self) -> int:
        """Results that came now."""
        return self.completed + self.failed


class Flow:
    """One map. `run` is called once, from the main thread; after KeyboardInterrupt, `stop`.

    `emit` gets each result as the object that becomes a line: index, task_id, status, and value, repr or error.
    """

    def __init__(
        self,
        api: Api,
        function_id: str,
        fields: Mapping[str, Any],
        journal: Journal,
        emit: Callable[[Sequence[dict[str, Any]]], None],
        interrupts: Interrupts,
    ) -> None:
        self.counts = Counts()
        self.group = f"map-{journal.run}"
        self._api = api
        self._function_id = function_id
        self._fields = {**fields, "group": self.group}
        self._journal = journal
        self._emit = emit
        self._interrupts = interrupts
        self._cursor = journal.cursor
        self._stream: ApiStream | None = None
        self._room = threading.Condition()  # guards what follows
        self._waiting: dict[str, int] = dict(journal.waiting)
        self._early: dict[str, dict[str, Any]] = {}  # ended before the submit was answered
        self._posting = False
        self._all_sent = False
        self._stopping = False
        self._trouble: BaseException | None = None
        self._heard_at = time.monotonic()
        self._writing = threading.Lock()  # results are written down by one thread at a time

    # ── the main thread ──────────────────────────────────────────────────────────────────────────────────────────────

    def run(self, calls: Iterator[Call]) -> None:
        """Submit all calls that have no result yet, and take all results. Raises ApiFailed, BadInput, OutTrouble."""
        self.counts.earlier = self._journal.done.count
        self._sort_out()
        self.counts.submitted = len(self._waiting)
        for work in (lambda: self._submit(calls), self._watch):
            threading.Thread(target=work, name="map", daemon=True).start()
        self._collect(until=None)

    def stop(self) -> None:
        """Submit nothing more, cancel what has no result, and take what still ends. Raises ApiFailed."""
        with self._room:
            self._stopping = True
            self._room.notify_all()
            self._room.wait_for(lambda: not self._posting, STOP_S)  # a submit that is under way is answered first
            self._all_sent = True
            left = list(self._waiting)
        for begin in range(0, len(left), BATCH_TASKS):
            self._api.post("/v1/tasks:cancel", {"task_ids": left[begin : begin + BATCH_TASKS]})
        self._trouble = None
        self.counts.running = 0
        self._collect(until=time.monotonic() + STOP_S)

    @property
    def finished(self) -> bool:
        """Whether nothing is left to be submitted, and nothing to end."""
        return self._all_sent and not self._waiting and not self._early

    def _collect(self, until: float | None) -> None:
        """Read the group's stream, opened again and again behind the last result, until there is nothing to come."""
        away_since: float | None = None
        while not self._over(until):
            query = {"cursor": self._cursor, "wait_s": 60 if until is None else 2}
            try:
                with self._api.stream(f"/v1/groups/{segment(self.group)}/results", query) as self._stream:
                    if self._over(until):
                        return
                    for objects in self._stream.batches():
                        away_since = None
                        with self._interrupts.held():
                            self._take([one for one in objects if one is not None])
                        if self._over(until):
                            return
                        self._ask_when_silent()
            except (ApiUnreachable, ApiRefused) as error:
                if isinstance(error, ApiRefused) and not error.passing:
                    raise
                away_since = away_since or time.monotonic()
                if time.monotonic() - away_since > PATIENCE_S:
                    raise
                time.sleep(RETRY_S)

    def _over(self, until: float | None) -> bool:
        if self._trouble is not None:
            raise self._trouble
        return self.finished or (until is not None and time.monotonic() > until)

    def _take(self, objects: Sequence[dict[str, Any]]) -> None:
        """Write down what came from the stream."""
        found: list[tuple[int, dict[str, Any]]] = []
        with self._room:
            for one in objects:
                task_id = one.get("task_id")
                index = self._waiting.pop(task_id, None) if task_id is not None else None
                if index is not None:
                    found.append((index, one))
                elif task_id is not None and self._posting:
                    self._early[task_id] = one
            whole = not self._early
            self._room.notify_all()
        if objects:
            self._cursor = objects[-1]["cursor"]
        self._settle(found, self._cursor if whole else None)

    def _settle(self, found: Sequence[tuple[int, dict[str, Any]]], cursor: str | None = None) -> None:
        """Write results down, count them, and show them. `cursor`: everything before it is written down."""
        with self._writing:
            lines, cancelled = [], []
            for index, one in found:
                if one["status"] == "CANCELLED":
                    cancelled.append(index)
                elif self._journal.done.add(index):
                    lines.append(line_of(index, one))
            failed = sum(line["status"] == "FAILED" for line in lines)
            self._journal.ended(lines, cancelled, cursor)
            self._emit(lines)
            counts = self.counts
            counts.completed += len(lines) - failed
            counts.failed += failed
            counts.cancelled += len(cancelled)
            counts.submitted = len(self._waiting)
        if found:
            self._heard_at = time.monotonic()

    # ── what the stream does not tell ────────────────────────────────────────────────────────────────────────────────

    def _ask_when_silent(self) -> None:
        """Settle by asking what has ended and did not come by the stream. Raises TaskVanished."""
        if time.monotonic() - self._heard_at < SILENCE_S:
            return
        self._heard_at = time.monotonic()
        with self._room:
            ids = list(self._waiting)[:BATCH_TASKS]
        gone = self._settle_by_asking(ids) if ids else []
        if gone:
            raise TaskVanished(
                f"the API has no record of {count_of(len(gone), 'task')}: their time was over, or its store emptied",
                hint="--resume submits them again",
            )

    def _settle_by_asking(self, task_ids: Sequence[str]) -> list[int]:
        """Write down those that have ended; return the inputs of those that nobody knows any more."""
        answer = self._api.post("/v1/tasks:wait", {"task_ids": list(task_ids)})
        with self._interrupts.held():
            with self._room:
                found = [(self._waiting.pop(one["task_id"], None), one) for one in answer["ended"]]
                gone = [self._waiting.pop(task_id, None) for task_id in (*answer["unknown"], *answer["expired"])]
            lost = [index for index in gone if index is not None]
            self._settle([(index, one) for index, one in found if index is not None])
            self._journal.ended((), lost, None)
        return lost

    def _sort_out(self) -> None:
        """Of the tasks that an earlier run left behind: forget those that were cancelled, or that nobody knows."""
        again: list[int] = []
        ids = list(self._waiting)
        for begin in range(0, len(ids), BATCH_TASKS):
            body = {"task_ids": ids[begin : begin + BATCH_TASKS], "results": False}
            answer = self._api.post("/v1/tasks:wait", body)
            cancelled = [one["task_id"] for one in answer["ended"] if one["status"] == "CANCELLED"]
            again += [self._waiting.pop(task_id) for task_id in (*cancelled, *answer["unknown"], *answer["expired"])]
        self._journal.ended((), again, None)

    def _watch(self) -> None:
        """Keep the number of running tasks: of busy slots, so it counts the work of others, too."""
        while not (self.finished or self._stopping):
            try:
                workers = self._api.get("/v1/workers")["workers"]
                busy = sum(min(worker["busy"], worker["slots"]) for worker in workers)  # `busy`: handed over, too
                self.counts.running = min(busy, len(self._waiting))
            except ApiFailed:
                self.counts.running = 0
            time.sleep(1.0)

    # ── the submitting thread ────────────────────────────────────────────────────────────────────────────────────────

    def _submit(self, calls: Iterator[Call]) -> None:
        doubtful = DOUBTFUL if self._journal.resumed else 0
        try:
            for indexes, payloads in self._batches(calls):
                if not self._may_post(len(indexes)):
                    return
                task_ids: list[str] = []
                try:
                    task_ids = self._post(indexes, payloads)
                    self._journal.sent(indexes, task_ids)
                finally:
                    found = self._posted(indexes, task_ids)
                self._settle(found)
                if doubtful > 0:  # an earlier run may have submitted these, and been killed before it noted that
                    self._settle_by_asking(task_ids)
                    doubtful -= len(indexes)
        except BaseException as error:  # noqa: BLE001 - the main thread raises it
            self._trouble = error
        finally:
            with self._room:
                self._all_sent = True
                self._room.notify_all()
            if self._stream is not None and (self.finished or self._trouble is not None):
                self._stream.close()  # the main thread waits there for results

    def _may_post(self, count: int) -> bool:
        """Wait until there is room for so many; False: it is to stop."""
        with self._room:
            self._room.wait_for(lambda: self._stopping or not self._waiting or len(self._waiting) + count <= WINDOW)
            self._posting = not self._stopping
            return self._posting

    def _posted(self, indexes: Sequence[int], task_ids: Sequence[str]) -> list[tuple[int, dict[str, Any]]]:
        """Note what was submitted; return what of it has ended already."""
        with self._room:
            self._waiting.update(zip(task_ids, indexes, strict=False))
            self._posting = False
            found = [(self._waiting.pop(id_), one) for id_, one in self._early.items() if id_ in self._waiting]
            self._early.clear()
            self.counts.submitted = len(self._waiting)
            self._room.notify_all()
        return found

    def _batches(self, calls: Iterator[Call]) -> Iterator[tuple[list[int], list[bytes]]]:
        """Yield what has to be submitted, neither done nor waiting. A small batch first: work begins at once."""
        inherited = frozenset(self._waiting.values())
        indexes: list[int] = []
        payloads: list[bytes] = []
        size, most = 0, min(FIRST_TASKS, BATCH_TASKS)
        for index, call in zip(itertools.count(), calls, strict=False):
            if self._stopping:
                return
            if index in self._journal.done or index in inherited:
                continue
            payload = pickle.dumps(call)
            if indexes and (len(indexes) >= most or size + len(payload) > BATCH_BYTES):
                yield indexes, payloads
                indexes, payloads, size, most = [], [], 0, BATCH_TASKS
            indexes.append(index)
            payloads.append(payload)
            size += len(payload)
        if indexes:
            yield indexes, payloads

    def _post(self, indexes: Sequence[int], payloads: Sequence[bytes]) -> list[str]:
        """Submit; again and again, since each task has a key, while the API is away, and while its queue is full."""
        version = self._function_id[:8]
        tasks = [
            {
                "function_id": self._function_id,
                "payload": payload,
                "idempotency_key": f"{self._journal.key(index)}/{version}",
                **self._fields,
            }
            for index, payload in zip(indexes, payloads, strict=True)
        ]
        away_since: float | None = None
        while True:
            try:
                ids: list[str] = self._api.post("/v1/tasks:batch", {"tasks": tasks})["task_ids"]
            except ApiFailed as error:
                queue_full = isinstance(error, ApiRefused) and error.reason == "queue_full"
                passing = isinstance(error, ApiUnreachable) or (isinstance(error, ApiRefused) and error.passing)
                away_since = time.monotonic() if queue_full else away_since or time.monotonic()
                if not passing or self._stopping or time.monotonic() - away_since > PATIENCE_S:
                    raise
                time.sleep(RETRY_S)
            else:
                return ids


def line_of(index: int, ended: Mapping[str, Any]) -> dict[str, Any]:
    """Return the line of a task that has ended: index, task_id, status, and value, repr, or error and traceback."""
    line: dict[str, Any] = {"index": index, "task_id": ended["task_id"], "status": ended["status"]}
    try:
        loaded = load_result(ended["result"])
    except Exception as error:  # noqa: BLE001 - whatever the classes in it do when they are loaded
        reason = brief("".join(traceback.format_exception_only(error)))
        name = "unloadable" if ended["status"] == "COMPLETED" else "error"
        return line | {name: reason}
    if ended["status"] == "COMPLETED":
        return line | value_fields(loaded)
    text = "".join(traceback.format_exception(type(loaded), loaded, None)).rstrip()
    return line | {
        "error": brief("".join(traceback.format_exception_only(loaded)).split("\n", 1)[0]),
        "traceback": text,
    }
