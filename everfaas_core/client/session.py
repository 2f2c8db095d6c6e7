"""What all views of one client share: the API, the functions that it knows, the sending and the collecting."""

from __future__ import annotations

import contextlib
import itertools
import os
import threading
import time
import uuid
import warnings
import weakref
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from typing import Any, Final

from everfaas_core.client.calls import Call
from everfaas_core.client.collector import Collector
from everfaas_core.client.errors import ApiFailed, ApiUnreachable, ClientClosed, ShippingWarning
from everfaas_core.client.futures import CANCEL_S_MAX, Future
from everfaas_core.client.http import Api
from everfaas_core.client.outbox import Outbox
from everfaas_core.client.patience import Patience
from everfaas_core.client.slips import Waiter
from everfaas_core.model.ids import function_id as content_hash
from everfaas_core.shipping import PackedFunction, Shipper, load_result

PATIENCE_S: Final = 120.0
"""How long an API may be out of reach before calls fail with ApiUnreachable."""

FUNCTIONS_MAX: Final = 1024
"""Functions whose registration is remembered; of those used longest ago, it is asked for again."""

CANCELLED_AT_ONCE: Final = 5_000  # tasks in one request
FLUSH_S_MAX: Final = 10.0  # at the interpreter's end, for calls that were not sent yet


class Session:
    """One client's work: implements `futures.Tasks`. Any thread may use it."""

    def __init__(self, url: str | None, ship: Iterable[Any] = (), patience_s: float = PATIENCE_S) -> None:
        self.api = Api(url)
        self.shipper = Shipper(ship)
        self.name = uuid.uuid4().hex[:16]
        self.group = f"client-{self.name}"
        self.patience_s = patience_s
        self._numbers = itertools.count()
        self._functions: OrderedDict[str, str] = OrderedDict()  # content → id that the API gave
        self._packed: dict[str, tuple[PackedFunction, str]] = {}  # id → to register it again, should the store lose it
        self._lock = threading.Lock()
        self._owner = os.getpid()
        self._reached = False  # the API has answered once
        self._stopping = threading.Event()
        self.closed = False
        self.collector = Collector(self.api, patience_s)
        self.outbox = Outbox(self.api, self.collector, self.group, self.register_again, patience_s)
        self._at_exit = weakref.finalize(self, _flush, weakref.ref(self.outbox))

    # ── functions ────────────────────────────────────────────────────────────────────────────────────────────────────

    def register(self, packed: PackedFunction, name: str | None = None) -> str:
        """Return the id of a function, known to the API from here on. Raises ApiFailed."""
        name = name or packed.name
        content = content_hash(name, packed.payload, (packed.python or "").encode())
        with self._lock:
            known = self._functions.get(content)
            if known is not None:
                self._functions.move_to_end(content)
                return known
        for warning in packed.warnings:
            warnings.warn(warning, ShippingWarning, stacklevel=4)  # where the client was called
        made = self._register(packed, name)
        with self._lock:
            self._functions[content] = made
            self._packed[made] = packed, name
            while len(self._functions) > FUNCTIONS_MAX:
                self._packed.pop(self._functions.popitem(last=False)[1], None)
        return made

    def packed(self, function_id: str) -> PackedFunction | None:
        """Return what was registered under an id, for its calls: they need not bring the classes that it brings."""
        known = self._packed.get(function_id)
        return None if known is None else known[0]

    def register_again(self, function_ids: Iterable[str]) -> bool:
        """Register functions that the store has lost; False: one is not ours. Raises ApiFailed."""
        for function_id in set(function_ids):
            known = self._packed.get(function_id)
            if known is None:
                return False
            self._register(*known)
        return True

    def _register(self, packed: PackedFunction, name: str) -> str:
        body = {"name": name, "payload": packed.payload}
        if packed.python is not None:
            body["python"] = packed.python
        return self._persistent("/v1/functions", body)["function_id"]  # type: ignore[no-any-return]  # by the API's contract

    def _persistent(self, path: str, body: dict[str, Any]) -> Any:
        """Post, and again while the API is busy or away, for as long as we are patient.

        An API that has never answered is not waited for: whoever starts a program wants to know that it is not there.
        """
        patience = Patience(self.patience_s, self._stopping.wait)
        while True:
            try:
                answer = self.api.post(path, body)
            except ApiFailed as error:
                if isinstance(error, ApiUnreachable) and not self._reached:
                    raise
                patience.bear(error)
            else:
                self._reached = True
                return answer

    # ── calls ────────────────────────────────────────────────────────────────────────────────────────────────────────

    def call(self, waiter: Waiter, function_id: str, payload: bytes, fields: dict[str, Any]) -> Call:
        """Make a call, to be sent by `send`."""
        if "idempotency_key" in fields:
            call = Call(waiter, function_id, payload, dict(fields))
            call.keyed = True
            return call
        key = f"{self.name}/{next(self._numbers)}"
        return Call(waiter, function_id, payload, {**fields, "idempotency_key": key})

    def flush(self, timeout_s: float | None = None) -> bool:
        """Wait until all calls have been accepted, or refused; False: they are not after `timeout_s`."""
        return self.outbox.flush(timeout_s)

    def send(self, calls: Sequence[Call]) -> None:
        """Have calls sent; waits while too many are waiting to be. Raises ClientClosed."""
        if self.closed:
            raise ClientClosed("this client is closed", hint="make a new one")
        if self._owner != os.getpid():
            raise ClientClosed("this client belongs to the process that was forked", hint="make one in this process")
        self.outbox.put(calls)

    def close(self, *, wait_s: float = FLUSH_S_MAX) -> None:
        """Send what was not sent yet, then stop. Tasks go on; futures that have no outcome get none. Idempotent."""
        if not self.closed:
            self.closed = True
            self._stopping.set()
            if self._owner == os.getpid():
                self._at_exit.detach()
                self.outbox.close(wait_s)
                self.collector.close()
            self.api.close()

    # ── futures.Tasks ────────────────────────────────────────────────────────────────────────────────────────────────

    def opened(self, status: str, result: bytes) -> tuple[bool, Any]:
        """Return whether a task that has ended failed, and its value or exception."""
        failed = status != "COMPLETED"
        try:
            value = load_result(result)
        except Exception as error:  # noqa: BLE001 - what does not load is the outcome
            return True, error
        if failed and not isinstance(value, BaseException):
            value = RuntimeError(f"the task ended as {status} with {value!r}")
        return failed, value

    def running(self, task_id: str) -> bool:
        """Tell whether a task runs. Raises ApiFailed."""
        return bool(self.api.get(f"/status/{task_id}")["status"] == "RUNNING")

    def cancel(self, future: Future[Any]) -> bool:
        """Cancel a task, sent or not. Raises ApiFailed."""
        if not self.outbox.take_back([future]):
            return future.cancelled()
        task_id = future.task_id
        status = self.api.post(f"/v1/tasks/{task_id}/cancel")["status"]
        deadline = time.monotonic() + CANCEL_S_MAX
        while status not in ("COMPLETED", "FAILED", "CANCELLED") and not future.done():
            if time.monotonic() > deadline:
                return False
            status = self.api.get(f"/result/{task_id}", {"wait": 5})["status"]
        return future.dropped() if status == "CANCELLED" else future.cancelled()

    def cancel_many(self, waiters: Iterable[Waiter], *, running: bool = True) -> None:
        """Cancel tasks, sent or not; those that run only if `running`, and those become CANCELLED a moment later.

        Raises ApiFailed.
        """
        left = self.outbox.take_back(waiters)
        self.outbox.flush(CANCEL_S_MAX)  # those under way get their ids
        known: dict[str, Waiter] = {}
        for waiter in left:
            with contextlib.suppress(Exception):  # its submit failed: it has that as its outcome
                known[waiter.task_id] = waiter
        ids = list(known)
        for at in range(0, len(ids), CANCELLED_AT_ONCE):
            body = {"task_ids": ids[at : at + CANCELLED_AT_ONCE], "running": running}
            for task in self.api.post("/v1/tasks:cancel", body)["tasks"]:
                if task["status"] == "CANCELLED":
                    known[task["task_id"]].dropped()

    def cancel_soon(self, waiters: Sequence[Waiter]) -> None:
        """Cancel tasks in the background: nobody waits for them any more, and nobody hears of a failure."""

        def cancel() -> None:
            with contextlib.suppress(ApiFailed):
                self.cancel_many(waiters)

        threading.Thread(target=cancel, name="everfaas-cancel").start()


def _flush(outbox: weakref.ref[Outbox]) -> None:
    """At the interpreter's end: what was submitted is sent."""
    living = outbox()
    if living is not None:
        living.close(FLUSH_S_MAX)
