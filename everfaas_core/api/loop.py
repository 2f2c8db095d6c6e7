"""The server's loop: what waitress's does, without looking at every connection in every turn.

waitress asks each connection in each turn what it waits for. With hundreds of clients that wait, that costs more than
the requests of all others. Here a connection is asked when something has happened to it: an event, a request that has
been answered, output that could not be sent at once; and all of them now and then, for their deadlines.
"""

from __future__ import annotations

import contextlib
import selectors
import threading
import time
from collections import deque
from collections.abc import Iterator
from typing import Any, Final, Protocol

from waitress import wasyncore

TIMED_TURN_S: Final = 1.0  # the longest turn while a connection has a deadline; all are looked at so often
CONNECTED_TURN_S: Final = 30.0  # while there are connections at all: idle ones are closed after `channel_timeout_s`


class Watched(Protocol):
    """A connection, as far as the loop knows it."""

    _fileno: int | None

    @property
    def timed(self) -> bool:
        """Whether it has a deadline."""

    def readable(self) -> bool:
        """Tell whether it wants to read; also looks at its deadlines."""

    def writable(self) -> bool:
        """Tell whether it wants to write, or to be closed."""


class Loop:
    """Runs in one thread; `serving` and `pull_trigger` are for the others."""

    def __init__(self) -> None:
        self.objects: dict[int, Any] = {}  # waitress's map: descriptor → connection, listening socket, trigger
        self._selector = selectors.DefaultSelector()
        self._wanted: dict[int, int] = {}  # descriptor → events; what wants none is not in it, nor in the selector
        self._changed: deque[Any] = deque()
        self._fixed: list[Any] = []
        self._connections: set[Any] = set()
        self._timed: set[Any] = set()
        self._looked_at = time.monotonic()
        self._trigger: Any = None
        self._rung = False
        self._serving: dict[int, Any] = {}

    # ── for connections and threads ──────────────────────────────────────────────────────────────────────────────────

    def take(self, server: Any) -> None:
        """Watch waitress's listening socket and its trigger, and have the trigger pulled through us."""
        self._trigger = server.trigger
        server.pull_trigger = self.pull_trigger
        self._fixed += [server, server.trigger]

    def watch(self, watched: Any) -> None:
        """Watch something that is no connection. It is asked in every turn."""
        self._fixed.append(watched)

    def unwatch(self, watched: Any) -> None:
        """Stop watching it; before it is closed, since a socket that others share would go on giving events."""
        self._fixed.remove(watched)
        if watched._fileno is not None:
            self._unregister(watched._fileno)

    def add(self, connection: Watched) -> None:
        """Watch a connection that has just been accepted."""
        self._connections.add(connection)
        self._changed.append(connection)

    def forget(self, connection: Watched) -> None:
        """Stop watching a connection that is about to be closed."""
        self._connections.discard(connection)
        self._timed.discard(connection)
        if connection._fileno is not None:
            self._unregister(connection._fileno)

    @contextlib.contextmanager
    def serving(self, connection: Watched) -> Iterator[None]:
        """Know whose request this thread answers: that is what the trigger is pulled for."""
        ident = threading.get_ident()
        self._serving[ident] = connection
        try:
            yield
        finally:
            del self._serving[ident]

    def pull_trigger(self) -> None:
        """Wake the loop, and have it ask the connection that this thread serves what it waits for."""
        connection = self._serving.get(threading.get_ident())
        if connection is not None:
            self._changed.append(connection)
        if not self._rung:  # set back before the changed ones are taken, so none is overlooked
            self._rung = True
            self._trigger.pull_trigger()

    # ── the loop ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def turn(self, timeout_s: float | None = None) -> None:
        """Wait for events, at most `timeout_s` and no longer than deadlines allow, and handle them."""
        self._refresh()
        for key, events in self._selector.select(self._bounded_s(timeout_s)):
            # It may have been closed earlier in this turn, and its number be another's now.
            if events & selectors.EVENT_READ and self.objects.get(key.fd) is key.data:
                wasyncore.read(key.data)
            if events & selectors.EVENT_WRITE and self.objects.get(key.fd) is key.data:
                wasyncore.write(key.data)
            self._changed.append(key.data)

    def close(self) -> None:
        """Close everything that is still open. Idempotent."""
        wasyncore.close_all(self.objects, ignore_all=True)
        self._selector.close()

    def _bounded_s(self, timeout_s: float | None) -> float | None:
        if timeout_s is None and self._connections:
            return TIMED_TURN_S if self._timed else CONNECTED_TURN_S
        return timeout_s

    def _refresh(self) -> None:
        """Ask what has changed what it waits for, and now and then everything."""
        self._rung = False
        for watched in self._fixed:  # among them the listening socket, which also does waitress's housekeeping
            self._ask(watched)
        now = time.monotonic()
        if now - self._looked_at >= TIMED_TURN_S:
            self._looked_at = now
            self._changed.extend(self._connections)
        while self._changed:
            connection = self._changed.popleft()
            if connection in self._connections:
                self._ask(connection)
                (self._timed.add if connection.timed else self._timed.discard)(connection)

    def _ask(self, watched: Any) -> None:
        fd = watched._fileno
        events = selectors.EVENT_READ if watched.readable() else 0
        if watched.writable() and not watched.accepting:
            events |= selectors.EVENT_WRITE
        if fd is None or self._wanted.get(fd, 0) == events:
            return
        try:
            if not events:
                self._unregister(fd)
            elif fd in self._wanted:
                self._selector.modify(fd, events, watched)
                self._wanted[fd] = events
            else:
                self._selector.register(fd, events, watched)
                self._wanted[fd] = events
        except (OSError, ValueError, KeyError):  # a request's thread has closed it in this very moment
            self._unregister(fd)

    def _unregister(self, fd: int) -> None:
        if self._wanted.pop(fd, None) is not None:
            with contextlib.suppress(KeyError, ValueError, OSError):
                self._selector.unregister(fd)
