"""Long-polls and streams: one subscription to the store per process, and an event for each waiting request.

Whoever waits registers first, then reads the store, then waits: a task that ends in between has set the event already.
The store is not polled for waiters; a re-read every few seconds is only the net beneath a lost notice.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Final, Protocol

from everfaas_core.model.errors import StoreUnavailable
from everfaas_core.model.ids import TaskId
from everfaas_core.model.records import ResultRecord
from everfaas_core.ports import Notice, Store, Watch
from everfaas_core.runtime.poll import Poller

BACKOFF_MIN_S: Final = 0.1
BACKOFF_MAX_S: Final = 2.0
LOOK_S: Final = 5.0  # a look at the subscription even when nothing came: notices a connection that died silently
JOIN_S: Final = 5.0

CROWD_MIN: Final = 100  # ids
CROWD_S: Final = 0.02
CROWD_ENOUGH: Final = 500
"""Who waits for very many tasks is not woken by the first that ends, but a little later, or by many: each answer has a
price of its own, and so has each question after it for all that have not ended."""

_log = logging.getLogger(__name__)


class Event(Protocol):
    """What a waiting thread waits for: a `threading.Event`, or one that knows more about threads."""

    def set(self) -> None:
        """Wake it, or let its next wait return at once."""

    def clear(self) -> None:
        """Take that back."""

    def wait(self, timeout: float, /) -> bool:
        """Wait until it is set, at most `timeout` seconds."""


class Waiter:
    """One waiting request. Made by `Hub.waiter`; used by that request's thread."""

    def __init__(self, ids: frozenset[TaskId], lock: threading.Lock, event: Event) -> None:
        self.ids = ids
        self.woken = False  # whether the last wait ended before its time
        self._enough = 1 if len(ids) < CROWD_MIN else min(CROWD_ENOUGH, len(ids))
        self._lock = lock
        self._ended: set[TaskId] = set()
        self.told: ResultRecord | None = None  # of the task that has ended last, if the notice had it
        self._stale = False
        self._event = event

    def wake(self, ended: TaskId | None, told: ResultRecord | None = None) -> bool:
        """Note that a task has ended; None: anything may have. Called by the hub under its lock.

        Returns False when it sleeps on, and is to be woken by `rouse` a little later.
        """
        if ended is None:
            self._stale = True
        else:
            self._ended.add(ended)
            self.told = told
            if len(self._ended) < self._enough:
                return False
        self.rouse()
        return True

    def rouse(self) -> None:
        """Wake it for what was noted."""
        self._event.set()

    def wait(self, timeout_s: float) -> frozenset[TaskId]:
        """Wait for a wake-up, at most `timeout_s`; return the ids to read again (all of them if it can't be told)."""
        self.woken = self._event.wait(timeout_s)
        with self._lock:
            self._event.clear()
            ids = self.ids if self._stale or not self._ended else frozenset(self._ended)
            self._ended = set()
            self._stale = False
        return ids


class Hub:
    """The one subscription of this process, in a thread that starts with the first waiter or with `start`."""

    def __init__(self, store: Store, make_event: Callable[[], Event] = threading.Event) -> None:
        self._store = store
        self._make_event = make_event
        self._lock = threading.Lock()
        self._waiters: dict[TaskId, set[Waiter]] = {}
        self._readers: dict[TaskId, set[Waiter]] = {}  # of these, those who follow what the task prints
        self._all: set[Waiter] = set()
        self._late: dict[Waiter, float] = {}  # to be woken at that instant, in order of time
        self._groups: dict[str, Callable[[], None]] = {}
        self._thread: threading.Thread | None = None
        self._wake_reader, self._wake_writer = os.pipe()
        os.set_blocking(self._wake_reader, False)
        os.set_blocking(self._wake_writer, False)
        self._closed = False
        self.draining = False

    def start(self) -> None:
        """Subscribe, if that has not begun yet. Never raises: the thread goes on trying."""
        with self._lock:
            if self._thread is None and not self.draining and not self._closed:
                self._thread = threading.Thread(target=self._run, name="everfaas-hub", daemon=True)
                self._thread.start()

    @contextlib.contextmanager
    def waiter(self, ids: Iterable[TaskId], *, reads_along: bool = False) -> Iterator[Waiter]:
        """Register interest in the ends of tasks for the time of the context; `reads_along`: in their logs, too."""
        self.start()
        waiter = Waiter(frozenset(ids), self._lock, self._make_event())
        tables = [self._waiters, self._readers] if reads_along else [self._waiters]
        with self._lock:
            self._all.add(waiter)
            for table in tables:
                for task_id in waiter.ids:
                    table.setdefault(task_id, set()).add(waiter)
        try:
            yield waiter
        finally:
            with self._lock:
                self._all.discard(waiter)
                self._late.pop(waiter, None)
                for table in tables:
                    for task_id in waiter.ids:
                        others = table[task_id]
                        others.discard(waiter)
                        if not others:
                            del table[task_id]

    def listen(self, group: str, wake: Callable[[], None]) -> None:
        """Call `wake` whenever a task of `group` has ended, or may have; in the hub's thread, under its lock.

        A group has one listener.
        """
        self.start()
        with self._lock:
            self._groups[group] = wake

    def unlisten(self, group: str) -> None:
        """Call it no more."""
        with self._lock:
            del self._groups[group]

    def drain(self) -> None:
        """Let all long-polls answer now with what they know, and later ones answer at once."""
        self.draining = True
        self._wake_all()

    def close(self) -> None:
        """Drain, end the thread, and unsubscribe. Idempotent."""
        self.drain()
        with self._lock:
            if self._closed:
                return
            self._closed = True
            thread = self._thread
        os.write(self._wake_writer, b"!")
        if thread is not None:
            thread.join(JOIN_S)
            if thread.is_alive():  # stuck in the store's timeout; a daemon, and its descriptors go with the process
                return
        os.close(self._wake_reader)
        os.close(self._wake_writer)

    def _wake_all(self) -> None:
        with self._lock:
            for waiter in self._all:
                waiter.wake(None)
            for wake in self._groups.values():
                wake()

    # ── the thread ───────────────────────────────────────────────────────────────────────────────────────────────────

    def _run(self) -> None:
        poller = Poller()
        poller.register(self._wake_reader)
        backoff_s = BACKOFF_MIN_S
        try:
            while not self._closed:
                try:
                    watch = self._store.watch("ended")
                    self._wake_all()  # what ended before the subscription stood was not heard
                    backoff_s = BACKOFF_MIN_S
                    with contextlib.closing(watch):
                        self._follow(watch, poller)
                except StoreUnavailable:
                    poller.wait(backoff_s)
                    backoff_s = min(backoff_s * 2, BACKOFF_MAX_S)
                except Exception:  # noqa: BLE001  # the port's boundary: without this thread, waits take seconds
                    _log.exception("the subscription to the store failed, beginning anew")
                    poller.wait(BACKOFF_MAX_S)
        finally:
            poller.close()

    def _follow(self, watch: Watch, poller: Poller) -> None:
        """Pass notices on until the hub is closed."""
        backoff_s = BACKOFF_MIN_S
        watched = -1
        while not self._closed:
            try:
                notices = watch.read()
            except StoreUnavailable as error:
                if backoff_s == BACKOFF_MIN_S:
                    _log.warning("the subscription to the store is lost, trying to renew it: %s", error)
                # Its descriptor may be closed, or readable for ever: wait on our own only.
                poller.unregister(watched)
                watched = -1
                poller.wait(backoff_s)
                backoff_s = min(backoff_s * 2, BACKOFF_MAX_S)
                continue
            backoff_s = BACKOFF_MIN_S
            self._pass_on(notices)
            # A renewed connection may have got the number of the old one, which the kernel no longer watches.
            if watch.fileno() != watched or any(notice.lost for notice in notices):
                poller.unregister(watched)
                watched = watch.fileno()
                poller.register(watched)
            poller.wait(self._wake_late())

    def _wake_late(self) -> float:
        """Wake those whose time has come; return how long until the next, at most LOOK_S."""
        with self._lock:
            now = time.monotonic()
            while self._late:
                waiter, due = next(iter(self._late.items()))
                if due > now:
                    return min(due - now, LOOK_S)
                del self._late[waiter]
                waiter.rouse()
        return LOOK_S

    def _pass_on(self, notices: Iterable[Notice]) -> None:
        for notice in notices:
            if notice.lost:
                self._wake_all()
            late_at = time.monotonic() + CROWD_S
            with self._lock:
                for task_id in notice.ended:
                    for waiter in self._waiters.get(task_id, ()):
                        if waiter.wake(task_id, notice.told):
                            self._late.pop(waiter, None)
                        else:
                            self._late.setdefault(waiter, late_at)
                for task_id in notice.printed:
                    for waiter in self._readers.get(task_id, ()):
                        waiter.rouse()
                for group in notice.groups:
                    if group in self._groups:
                        self._groups[group]()
