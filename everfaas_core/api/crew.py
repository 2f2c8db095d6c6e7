"""The threads that answer requests: few work at a time, many may wait.

waitress has a fixed number of threads, and a request that waits for a task would hold one of them. Here a thread that
waits gives its place to another one, and needs a place again before it goes on. So the number of requests that are
worked on at once, and with it what the store and the interpreter's lock have to bear, does not grow with the number of
those who wait; not even when all of them wake at once. Threads are started when there is work for them, and end when
there has been none for a while; those that are kept wait without a timeout, so an idle server wakes for nothing.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections import deque
from collections.abc import Iterator
from typing import Final, Protocol

KEPT: Final = 4  # threads that stay, however little there is to do
RETURNING_MAX: Final = 4
"""Places that those who return from a wait have at a time. When hundreds wake at once, so few get as much done as more
would, since they compute, and the server's loop and new requests do not wait long for the interpreter's lock."""

SURPLUS_S: Final = 30.0  # how long another one waits for work before it ends

_log = logging.getLogger(__name__)


class Work(Protocol):
    """What waitress hands over: a connection with a request that has come in."""

    def service(self) -> None:
        """Answer the request."""

    def cancel(self) -> None:
        """Give it up, because the server ends."""


class _Seat:
    """Where an idle thread waits to be handed work. None, when it wakes, sends it home."""

    def __init__(self) -> None:
        self.called = threading.Lock()
        self.called.acquire()
        self.work: Work | None = None


class Bell:
    """Wakes the one thread that waits, as a `threading.Event` does; but only when there is a place for it.

    Hundreds of threads that wake at once, only to queue for places, would keep the server's loop from the interpreter's
    lock meanwhile. Made by `Crew.bell`; one thread waits, any may ring.
    """

    def __init__(self, crew: Crew, lock: threading.Lock) -> None:
        self._crew = crew
        self._lock = lock  # the crew's
        self._gate = threading.Lock()
        self._gate.acquire()
        self._rung = False
        self._waits = False
        self._has_place = False  # is a thread of the crew's

    def set(self) -> None:
        """Ring."""
        with self._lock:
            self._rung = True
            if self._waits:
                self._let_go()

    def clear(self) -> None:
        """Forget that it has rung."""
        self._rung = False

    def wait(self, timeout_s: float) -> bool:
        """Wait until it rings, at most `timeout_s`, leaving this thread's place to others; tell whether it has rung."""
        with self._lock:
            if self._rung:
                return True
            self._waits = True
            self._has_place = self._crew.leave_place()
        if not self._gate.acquire(timeout=timeout_s):
            with self._lock:
                if self._waits:
                    self._let_go()
            self._gate.acquire()
        if self._has_place:
            self._crew.returned()
        return self._rung

    def _let_go(self) -> None:
        self._waits = False
        if self._has_place:
            self._crew.find_place(self._gate)
        else:
            self._gate.release()


class Crew:
    """waitress's task dispatcher: `add_task` and `shutdown` are its names.

    At most `places` threads work at a time. The number of threads is bounded by those and by what may be `away`, which
    the limits on waiting requests and on connections bound.
    """

    def __init__(self, places: int) -> None:
        self._places = places
        self._lock = threading.Lock()
        self._queue: deque[Work] = deque()
        self._returning: deque[threading.Lock] = deque()
        self._idle: list[_Seat] = []  # the last one to sit down is the first to be called, so that the others may leave
        self._threads: dict[int, threading.Thread] = {}
        self._working = 0
        self._back = 0  # of these, threads that have returned from a wait
        self._own = threading.local()  # `back`: this thread is one of them
        self._new_next = True  # whose turn it is when both new requests and those who return want a place
        self._closed = False

    @property
    def threads(self) -> int:
        """How many threads there are."""
        return len(self._threads)

    def add_task(self, task: Work) -> None:
        """Have it done as soon as there is a place."""
        with self._lock:
            if not self._closed:
                self._queue.append(task)
                self._fill()

    def bell(self) -> Bell:
        """Make a bell for a thread of a request to wait for."""
        return Bell(self, self._lock)

    @contextlib.contextmanager
    def away(self) -> Iterator[None]:
        """Leave this thread's place to others for the time of the context; at its end, wait until there is one again.

        For everything that may wait long. Does nothing in threads of others.
        """
        with self._lock:
            left = self.leave_place()
        try:
            yield
        finally:
            if left:
                gate = threading.Lock()
                gate.acquire()
                with self._lock:
                    self.find_place(gate)
                gate.acquire()  # the place comes with it
                self.returned()

    def shutdown(self, cancel_pending: bool = True, timeout: float = 5) -> None:
        """Cancel what has not begun, let the threads end, and wait for them for at most `timeout` seconds."""
        with self._lock:
            self._closed = True
            pending, self._queue = list(self._queue), deque()
            while self._returning:
                self._returning.popleft().release()
            while self._idle:
                self._idle.pop().called.release()
            threads = list(self._threads.values())
        if cancel_pending:
            for work in pending:
                work.cancel()
        deadline = time.monotonic() + timeout
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        if self._threads:
            _log.warning("%d requests were still running at the end", len(self._threads))

    def returned(self) -> None:
        """Take note that this thread has the place of one who returns. Called by it, as soon as it has."""
        self._own.back = True

    # ── places; all under the lock ───────────────────────────────────────────────────────────────────────────────────

    def leave_place(self) -> bool:
        """Give this thread's place to others; False: it has none, being a thread of others."""
        if threading.get_ident() not in self._threads:
            return False
        self._rise()
        self._fill()
        return True

    def _rise(self) -> None:
        """Give up this thread's place."""
        self._working -= 1
        if getattr(self._own, "back", False):
            self._own.back = False
            self._back -= 1

    def find_place(self, gate: threading.Lock) -> None:
        """Open the gate of somebody who returns, as soon as there is a place."""
        if self._closed:
            self._working += 1
            self._back += 1
            gate.release()
            return
        self._returning.append(gate)
        self._fill()

    def _fill(self) -> None:
        """Give free places away, in turn to new requests and to those who return: neither makes the other wait long."""
        while self._working < self._places:
            others = bool(self._returning) and self._back < RETURNING_MAX
            if not (self._queue or others):
                return
            new = bool(self._queue) and (self._new_next or not others)
            self._new_next = not new
            self._working += 1
            if not new:
                self._back += 1
                self._returning.popleft().release()
            elif not self._call(self._queue[0]):
                self._working -= 1
                return  # it stays queued; whoever is done next tries again
            else:
                self._queue.popleft()

    def _call(self, work: Work) -> bool:
        """Hand work to an idle thread, or to a new one; tell whether there was one."""
        if self._idle:
            seat = self._idle.pop()
            seat.work = work
            seat.called.release()
            return True
        thread = threading.Thread(target=self._run, args=(work,), name="request", daemon=True)
        try:
            thread.start()
        except RuntimeError:  # the system's limit on threads
            _log.warning("no thread can be started beside %d others: requests wait", len(self._threads))
            return False
        assert thread.ident is not None
        self._threads[thread.ident] = thread
        return True

    # ── in the threads ───────────────────────────────────────────────────────────────────────────────────────────────

    def _run(self, work: Work | None) -> None:
        seat = _Seat()
        with self._lock:  # until whoever started us has written us down
            pass
        while work is not None:
            try:
                work.service()
            except BaseException:  # noqa: BLE001  # the boundary: the thread has to live on, as waitress's do
                _log.exception("a request failed outside the application")
            work = self._next(seat)

    def _next(self, seat: _Seat) -> Work | None:
        """Give the place up and wait for work; None: end."""
        with self._lock:
            self._rise()
            seat.work = None
            if self._closed:
                del self._threads[threading.get_ident()]
                return None
            # Seats are taken from the end, so those at the beginning are the ones that are kept.
            patience_s = -1 if len(self._idle) < KEPT else SURPLUS_S
            self._idle.append(seat)
            self._fill()
        called = seat.called.acquire(timeout=patience_s)
        with self._lock:
            if not called:
                if seat in self._idle:
                    self._idle.remove(seat)
                else:  # called in this very moment
                    seat.called.acquire()
            if seat.work is None:
                del self._threads[threading.get_ident()]
            return seat.work
