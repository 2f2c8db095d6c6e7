"""What waits for a call's end.

A map has thousands at a time, which nobody but itself sees: a future for each would cost more than everything else that
the client does for it.
"""

from __future__ import annotations

import queue
import threading
import time
from concurrent.futures import CancelledError
from typing import Protocol


class Waiter(Protocol):
    """What the outbox and the collector tell of a call: a future, or a slip."""

    def done(self) -> bool:
        """Tell whether it has an outcome."""

    def accepted(self, task_id: str) -> None:
        """The call has become this task."""

    def ended(self, status: str, result: bytes) -> None:
        """The task has ended."""

    def failed(self, error: BaseException) -> None:
        """Its outcome will not be known."""

    def dropped(self) -> bool:
        """It was cancelled; False: it has an outcome."""

    @property
    def task_id(self) -> str:
        """The task's id; waits for it."""


class Slip:
    """One call of a map. Told by the client's threads, taken by the one that iterates."""

    __slots__ = ("_desk", "_task_id", "answer", "error")

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._task_id: str | None = None
        self.answer: tuple[str, bytes] | None = None
        self.error: BaseException | None = None

    def done(self) -> bool:
        """Tell whether it has an outcome."""
        return self.answer is not None or self.error is not None

    def accepted(self, task_id: str) -> None:
        """Take note of the task's id."""
        self._task_id = task_id

    def ended(self, status: str, result: bytes) -> None:
        """Take the task's end. What has an outcome already keeps it."""
        if status == "CANCELLED":
            self.dropped()
        elif not self.done():
            self.answer = status, result
            self._desk.tell(self)

    def failed(self, error: BaseException) -> None:
        """Take note that its outcome will not be known here."""
        if not self.done():
            self.error = error
            self._desk.tell(self)

    def dropped(self) -> bool:
        """Become cancelled; False: it has an outcome."""
        self.failed(CancelledError())
        return isinstance(self.error, CancelledError)

    @property
    def task_id(self) -> str:
        """The task's id, as far as the submit was answered. Raises LookupError before."""
        if self._task_id is None:
            raise LookupError("its submit has not been answered")
        return self._task_id


class Desk:
    """Where the thread that iterates waits for slips: for a certain one, or for any."""

    def __init__(self, *, ordered: bool) -> None:
        self._news = threading.Condition()
        self._awaited: Slip | None = None
        self._arrived: queue.SimpleQueue[Slip] | None = None if ordered else queue.SimpleQueue()

    def tell(self, slip: Slip) -> None:
        """It has an outcome now. Called by any thread."""
        if self._arrived is not None:
            self._arrived.put(slip)
        elif self._awaited is slip:  # whoever awaits it looks at it after having said so: none is missed
            with self._news:
                self._news.notify()

    def wait_for(self, slip: Slip, deadline: float | None) -> None:
        """Wait until it has an outcome. Raises TimeoutError at `deadline` (monotonic seconds)."""
        if slip.done():
            return
        with self._news:
            self._awaited = slip
            try:
                if not self._news.wait_for(slip.done, _left_s(deadline)):
                    raise TimeoutError
            finally:
                self._awaited = None

    def next(self, deadline: float | None) -> Slip:
        """Wait for the next one that has an outcome. Raises TimeoutError at `deadline` (monotonic seconds)."""
        assert self._arrived is not None
        try:
            return self._arrived.get(timeout=_left_s(deadline))
        except queue.Empty:
            raise TimeoutError from None


def _left_s(deadline: float | None) -> float | None:
    return None if deadline is None else max(0.0, deadline - time.monotonic())
