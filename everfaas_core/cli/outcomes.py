"""What has become of a task: wait for it, load it, print it as a person or a script wants it."""

from __future__ import annotations

import json
import sys
import time
import traceback
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, TypeVar

from everfaas_core.cli import EXIT_NOT_ENDED, EXIT_TASK_CANCELLED, EXIT_TASK_FAILED
from everfaas_core.cli.shown import brief, shown

if TYPE_CHECKING:
    from everfaas_core.client.http import Api

T = TypeVar("T")

POLL_S: Final = 30.0  # of one long-poll
PATIENCE_S: Final = 30.0
"""How long an API that has answered before may be away while somebody waits for it."""

RETRY_S: Final = 0.5
TERMINAL: Final = frozenset({"COMPLETED", "FAILED", "CANCELLED"})
STATUSES: Final = {"COMPLETED": 0, "FAILED": EXIT_TASK_FAILED, "CANCELLED": EXIT_TASK_CANCELLED}
"""Exit status of a command whose task has ended so."""


class Outcome:
    """How a task has ended: `value` is what it returned, `error` what it raised, `unloadable` why neither is here."""

    def __init__(self, task_id: str, status: str, result: bytes) -> None:
        self.task_id = task_id
        self.status = status
        self.value: Any = None
        self.error: BaseException | None = None
        self.unloadable: str | None = None
        if status in TERMINAL:
            self._load(result)

    @property
    def exit_status(self) -> int:
        """What the command exits with."""
        return STATUSES.get(self.status, EXIT_NOT_ENDED)

    def _load(self, result: bytes) -> None:
        from everfaas_core.shipping import load_result

        try:
            loaded = load_result(result)
        except Exception as error:  # noqa: BLE001 - whatever the classes in it do when they are loaded
            self.unloadable = brief("".join(traceback.format_exception_only(error)))
            return
        if self.status == "COMPLETED":
            self.value = loaded
        elif isinstance(loaded, BaseException):
            self.error = loaded
        else:
            self.unloadable = f"it is no exception but a {type(loaded).__name__}"

    def fields(self, api: Api) -> dict[str, Any]:
        """Return it for `--json`: task_id, status, and `value`, or `repr` of what JSON has no word for, or `error`."""
        found: dict[str, Any] = {"task_id": self.task_id, "status": self.status}
        if self.status == "COMPLETED":
            return found | (value_fields(self.value) if self.unloadable is None else {"unloadable": self.unloadable})
        if self.status in TERMINAL:
            found["error"] = self.error_text(api)
        return found

    def error_text(self, api: Api) -> str:
        """Return the remote traceback, and the exception; from the task's record if the exception does not load."""
        if self.error is not None:
            return "".join(traceback.format_exception(type(self.error), self.error, None)).rstrip()
        record = api.get(f"/v1/tasks/{self.task_id}")
        return str(record["error"] or record["cause"] or self.status).rstrip()


def value_fields(value: Any) -> dict[str, Any]:
    """Return `{"value": …}` if JSON says the same as the value, else `{"repr": "…"}`."""
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError, RecursionError):
        return {"repr": safe_repr(value)}
    return {"value": value}


def safe_repr(value: Any) -> str:
    """Return what the value says of itself; in its place what it raised, if it does."""
    try:
        return repr(value)
    except Exception as error:  # noqa: BLE001 - code of whoever wrote the value's class
        return f"<{type(value).__name__} whose repr raised {type(error).__name__}>"


def wait_for(api: Api, task_id: str, wait_s: float) -> dict[str, Any]:
    """Return `{task_id, status, result}` of a task, after at most `wait_s` seconds. Raises ApiFailed."""
    deadline = time.monotonic() + wait_s
    patient = Patience()
    while True:
        left_s = max(0.0, deadline - time.monotonic())
        answer: dict[str, Any] = patient(lambda: api.get(f"/result/{task_id}", {"wait": min(left_s, POLL_S)}))  # noqa: B023 - called at once
        if answer["status"] in TERMINAL or time.monotonic() >= deadline:
            return answer


class Patience:
    """Calls again, for a while, when an API that has answered before is away or busy: it may be being restarted."""

    def __init__(self, patience_s: float = PATIENCE_S) -> None:
        self._patience_s = patience_s
        self._heard = False

    def __call__(self, call: Callable[[], T]) -> T:
        """Return what `call` returns. Raises ApiFailed: at once when it is final, or nobody has ever answered."""
        from everfaas_core.client.errors import ApiFailed, ApiRefused, ApiUnreachable

        until = time.monotonic() + self._patience_s
        while True:
            try:
                result = call()
            except ApiFailed as error:
                passing = isinstance(error, ApiUnreachable) or (isinstance(error, ApiRefused) and error.passing)
                if not passing or not self._heard or time.monotonic() > until:
                    raise
                time.sleep(RETRY_S)
            else:
                self._heard = True
                return result


def show_failure(outcome: Outcome, api: Api) -> None:
    """Write on stderr why a task has not completed: the remote traceback, or who has cancelled it."""
    if outcome.status == "CANCELLED":
        sys.stderr.write(f"task {outcome.task_id} was cancelled\n")
        return
    sys.stderr.write(shown(outcome.error_text(api), lines=True) + "\n")
