"""Collecting results: one stream for each group that somebody waits for, and a look at the store beneath it.

A result can come before the answer to its submit, so what a stream brings while calls of its group are under way is
kept until their ids are known.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from typing import Any, Final

from everfaas_core.client.calls import Call
from everfaas_core.client.errors import ApiFailed, ApiRefused, ApiUnreachable, TaskVanished
from everfaas_core.client.futures import Future
from everfaas_core.client.http import Api, ApiStream, segment

STREAM_S: Final = 60.0  # the longest that a server grants; then it is opened anew
LINGER_S: Final = 5.0  # a stream that nobody waits for is kept so long, for the next call
CHECK_IDS_MAX: Final = 5_000  # ids in one request
PAUSE_S: Final = 0.2  # before a stream that was cut is opened again
PAUSE_S_MAX: Final = 2.0


class Collector:
    """Brings results to futures. Called by the threads of the outbox; each group has a thread of its own."""

    def __init__(self, api: Api, patience_s: float) -> None:
        self._api = api
        self._patience_s = patience_s
        self._lock = threading.Lock()
        self._groups: dict[str, GroupReader] = {}
        self._closed = threading.Event()

    def expect(self, calls: Sequence[Call]) -> None:
        """Calls are about to be submitted: keep what comes of their groups."""
        for group, count in _groups(calls):
            self._reader(group).expect(count)

    def accepted(self, calls: Sequence[Call], task_ids: Sequence[str]) -> None:
        """Calls have become tasks."""
        of_group: dict[str, list[tuple[str, Future[Any]]]] = {}
        for call, task_id in zip(calls, task_ids, strict=True):
            call.future.accepted(task_id)
            of_group.setdefault(str(call.group), []).append((task_id, call.future))
        for group, pairs in of_group.items():
            self._reader(group).accepted(pairs)

    def expected(self, calls: Sequence[Call]) -> None:
        """What `expect` announced is known now, or will never be."""
        for group, count in _groups(calls):
            self._reader(group).expect(-count)

    def close(self) -> None:
        """End all streams. Idempotent."""
        self._closed.set()
        with self._lock:
            readers = list(self._groups.values())
        for reader in readers:
            reader.stop()

    def _reader(self, group: str) -> GroupReader:
        with self._lock:
            reader = self._groups.get(group)
            if reader is None:
                reader = self._groups[group] = GroupReader(self._api, group, self._patience_s, self._closed)
            return reader


def _groups(calls: Sequence[Call]) -> Iterator[tuple[str, int]]:
    for group, items in groupby(calls, lambda call: str(call.group)):
        yield group, sum(1 for _ in items)


class GroupReader:
    """Follows one group as long as somebody waits for one of its tasks."""

    def __init__(self, api: Api, group: str, patience_s: float, closed: threading.Event) -> None:
        self._api = api
        self._path = f"/v1/groups/{segment(group)}/results"
        self._patience_s = patience_s
        self._closed = closed
        self._lock = threading.Lock()
        self._pending: dict[str, Future[Any]] = {}
        self._early: dict[str, tuple[str, bytes]] = {}
        self._under_way = 0  # calls whose ids are not known yet
        self._running = False
        self._stream: ApiStream | None = None
        self._cursor: str | None = None
        self._wanted_at = 0.0  # when somebody last waited

    def expect(self, count: int) -> None:
        """So many more (or fewer) calls are under way."""
        with self._lock:
            self._under_way += count
            if not self._under_way:
                self._early.clear()

    def accepted(self, pairs: Sequence[tuple[str, Future[Any]]]) -> None:
        """These tasks exist: bring their results."""
        ended = []
        with self._lock:
            for task_id, future in pairs:
                if (early := self._early.pop(task_id, None)) is not None:
                    ended.append((future, early))
                else:
                    self._pending[task_id] = future
            if self._pending and not self._running and not self._closed.is_set():
                self._running = True
                threading.Thread(target=self._run, name="everfaas-results", daemon=True).start()
        for future, (status, result) in ended:
            future.ended(status, result)

    def stop(self) -> None:
        """End the stream; the collector is closed."""
        with self._lock:
            if self._stream is not None:
                self._stream.close()

    # ── the thread ───────────────────────────────────────────────────────────────────────────────────────────────────

    def _run(self) -> None:
        away_since: float | None = None
        pause_s = PAUSE_S
        while not self._done():
            try:
                if self._follow():  # it went on to its end: nothing is wrong, but what it did not bring is looked for
                    self._look()
                away_since, pause_s = None, PAUSE_S
            except ApiFailed as error:
                now = time.monotonic()
                if isinstance(error, ApiRefused):
                    if not error.passing:
                        self._give_up(error)
                        continue
                    if error.status == 429:
                        self._poll()
                        away_since = None
                        continue
                away_since = away_since or now
                if now - away_since > self._patience_s:
                    self._give_up(error)
                    continue
                self._closed.wait(pause_s)
                pause_s = min(pause_s * 2, PAUSE_S_MAX)

    def _done(self) -> bool:
        """Tell whether nobody waits any more; then this thread ends, and the next call starts another one."""
        with self._lock:
            if self._closed.is_set() or not self._wanted():
                self._running = False
                return True
            return False

    def _wanted(self) -> bool:
        now = time.monotonic()
        if self._pending or self._under_way:
            self._wanted_at = now
        return now - self._wanted_at < LINGER_S

    def _follow(self) -> bool:
        """Read the stream until it ends or is cut; tell whether it ended. Raises ApiFailed."""
        with self._api.stream(self._path, {"cursor": self._cursor, "wait_s": STREAM_S}) as stream:
            with self._lock:
                self._stream = stream
                if self._closed.is_set():  # `stop` came before there was a stream to close
                    return False
            try:
                last: Any = None
                for objects in stream.batches():
                    self._take([one for one in objects if one is not None and "task_id" in one])
                    last = objects[-1] or last
                    with self._lock:
                        if not self._wanted():
                            return False
                return isinstance(last, dict) and "end" in last
            finally:
                with self._lock:
                    self._stream = None

    def _take(self, objects: Sequence[dict[str, Any]]) -> None:
        ended = []
        with self._lock:
            for one in objects:
                future = self._pending.pop(one["task_id"], None)
                if future is not None:
                    ended.append((future, one))
                elif self._under_way:
                    self._early[one["task_id"]] = one["status"], one["result"]
            if objects and "cursor" in objects[-1]:
                self._cursor = objects[-1]["cursor"]
        for future, one in ended:
            future.ended(one["status"], one["result"])

    def _look(self) -> None:
        """Ask for the tasks themselves: what the store has lost, or the stream, would be waited for for ever."""
        self._ask(lambda ids: {"task_ids": ids, "wait_s": 0})

    def _poll(self) -> None:
        """No place for a stream is free: wait for the tasks in another way, for a while."""
        self._ask(lambda ids: {"task_ids": ids, "wait_s": 2.0})
        self._closed.wait(PAUSE_S)

    def _ask(self, body: Callable[[list[str]], dict[str, Any]]) -> None:
        with self._lock:
            ids = list(self._pending)
        try:
            for at in range(0, len(ids), CHECK_IDS_MAX):
                asked = ids[at : at + CHECK_IDS_MAX]
                answer = self._api.post("/v1/tasks:wait", body(asked))
                self._take([*answer["ended"]])
                self._lose([*answer["unknown"], *answer["expired"]])
        except ApiRefused as error:
            if not error.passing:
                raise
        except ApiUnreachable:
            pass  # the stream's next try finds out

    def _lose(self, task_ids: Sequence[str]) -> None:
        with self._lock:
            lost = [(one, future) for one in task_ids if (future := self._pending.pop(one, None)) is not None]
        for task_id, future in lost:
            future.failed(
                TaskVanished(
                    f"the API no longer knows task {task_id}: its retention has passed, or its store was emptied",
                    hint="submit the call again; result_ttl_s keeps results longer",
                )
            )

    def _give_up(self, error: ApiFailed) -> None:
        with self._lock:
            futures = list(self._pending.values())
            self._pending.clear()
        for future in futures:
            future.failed(error)
