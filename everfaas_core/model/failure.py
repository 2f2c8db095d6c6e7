"""`WorkerFailure`: the exception that a client gets when the system, not the function, failed.

It must load in a client that has only `dill`, so its pickle names nothing of ours: the stream makes the class on the
spot with `type("WorkerFailure", (RuntimeError,), …)` and an instance of it. `str()` of the result starts with
`WorkerFailure`, and its `code` attribute is a `Cause` value.
"""

from __future__ import annotations

import pickle
from typing import Any


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
