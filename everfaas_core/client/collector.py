"""Collecting results: one stream for each group that somebody waits for, and a look at the store beneath it.

A result can come before the answer to its submit, so what a stream brings while calls of its group are under way is
kept until their ids are known. A call with an idempotency key of the user's may turn out to be an older task, of
another group or none: such tasks are asked for by their ids.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

from everfaas_core.client.calls import Call
from everfaas_core.client.errors import ApiFailed, ApiRefused, ApiUnreachable
from everfaas_core.client.http import Api, ApiStream, segment
from everfaas_core.client.pending import Pairs, Pending, tell, vanished

STREAM_S: Final = 60.0  # the longest that a server grants; then it is opened anew
LINGER_S: Final = 5.0  # a stream that nobody waits for is kept so long, for the next call
ASKED_IDS_MAX: Final = 5_000  # ids in one request
ASKED_S: Final = 1.0
"""How long a request by ids waits for one of them; those that were added meanwhile are in the next one."""

READERS_MAX: Final = 256
"""Groups whose place in their stream is remembered; others that nobody waits for are read from the beginning again."""

PAUSE_S: Final = 0.2  # before a stream that was cut is opened again, or ids are asked for again
PAUSE_S_MAX: Final = 2.0

_log = logging.getLogger(__name__)


class Collector:
    """Brings results to those who wait. Called by the threads of the outbox; each group has a thread of its own."""

    def __init__(self, api: Api, patience_s: float) -> None:
        self._api = api
        self._patience_s = patience_s
        self._lock = threading.Lock()
        self._readers: dict[str | None, Reader] = {}  # by group; None: by ids
        self._closed = threading.Event()

    def expect(self, calls: Sequence[Call]) -> None:
        """Calls are about to be submitted: keep what comes of their groups."""
        for reader, some in self._by_reader(calls):
            reader.expect(len(some))

    def accepted(self, calls: Sequence[Call], task_ids: Sequence[str]) -> None:
        """Calls have become tasks."""
        ids = {}
        for call, task_id in zip(calls, task_ids, strict=True):
            call.waiter.accepted(task_id)
            ids[call] = task_id
        for reader, some in self._by_reader(calls):
            reader.add([(ids[call], call.waiter) for call in some])
            if old := [ids[call] for call in some if call.keyed]:
                reader.look_for(old)

    def expected(self, calls: Sequence[Call]) -> None:
        """What `expect` announced is known now, or will never be."""
        for reader, some in self._by_reader(calls):
            reader.expect(-len(some))

    def close(self) -> None:
        """End all streams. Idempotent."""
        self._closed.set()
        with self._lock:
            readers = list(self._readers.values())
        for reader in readers:
            reader.stop()

    def _by_reader(self, calls: Sequence[Call]) -> list[tuple[Reader, list[Call]]]:
        by_group: dict[str | None, list[Call]] = {}
        for call in calls:
            by_group.setdefault(None if call.asked_by_id else call.group, []).append(call)
        return [(self._reader(group), some) for group, some in by_group.items()]

    def _reader(self, group: str | None) -> Reader:
        with self._lock:
            reader = self._readers.get(group)
            if reader is None:
                if len(self._readers) >= READERS_MAX:
                    self._readers = {name: one for name, one in self._readers.items() if one.is_wanted()}
                made = Reader if group is None else GroupReader
                reader = self._readers[group] = made(self._api, group or "", self._patience_s, self._closed)
            return reader


class Reader:
    """Brings the results of tasks to those who wait, by asking for their ids, as long as somebody waits."""

    def __init__(self, api: Api, group: str, patience_s: float, closed: threading.Event) -> None:
        self._api = api
        self._group = group
        self._patience_s = patience_s
        self._closed = closed
        self._lock = threading.Lock()
        self._pending = Pending()
        self._running = False
        self._wanted_at = 0.0  # when somebody last waited

    def expect(self, count: int) -> None:
        """So many more (or fewer) calls are under way."""
        with self._lock:
            self._pending.expect(count)

    def add(self, pairs: Pairs) -> None:
        """These tasks exist: bring their results."""
        with self._lock:
            settled = self._pending.add(pairs)
            if self._pending and not self._running and not self._closed.is_set():
                self._running = True
                threading.Thread(target=self._run, name="everfaas-results", daemon=True).start()
        tell(settled)

    def look_for(self, task_ids: Sequence[str]) -> None:
        """Bring those of these tasks that have ended already: what is read on may be behind their ends."""
        with contextlib.suppress(ApiFailed):  # they are asked for again later
            self._ask(0, task_ids)

    def is_wanted(self) -> bool:
        """Tell whether somebody waits, or has lately."""
        with self._lock:
            return self._running or self._pending.wanted

    def stop(self) -> None:
        """Let go; the collector is closed."""

    # ── the thread ───────────────────────────────────────────────────────────────────────────────────────────────────

    def _run(self) -> None:
        away_since: float | None = None
        pause_s = PAUSE_S
        while not self._done():
            try:
                self._read()
                away_since, pause_s = None, PAUSE_S
            except ApiFailed as error:
                away_since = away_since or time.monotonic()
                hopeless = isinstance(error, ApiRefused) and not error.passing
                if hopeless or time.monotonic() - away_since > self._patience_s:
                    self._give_up(error)
                else:
                    self._closed.wait(pause_s)
                    pause_s = min(pause_s * 2, PAUSE_S_MAX)
            except Exception as error:  # noqa: BLE001 - the boundary of the thread: those who wait must hear of it
                _log.exception("results could not be collected")
                self._give_up(error)

    def _done(self) -> bool:
        """Tell whether nobody waits any more; then this thread ends, and the next call starts another one."""
        with self._lock:
            if self._closed.is_set() or not self._wanted():
                self._running = False
                return True
            return False

    def _wanted(self) -> bool:
        now = time.monotonic()
        if self._pending.wanted:
            self._wanted_at = now
        return now - self._wanted_at < LINGER_S

    def _read(self) -> None:
        """Bring what there is. Raises ApiFailed."""
        self._ask(ASKED_S)
        self._closed.wait(PAUSE_S)  # so that many ends are asked for together

    def _take(self, ended: Sequence[dict[str, Any]]) -> None:
        with self._lock:
            settled = self._pending.take(ended)
        tell(settled)

    def _ask(self, wait_s: float, task_ids: Sequence[str] | None = None) -> None:
        """Ask for these tasks themselves, or for all that somebody waits for. Raises ApiFailed."""
        with self._lock:
            ids = self._pending.ids() if task_ids is None else list(task_ids)
        for at in range(0, len(ids), ASKED_IDS_MAX):
            self._ask_some(ids[at : at + ASKED_IDS_MAX], wait_s if len(ids) <= ASKED_IDS_MAX else 0)

    def _ask_some(self, ids: list[str], wait_s: float) -> None:
        more = True
        while more and ids:  # an answer has 64 MiB of results at the most
            answer = self._api.post("/v1/tasks:wait", {"task_ids": ids, "wait_s": wait_s})
            self._take(answer["ended"])
            for task_id in (*answer["unknown"], *answer["expired"]):
                self._fail([task_id], lambda task_id=task_id: vanished(task_id))
            more = answer["more"]
            known = {one["task_id"] for one in answer["ended"]}
            ids = [one for one in ids if one not in known]

    def _fail(self, task_ids: Sequence[str], error: Callable[..., Exception]) -> None:
        with self._lock:
            waiters = self._pending.drop(task_ids)
        for waiter in waiters:
            waiter.failed(error())

    def _give_up(self, error: Exception) -> None:
        with self._lock:
            ids = self._pending.ids()
        self._fail(ids, lambda: error)


class GroupReader(Reader):
    """Brings them by the stream of their group."""

    def __init__(self, api: Api, group: str, patience_s: float, closed: threading.Event) -> None:
        super().__init__(api, group, patience_s, closed)
        self._path = f"/v1/groups/{segment(group)}/results"
        self._stream: ApiStream | None = None
        self._cursor: str | None = None

    def stop(self) -> None:
        """End the stream."""
        with self._lock:
            if self._stream is not None:
                self._stream.close()

    def _read(self) -> None:
        try:
            went_on = self._follow()
        except ApiRefused as error:
            if error.status != 429:
                raise
            super()._read()  # no place for a stream is free
            return
        if went_on:  # what it did not bring in all that time is looked for: the store may have lost it
            with contextlib.suppress(ApiUnreachable):  # the stream's next try finds out
                self._ask(0)

    def _follow(self) -> bool:
        """Read the stream until it ends, is cut, or nobody waits; tell whether it ended. Raises ApiFailed."""
        with self._api.stream(self._path, {"cursor": self._cursor, "wait_s": STREAM_S}) as stream:
            with self._lock:
                self._stream = stream
                if self._closed.is_set():
                    return False
            try:
                last: Any = None
                for objects in stream.batches():
                    found = [one for one in objects if one is not None]
                    if found:
                        last = found[-1]
                        self._take([one for one in found if "task_id" in one])
                        self._cursor = last.get("cursor", self._cursor)
                    with self._lock:
                        if not self._wanted():
                            return False
                return isinstance(last, dict) and "end" in last
            finally:
                with self._lock:
                    self._stream = None
