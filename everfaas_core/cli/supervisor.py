"""Keeps roles alive: starts them, starts them again when they die, and ends them in order. One loop, no polling."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import time
from collections.abc import Callable
from types import FrameType
from typing import Final, Protocol

from everfaas_core.cli import EXIT_FAILED, EXIT_REFUSED, EXIT_USAGE
from everfaas_core.cli.children import (
    RESTARTS_MAX,
    RESTARTS_WINDOW_S,
    Child,
    RestartBudget,
    describe_exit,
)
from everfaas_core.model.errors import EverfaasError
from everfaas_core.runtime.poll import Poller
from everfaas_core.runtime.signals import DRAIN, STOP, StopRequest

STOP_GRACE_S: Final = 2.0
"""What a role that was asked to stop at once gets before it is killed."""


class ServerProcess(Protocol):
    """The embedded store, as far as it is supervised."""

    def start(self) -> str:
        """Start it and return its URL."""

    def stop(self) -> None:
        """Have it save and end. Idempotent."""

    def poll(self) -> int | None:
        """Return its exit status if it has ended, else None."""


class ChildSignals:
    """Makes a descriptor readable whenever a child ends. Main thread only."""

    def __init__(self) -> None:
        self._reader, self._writer = os.pipe()
        os.set_blocking(self._reader, False)
        os.set_blocking(self._writer, False)
        self._before = signal.signal(signal.SIGCHLD, self._on_signal)

    def _on_signal(self, _signum: int, _frame: FrameType | None) -> None:
        with contextlib.suppress(BlockingIOError):
            os.write(self._writer, b"!")

    def fileno(self) -> int:
        """Return the descriptor."""
        return self._reader

    def clear(self) -> None:
        """Make the descriptor quiet again."""
        with contextlib.suppress(BlockingIOError):
            while os.read(self._reader, 4096):
                pass

    def close(self) -> None:
        """Give SIGCHLD back, and close."""
        signal.signal(signal.SIGCHLD, self._before)
        os.close(self._reader)
        os.close(self._writer)


class Supervisor:
    """Runs children, and perhaps the embedded store beneath them, until asked to stop or until one keeps dying."""

    def __init__(
        self,
        stop: StopRequest,
        log: logging.Logger,
        *,
        drain_s: float,
        store: ServerProcess | None = None,
        on_ready: Callable[[Child, str], None] = lambda child, address: None,
        on_drain: Callable[[], None] = lambda: None,
        still: Callable[[], contextlib.AbstractContextManager[None]] = contextlib.nullcontext,
    ) -> None:
        """`still` is entered around each start of a child: it has the threads of this process away."""
        self._stop = stop
        self._log = log
        self._drain_s = drain_s
        self._store = store
        self._store_budget = RestartBudget()
        self._store_at: float | None = None
        self._on_ready = on_ready
        self._on_drain = on_drain
        self._still = still
        self._children: list[Child] = []
        self._status = 0
        self._draining = False
        self._poller = Poller()
        self._watched: dict[int, Callable[[], None]] = {}
        self._ended = ChildSignals()

    def start(self, child: Child) -> None:
        """Start a child and look after it. Main thread only."""
        self._children.append(child)
        self._start(child)

    def watch(self, fd: int, callback: Callable[[], None]) -> None:
        """Call `callback` in the loop whenever `fd` is readable."""
        self._watched[fd] = callback
        self._poller.register(fd)

    def unwatch(self, fd: int) -> None:
        """Stop watching."""
        self._watched.pop(fd, None)
        self._poller.unregister(fd)

    def run(self) -> int:
        """Look after everything until it has ended. Returns the exit status; leaves no child, whatever happens."""
        self._poller.register(self._stop.fileno())
        self._poller.register(self._ended.fileno())
        try:
            while True:
                self._reap()
                self._end_in_order()
                if self._draining and not self._alive():
                    return self._status
                for fd in self._poller.wait(self._timeout_s()):
                    if fd in self._watched:
                        self._watched[fd]()
                self._ended.clear()
                self._stop.clear_wakeup()
                self._start_due()
        finally:
            self._close()

    def fail(self, reason: str, status: int = EXIT_FAILED) -> None:
        """End everything at once, and exit with `status`."""
        if reason:
            self._log.error("%s", reason)
        self._status = self._status or status
        self._stop.request(STOP)

    # ── starting ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def _start(self, child: Child) -> None:
        with self._still():
            child.start()
        self.watch(child.ready_fd, lambda: self._hear(child))

    def _hear(self, child: Child) -> None:
        fd = child.ready_fd
        address = child.read_ready()
        if child.ready_fd < 0:
            self.unwatch(fd)
        if address is not None and not self._draining:
            self._on_ready(child, address)

    def _start_due(self) -> None:
        now = time.monotonic()
        if self._draining:
            return
        for child in self._children:
            if child.start_at is not None and child.start_at <= now:
                self._start(child)
        if self._store is not None and self._store_at is not None and self._store_at <= now:
            self._store_at = None
            try:
                self._store.start()
                self._log.info("the store runs again")
            except EverfaasError as error:
                self.fail(f"the store can't be started again: {error}")

    # ── dying ────────────────────────────────────────────────────────────────────────────────────────────────────────

    def _reap(self) -> None:
        for child in self._children:
            status = child.reap()
            if status is None:
                continue
            if child.ready_fd >= 0:
                self._hear(child)  # it may have been ready before it died
                if child.ready_fd >= 0:
                    self.unwatch(child.ready_fd)
                    child.close_ready()
            if not self._draining and not self._stop.level:
                self._died(child, status)
        if self._store is not None and self._store_at is None and not self._draining:
            status = self._store.poll()
            if status is not None and not self._stop.level:
                self._store_died(status)

    def _died(self, child: Child, status: int) -> None:
        if status == EXIT_USAGE or (status > 0 and not child.was_ready):
            self.fail("", status)  # it has said itself why it can't start; another try would not help
            return
        if status == EXIT_REFUSED:
            self.fail("")
            return
        delay_s = child.budget.spend(time.monotonic())
        if delay_s is None:
            self.fail(
                f"the {child.name} {describe_exit(status)}, "
                f"after {RESTARTS_MAX} restarts within {RESTARTS_WINDOW_S:g} s: giving up"
            )
            return
        self._log.warning("the %s %s; starting it again", child.name, describe_exit(status))
        child.schedule(delay_s)

    def _store_died(self, status: int) -> None:
        delay_s = self._store_budget.spend(time.monotonic())
        if delay_s is None:
            self.fail(f"the store {describe_exit(status)} after {RESTARTS_MAX} restarts: giving up")
            return
        self._log.warning("the store %s; starting it again", describe_exit(status))
        self._store_at = time.monotonic() + delay_s

    # ── ending ───────────────────────────────────────────────────────────────────────────────────────────────────────

    def _alive(self) -> list[Child]:
        return [child for child in self._children if child.pid is not None]

    def _end_in_order(self) -> None:
        """Ask the first phase that lives to drain, or all to stop; move on from those who take too long."""
        if self._stop.level < DRAIN:
            return
        if not self._draining:
            self._draining = True
            if self._stop.level < STOP:
                self._on_drain()
        now = time.monotonic()
        alive = self._alive()
        if not alive:
            return
        if self._stop.level >= STOP:
            self._stop_all(alive, now)
        else:
            first = min(child.phase for child in alive)
            for child in alive:
                if child.phase == first:
                    self._ask(child, DRAIN, now + self._drain_s)
        for child in alive:
            if child.kill_at is not None and child.kill_at <= now:
                self._overdue(child, alive, now)

    def _stop_all(self, alive: list[Child], now: float) -> None:
        """Stop the last phase first: once the workers have left, the dispatcher can settle what they ran."""
        last = max(child.phase for child in alive)
        for child in alive:
            level = STOP if child.phase in (0, last) else DRAIN
            self._ask(child, level, now + STOP_GRACE_S)
            if child.kill_at is not None:  # it may have been given longer to drain
                child.kill_at = min(child.kill_at, now + STOP_GRACE_S)

    def _overdue(self, child: Child, alive: list[Child], now: float) -> None:
        child.kill_at = now + STOP_GRACE_S
        # The first phase waits for nobody; a dispatcher waits for the workers that still run its tasks.
        later = [other for other in alive if 0 < child.phase < other.phase and other.asked < STOP]
        if child.asked >= STOP:
            child.kill()
        elif later:
            self._log.warning("the %s is not done within %g s: stopping what it waits for", child.name, self._drain_s)
            for other in later:
                self._ask(other, STOP, now + STOP_GRACE_S)
        else:
            self._log.warning("the %s takes too long: stopping it", child.name)
            self._ask(child, STOP, now + STOP_GRACE_S)

    def _ask(self, child: Child, level: int, kill_at: float) -> None:
        if child.asked < level:
            child.ask(level)
            child.kill_at = kill_at

    def _timeout_s(self) -> float | None:
        if self._draining:
            instants = [child.kill_at for child in self._alive()]
        else:
            instants = [*(child.start_at for child in self._children), self._store_at]
        due = [instant for instant in instants if instant is not None]
        return max(min(due) - time.monotonic(), 0.0) if due else None

    def _close(self) -> None:
        for child in self._alive():  # only after an error of ours
            child.kill()
            child.wait()
        for child in self._children:
            child.close_ready()
        if self._store is not None:
            self._store.stop()
        self._ended.close()
        self._poller.close()
