"""Sending calls: alone and with an answer that brings the result, or many in one request.

A call that finds nothing else to send goes alone: one exchange submits it and waits for its end, which is the quickest
way there is. When more come than can be waited for like that, they gather while the request before is under way, and go
together; a stream brings their results (`collector`). Each call has an idempotency key, so a request whose answer was
lost is repeated until it is answered, and makes no second task.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

from everfaas_core.client.calls import Call
from everfaas_core.client.collector import Collector
from everfaas_core.client.errors import ApiFailed, ApiRefused, ClientClosed
from everfaas_core.client.http import TIMEOUT_S, Api
from everfaas_core.client.patience import Patience
from everfaas_core.client.pending import vanished
from everfaas_core.client.slips import Waiter

BATCH_CALLS_MAX: Final = 1_000
BATCH_BYTES_MAX: Final = 4 * 1024**2
"""Of payloads in one request; a longer one goes by itself. So work begins while the rest is on its way."""

WAITING_CALLS_MAX: Final = 10_000
WAITING_BYTES_MAX: Final = 64 * 1024**2
"""What may wait to be sent; `put` waits for room beyond it."""

ALONE_MAX: Final = 4  # calls at a time whose exchange also waits for their end
ALONE_S: Final = 0.05
"""How long such an exchange waits for the end: after it the task's id is known, which a cancel needs."""

AGAIN_S: Final = 10.0  # how long the next ones wait
SENDERS_KEPT_S: Final = 5.0  # an idle thread ends after so long
TERMINAL: Final = frozenset({"COMPLETED", "FAILED", "CANCELLED"})

_log = logging.getLogger(__name__)


class Outbox:
    """Calls that wait to be sent, and the threads that send them. Any thread may use it."""

    def __init__(
        self,
        api: Api,
        collector: Collector,
        group: str,
        register_again: Callable[[Iterable[str]], bool],
        patience_s: float,
    ) -> None:
        self._api = api
        self._collector = collector
        self._group = group  # of calls that go together and have none of their own
        self._register_again = register_again
        self._patience_s = patience_s
        self._changed = threading.Condition()
        self._waiting: deque[Call] = deque()
        self._waiting_bytes = 0
        self._idle = 0  # threads that wait for calls
        self._alone = 0  # threads that wait with a call
        self._batching = False  # a thread sends a batch: the next one goes after it, so that calls keep their order
        self._under_way = 0  # calls in requests that were not answered yet
        self._closed = False
        self._stopping = threading.Event()

    def put(self, calls: Sequence[Call]) -> None:
        """Have them sent, in this order. Waits for room; raises ClientClosed if the client is closed meanwhile."""
        at = 0
        with self._changed:
            while at < len(calls):
                self._changed.wait_for(self._has_room)
                if self._closed:
                    raise ClientClosed("the client was closed", hint="make a new one")
                taken = calls[at : at + WAITING_CALLS_MAX - len(self._waiting)]
                at += len(taken)
                self._waiting.extend(taken)
                self._waiting_bytes += sum(len(call.payload) for call in taken)
                self._wake()

    def take_back(self, waiters: Iterable[Waiter]) -> list[Waiter]:
        """Cancel the calls that were not sent; return the other ones that have no outcome."""
        wanted = set(waiters)
        with self._changed:
            found = [call for call in self._waiting if call.waiter in wanted]
            if found:
                self._waiting = deque(call for call in self._waiting if call.waiter not in wanted)
                self._waiting_bytes -= sum(len(call.payload) for call in found)
                self._changed.notify_all()
        for call in found:
            wanted.discard(call.waiter)
            call.waiter.dropped()
        return [waiter for waiter in wanted if not waiter.done()]

    def flush(self, timeout_s: float | None) -> bool:
        """Wait until nothing waits to be sent, or answered; tell whether that is so."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._waiting and not self._under_way, timeout_s)

    def close(self, wait_s: float) -> None:
        """Send what waits, for at most `wait_s`; then let go. Idempotent."""
        self.flush(wait_s)
        with self._changed:
            self._closed = True
            self._stopping.set()
            dropped, self._waiting = list(self._waiting), deque()
            self._changed.notify_all()
        for call in dropped:
            call.waiter.failed(ClientClosed("the client was closed before this call could be sent"))

    # ── under the condition ──────────────────────────────────────────────────────────────────────────────────────────

    def _has_room(self) -> bool:
        room = len(self._waiting) < WAITING_CALLS_MAX and self._waiting_bytes < WAITING_BYTES_MAX
        return room or self._closed

    def _wake(self) -> None:
        """See to it that a thread takes what waits."""
        if self._batching:
            return  # it goes on with these
        if self._idle:
            self._changed.notify_all()
        else:
            self._idle += 1  # the new one counts as idle from now, or each call would start another
            threading.Thread(target=self._run, name="everfaas-send", daemon=True).start()

    def _next(self) -> list[Call] | None:
        """Take what to send next, and mark us as sending it; None: nothing for this thread now."""
        if not self._waiting or self._batching:
            return None
        if len(self._waiting) == 1 and self._alone < ALONE_MAX:
            self._alone += 1
            taken = [self._waiting.popleft()]
        else:
            self._batching = True
            taken, size = [], 0
            while self._waiting and len(taken) < BATCH_CALLS_MAX:
                size += len(self._waiting[0].payload)
                if taken and size > BATCH_BYTES_MAX:
                    break
                taken.append(self._waiting.popleft())
        self._waiting_bytes -= sum(len(call.payload) for call in taken)
        self._under_way += len(taken)
        self._changed.notify_all()  # room
        return taken

    # ── the threads ──────────────────────────────────────────────────────────────────────────────────────────────────

    def _run(self) -> None:
        while True:
            with self._changed:
                taken = self._next()
                if taken is None:
                    self._changed.wait_for(
                        lambda: self._closed or (self._waiting and not self._batching), SENDERS_KEPT_S
                    )
                    taken = self._next()
                if taken is None:
                    self._idle -= 1
                    return
                self._idle -= 1
                alone = not self._batching
                if alone and self._waiting:
                    self._wake()
            try:
                if alone:
                    self._exchange(taken[0])
                else:
                    self._submit(taken)
            except Exception as error:  # noqa: BLE001 - the boundary of the thread: those who wait must hear of it
                _log.exception("calls could not be sent")
                for call in taken:
                    call.waiter.failed(error)
            finally:
                taken = None  # who waits for more keeps no future alive
                with self._changed:
                    if alone:
                        self._alone -= 1
                    else:
                        self._batching = False
                    self._idle += 1

    def _sent(self, count: int) -> None:
        with self._changed:
            self._under_way -= count
            self._changed.notify_all()

    def _exchange(self, call: Call) -> None:
        """Submit a call and wait for its end."""
        sent = False
        try:
            patience = Patience(self._patience_s, self._stopping.wait)
            known = self._persist(patience, lambda: self._post([call], "/v1/tasks", {**call.item(), "wait_s": ALONE_S}))
            self._sent(1)
            sent = True
            call.waiter.accepted(known["task_id"])
            path = f"/result/{known['task_id']}"
            while known.get("status") not in TERMINAL:
                if self._closed:
                    return
                try:
                    known = self._persist(patience, lambda: self._api.get(path, {"wait": AGAIN_S}))
                except ApiRefused as error:
                    raise vanished(known["task_id"]) if error.status in (404, 410) else error from error
            call.waiter.ended(known["status"], known["result"])
        except ApiFailed as error:
            call.waiter.failed(error)
        finally:
            if not sent:
                self._sent(1)

    def _submit(self, calls: Sequence[Call]) -> None:
        """Submit calls in one request; their results come by the collector."""
        for call in calls:
            call.fields.setdefault("group", self._group)
        self._collector.expect(calls)
        try:
            self._deliver(calls)
        finally:
            self._collector.expected(calls)
            self._sent(len(calls))

    def _deliver(self, calls: Sequence[Call]) -> None:
        patience = Patience(self._patience_s, self._stopping.wait)
        body = {"tasks": [call.item() for call in calls]}
        try:
            ids = self._persist(patience, lambda: self._post(calls, "/v1/tasks:batch", body))["task_ids"]
        except ApiRefused as error:
            self._divide(calls, error)
        except ApiFailed as error:
            for call in calls:
                call.waiter.failed(error)
        else:
            self._collector.accepted(calls, ids)

    def _divide(self, calls: Sequence[Call], error: ApiRefused) -> None:
        """Fail the call that a refusal is about, and send the others: they have done nothing wrong."""
        index = error.details.get("index")
        if len(calls) == 1:
            calls[0].waiter.failed(error)
        elif isinstance(index, int) and 0 <= index < len(calls):
            calls[index].waiter.failed(error)
            self._deliver([*calls[:index], *calls[index + 1 :]])
        else:
            middle = len(calls) // 2
            self._deliver(calls[:middle])
            self._deliver(calls[middle:])

    def _post(self, calls: Sequence[Call], path: str, body: dict[str, Any]) -> Any:
        """Post; when the store has lost our functions (it was emptied), register them and post again."""
        try:
            return self._api.post(path, body, timeout_s=TIMEOUT_S)
        except ApiRefused as error:
            if error.reason != "unknown_function" or not self._register_again(call.function_id for call in calls):
                raise
        return self._api.post(path, body, timeout_s=TIMEOUT_S)

    def _persist(self, patience: Patience, attempt: Callable[[], Any]) -> Any:
        while True:
            try:
                answer = attempt()
            except ApiFailed as error:
                patience.bear(error)
            else:
                patience.answered()
                return answer
