"""`WorkerFailure`: the exception that a client gets when the system, not the function, failed.

It must load in a client that has only `dill`, so its pickle names nothing of ours: the stream makes the class on the
spot with `type("WorkerFailure", (RuntimeError,), …)` and an instance of it. `str()` of the result starts with
`WorkerFailure`, and its `code` attribute is a `Cause` value. Our own client turns it into one of the classes below,
which can be caught.
"""

from __future__ import annotations

import pickle
from typing import Any, Final

from everfaas_core.model.states import Cause


class _ClassRecipe:
    """Pickles as the call that makes the exception class; never seen by a client as itself."""

    def __reduce__(self) -> tuple[Any, ...]:
        namespace = {"__module__": "everfaas", "__doc__": "The system could not finish the task."}
        return type, ("WorkerFailure", (RuntimeError,), namespace)

    def __call__(self) -> None:
        """Callable only so that pickle accepts it as the maker of the instance."""


class _InstanceRecipe:
    def __init__(self, message: str, state: dict[str, Any]) -> None:
        self.message = message
        self.state = state

    def __reduce__(self) -> tuple[Any, ...]:
        return _ClassRecipe(), (self.message,), self.state


def failure_payload(code: str, message: str, *, traceback: str | None = None) -> bytes:
    """Serialize a WorkerFailure.

    `message` is plain words without the prefix. `traceback`, if given, becomes a note of the exception (PEP 678).
    """
    state: dict[str, Any] = {"code": str(code)}  # a Cause would be pickled by reference to our package
    if traceback:
        state["__notes__"] = [traceback]
    return pickle.dumps(_InstanceRecipe(f"WorkerFailure: {message}", state), protocol=4)


class WorkerFailure(RuntimeError):
    """The system could not finish the task. `code` is a `Cause` value; `str()` says why in plain words."""

    code: str = ""


class DeadlineExceeded(WorkerFailure, TimeoutError):
    """The task ran longer than its timeout, or past its deadline."""

    code = Cause.DEADLINE.value


class WorkerLost(WorkerFailure):
    """The worker was silent for too long, at the last attempt too."""

    code = Cause.WORKER_LOST.value


class DispatcherLost(WorkerFailure):
    """The dispatcher died together with the slot that it hosted, at the last attempt too."""

    code = Cause.DISPATCHER_LOST.value


class SlotCrashed(WorkerFailure):
    """The process that ran the function died: a segmentation fault, out of memory, os._exit."""

    code = Cause.SLOT_CRASHED.value


class NotLoadable(WorkerFailure):
    """The function's code or the arguments did not load where they should have run."""

    code = Cause.NOT_LOADABLE.value


class NotSerializable(WorkerFailure):
    """What the function returned can't be sent."""

    code = Cause.NOT_SERIALIZABLE.value


class RaisedUnsendable(WorkerFailure):
    """The function raised an exception that can't be sent itself; this one has its text and traceback."""

    code = Cause.RAISED.value


class TaskCancelled(WorkerFailure):
    """The task was cancelled."""

    code = Cause.CANCELLED.value


FAILURES: Final[dict[str, type[WorkerFailure]]] = {
    kind.code: kind
    for kind in (
        DeadlineExceeded,
        WorkerLost,
        DispatcherLost,
        SlotCrashed,
        NotLoadable,
        NotSerializable,
        RaisedUnsendable,
        TaskCancelled,
    )
}
"""The class for each cause that makes a WorkerFailure."""


def as_failure(value: Any) -> Any:
    """Return a loaded result; if it is a WorkerFailure made of builtins, as the class of ours for its cause."""
    kind = type(value)
    if kind.__name__ != "WorkerFailure" or kind.__module__ != "everfaas" or not isinstance(value, RuntimeError):
        return value
    code = getattr(value, "code", "")
    failure = FAILURES.get(code, WorkerFailure)(*value.args)
    failure.__dict__.update(value.__dict__)
    return failure
