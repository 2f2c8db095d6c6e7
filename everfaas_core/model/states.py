"""The public states of a task, the causes that end an attempt, and the one table of transitions.

Everything that says what may follow what lives here; the stores' scripts and the tests read it.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final


class Status(StrEnum):
    """What a client sees. A status never goes backwards and a terminal one never changes."""

    QUEUED = "QUEUED"
    RUNNING = "RUNNING"  # also while it waits for a further attempt after a system failure
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"


TERMINAL: Final = frozenset({Status.COMPLETED, Status.FAILED, Status.CANCELLED})

TRANSITIONS: Final[dict[Status, frozenset[Status]]] = {
    # QUEUED → FAILED: its deadline passed before it ran, or its attempts were used up by lost workers.
    Status.QUEUED: frozenset({Status.RUNNING, Status.FAILED, Status.CANCELLED}),
    Status.RUNNING: frozenset({Status.COMPLETED, Status.FAILED, Status.CANCELLED}),
    Status.COMPLETED: frozenset(),
    Status.FAILED: frozenset(),
    Status.CANCELLED: frozenset(),
}


class Cause(StrEnum):
    """Why an attempt ended."""

    OK = "ok"  # the function returned and its result was serialized
    RAISED = "raised"  # the function raised: the user's error, never retried unless asked for
    DEADLINE = "deadline"  # ran longer than its timeout, or past its deadline
    NOT_LOADABLE = "not_loadable"  # code or arguments did not load in the slot
    NOT_SERIALIZABLE = "not_serializable"  # the result, or the exception, could not be serialized
    CANCELLED = "cancelled"  # cancelled by a client
    SLOT_CRASHED = "slot_crashed"  # the slot's process died under it
    WORKER_LOST = "worker_lost"  # the worker was silent for longer than its liveness
    DISPATCHER_LOST = "dispatcher_lost"  # died together with the dispatcher that hosted its slot
    GIVEN_BACK = "given_back"  # never began: goes back to the queue, costs no attempt


RETRIED: Final = frozenset({Cause.SLOT_CRASHED, Cause.WORKER_LOST, Cause.DISPATCHER_LOST})
"""System failures: charged as an attempt and tried again until `max_attempts` are used up."""

ENDS_AS: Final[dict[Cause, Status]] = {
    Cause.OK: Status.COMPLETED,
    Cause.RAISED: Status.FAILED,
    Cause.DEADLINE: Status.FAILED,
    Cause.NOT_LOADABLE: Status.FAILED,
    Cause.NOT_SERIALIZABLE: Status.FAILED,
    Cause.CANCELLED: Status.CANCELLED,
    Cause.SLOT_CRASHED: Status.FAILED,
    Cause.WORKER_LOST: Status.FAILED,
    Cause.DISPATCHER_LOST: Status.FAILED,
}
"""The terminal status that a cause leads to once it is final. GIVEN_BACK is never final."""
