"""The future of a task: a `concurrent.futures.Future` that can be awaited, and that knows its task."""

from __future__ import annotations

import concurrent.futures
import contextlib
import threading
from collections.abc import Callable, Generator
from typing import Any, Final, Generic, Protocol, TypeVar

from msgspec import Struct

T = TypeVar("T")

CANCEL_S_MAX: Final = 10.0
"""How long `cancel` waits to see a running task's slot dead; that takes some 50 ms."""


class Answer(Struct, frozen=True):
    """How a task ended, as it came: loaded when somebody asks for it, in the thread that asks."""

    status: str
    result: bytes


class Unopened(Exception):
    """Stands in a future for what the function raised, until somebody asks: whoever waits is to know that it failed."""

    def __init__(self, answer: Answer) -> None:
        super().__init__()
        self.answer = answer


class Tasks(Protocol):
    """What a future asks about its task."""

    def cancel(self, future: Future[Any]) -> bool:
        """Cancel the task, sent or not; tell whether it is certain to end as CANCELLED. Raises ApiFailed."""

    def running(self, task_id: str) -> bool:
        """Tell whether the task runs. Raises ApiFailed."""

    def opened(self, status: str, result: bytes) -> tuple[bool, Any]:
        """Return whether a task that has ended failed, and its value or exception."""


class Future(concurrent.futures.Future[T], Generic[T]):
    """What a submitted call will return.

    All of `concurrent.futures.Future`, and: `await future`; `task_id`, by which the command line and the API know it;
    `cancel` also ends a task that runs. What the function raised is raised here, with the remote traceback as a note.
    """

    def __init__(self, tasks: Tasks) -> None:
        super().__init__()
        self._tasks = tasks
        self._task_id: str | None = None
        self._named: threading.Event | None = None  # set with the id, if somebody waits for that
        self._opened = False

    # ── the task ─────────────────────────────────────────────────────────────────────────────────────────────────────

    @property
    def task_id(self) -> str:
        """The task's id; waits for the API's answer to the submit, if that is still under way.

        Raises what went wrong with the submit, or CancelledError if it was cancelled before it was sent.
        """
        if self._task_id is None:
            with self._condition:
                named = self._named = self._named or threading.Event()
            self.add_done_callback(lambda _: named.set())
            if self._task_id is None:
                named.wait()
        if self._task_id is not None:
            return self._task_id
        super().result()
        raise concurrent.futures.CancelledError

    @property
    def known_task_id(self) -> str | None:
        """The task's id, or None as long as the API has not answered."""
        return self._task_id

    # ── concurrent.futures ───────────────────────────────────────────────────────────────────────────────────────────

    def result(self, timeout: float | None = None) -> T:
        """Return what the function returned, or raise what it raised. Waits; raises TimeoutError after `timeout` s.

        Raises a WorkerFailure when the system could not finish the task, ApiUnreachable when the API has not answered
        for the client's patience, CancelledError when the task was cancelled.
        """
        failed, value = self._outcome(timeout)
        if not failed:
            return value  # type: ignore[no-any-return]  # what the function returned
        try:
            raise value
        finally:
            self = value = None  # type: ignore[assignment]  # break the cycle with the traceback, as CPython does

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Return what the function raised, or None. Waits, and raises, as `result` does."""
        failed, value = self._outcome(timeout)
        return value if failed else None

    def running(self) -> bool:
        """Tell whether the task runs right now. Asks the API; raises ApiFailed."""
        task_id = self._task_id
        if task_id is None:
            return super().running()
        return not self.done() and self._tasks.running(task_id) and not self.done()

    def cancel(self) -> bool:
        """Cancel the task, also one that runs; False: it has ended before. Asks the API; raises ApiFailed.

        For a task that runs it returns when its slot is dead, some 50 ms later.
        """
        if self.done():
            return self.cancelled()
        return self._tasks.cancel(self)

    # ── await ────────────────────────────────────────────────────────────────────────────────────────────────────────

    def __await__(self) -> Generator[Any, None, T]:
        """Wait without blocking the event loop. Cancelling who awaits cancels the task, in the background."""
        import asyncio  # half of the time that the client takes to be imported, and few programs await

        loop = asyncio.get_running_loop()
        arrived: asyncio.Future[None] = loop.create_future()

        def wake() -> None:
            if not arrived.done():
                arrived.set_result(None)

        def tell(_: object) -> None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
                loop.call_soon_threadsafe(wake)

        self.add_done_callback(tell)
        try:
            yield from arrived.__await__()
        except asyncio.CancelledError:
            threading.Thread(target=self._cancel_quietly, name="everfaas-cancel", daemon=True).start()
            raise
        if self.cancelled():
            raise asyncio.CancelledError
        return self.result(0)

    # ── for the client ───────────────────────────────────────────────────────────────────────────────────────────────

    def accepted(self, task_id: str) -> None:
        """Take note of the task's id."""
        with self._condition:
            self._task_id = task_id
            named = self._named
        if named is not None:
            named.set()

    def ended(self, status: str, result: bytes) -> None:
        """Take the task's end. What has an outcome already keeps it."""
        answer = Answer(status, result)
        if status == "CANCELLED":
            self.dropped()
        elif status == "COMPLETED":
            self._settle(lambda: self.set_result(answer))  # type: ignore[arg-type]  # opened in `_outcome`
        else:
            self._settle(lambda: self.set_exception(Unopened(answer)))

    def failed(self, error: BaseException) -> None:
        """Take note that its outcome will not be known here."""
        self._settle(lambda: self.set_exception(error))

    def dropped(self) -> bool:
        """Become CANCELLED, and tell those who wait; False: it has an outcome."""
        if self.__dict__.setdefault("_dropper", dropper := object()) is not dropper:  # another thread is at it, or was
            with self._condition:
                return self.cancelled() or not self.done()
        if not super().cancel():
            return False
        self.set_running_or_notify_cancel()
        return True

    def _settle(self, change: Callable[[], Any]) -> None:
        with contextlib.suppress(concurrent.futures.InvalidStateError):  # settled before, perhaps by another thread
            change()

    def _cancel_quietly(self) -> None:
        with contextlib.suppress(Exception):  # nobody is left to be told
            self.cancel()

    def _outcome(self, timeout: float | None) -> tuple[bool, Any]:
        """Wait; return whether the task failed, and its value or exception, which is loaded when first asked for."""
        super().exception(timeout)
        with self._condition:
            if not self._opened:
                self._open()
                self._opened = True
            return self._exception is not None, self._result if self._exception is None else self._exception

    def _open(self) -> None:
        """Put what an answer holds in its place. What somebody else has set, as `set_result` allows, stays."""
        answer = self._exception.answer if isinstance(self._exception, Unopened) else self._result
        if isinstance(answer, Answer):
            failed, value = self._tasks.opened(answer.status, answer.result)
            self._result, self._exception = (None, value) if failed else (value, None)
