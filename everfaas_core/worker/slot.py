"""The slot: a process that runs one task at a time, until its worker is gone."""

from __future__ import annotations

import contextlib
import faulthandler
import os
import socket
import sys
import time
from typing import Final

from everfaas_core import inside
from everfaas_core.model.failure import failure_payload
from everfaas_core.model.states import Cause
from everfaas_core.wire.messages import Outcome, Outcomes, TaskItem
from everfaas_core.worker.cells import BEGUN, ENDED
from everfaas_core.worker.channel import SlotPipe
from everfaas_core.worker.code import MAIN, CodeShelf, LoadedFunction, NotLoadable, load_call
from everfaas_core.worker.results import NotSerializable, class_names, dump, dump_raised
from everfaas_core.worker.slot_streams import Streams

STRAYED: Final = 71  # exit status of a copy of the slot that a task forked and did not end


class Slot:
    """Runs tasks. `cell` is shared with the worker: it counts what was begun, so that a crash is blamed right."""

    def __init__(self, pipe: SlotPipe, streams: Streams, cell: memoryview) -> None:
        self._pipe = pipe
        self._streams = streams
        self._cell = cell
        self._pid = os.getpid()
        self._shelf = CodeShelf()

    def run(self) -> None:
        """Say that we are up, then answer tasks until the worker is gone."""
        with contextlib.suppress(EOFError, ConnectionError):
            self._pipe.send(Outcomes((), 0))
            while True:
                messages = self._pipe.receive()
                self._streams.wake()
                for message in messages:
                    for function in message.functions:
                        self._shelf.put(function)
                    for item in message.items:
                        if not self._pipe.may_begin():
                            continue
                        self._pipe.send(Outcomes((self._run(item),), 0))

    def _run(self, item: TaskItem) -> Outcome:
        self._streams.begin(item)
        self._cell[BEGUN] += 1
        outcome = self._answer(item)
        self._streams.end(item)
        self._cell[ENDED] += 1
        return outcome

    def _answer(self, item: TaskItem) -> Outcome:
        try:
            function = self._shelf.get(item.function_id)
            if function is None:
                return Outcome(item.task_id, item.attempt, Cause.GIVEN_BACK, b"", "the slot lacks the code")
            return self._call(item, function)
        except NotLoadable as error:
            self._stay_single()
            return _failure(item, Cause.NOT_LOADABLE, str(error), error.detail)
        except NotSerializable as error:
            self._stay_single()
            return _failure(item, Cause.NOT_SERIALIZABLE, str(error), None)

    def _call(self, item: TaskItem, function: LoadedFunction) -> Outcome:
        args, kwargs = load_call(item.payload, function)
        text: str | None = None
        raised: tuple[str, ...] = ()
        sys.modules[MAIN] = function.main  # what the function's own imports of __main__, and dill, are to find
        started = time.perf_counter()
        try:
            value = function.call(*args, **kwargs)
        except BaseException as error:  # noqa: BLE001 - SystemExit and KeyboardInterrupt are the function's outcome as well
            run_s = time.perf_counter() - started
            self._stay_single()
            result, text = dump_raised(error, function.main)
            raised = class_names(error)
            cause = Cause.RAISED
            error.__traceback__ = None  # do not keep the frames, and all that they hold, alive
        else:
            run_s = time.perf_counter() - started
            self._stay_single()
            result = dump(value, function.main)
            cause = Cause.OK
        return Outcome(item.task_id, item.attempt, cause, result, text, run_s, raised)

    def _stay_single(self) -> None:
        """End here if this is a copy that the task forked: only the slot itself may answer."""
        if os.getpid() != self._pid:
            self._streams.flush()
            os._exit(STRAYED)


def _failure(item: TaskItem, cause: Cause, reason: str, detail: str | None) -> Outcome:
    payload = failure_payload(cause, reason, traceback=detail)
    return Outcome(item.task_id, item.attempt, cause, payload, f"{reason}\n{detail}" if detail else reason)


def serve(end: socket.socket, tokens_fd: int, cell: memoryview) -> None:
    """Be a slot on this socket; returns when the worker is gone. Called once, in a process of its own.

    Descriptors 1 and 2 are pipes to the worker; whatever the process writes there is taken for a task's output.
    """
    streams = Streams(cell)
    inside.listen(streams.report)
    faulthandler.enable(2)  # a crash tells where it was, as the last words of the task
    Slot(SlotPipe(end, tokens_fd), streams, cell).run()
