"""What a dispatcher tells its operator of the course of things."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from everfaas_core.dispatch import actions as do
from everfaas_core.dispatch import events as ev
from everfaas_core.model.states import RETRIED


def log_failures(log: logging.Logger, actions: Iterable[do.Action]) -> None:
    """Tell of attempts that the system failed."""
    for action in actions:
        if isinstance(action, do.RequeueAttempt) and action.charged:
            log.warning("task %s, attempt %d: %s; it runs again", action.task_id, action.attempt, action.reason)
        elif isinstance(action, do.FinishAttempt) and action.cause in RETRIED:
            log.warning("task %s, attempt %d: %s; a dead letter", action.task_id, action.attempt, action.reason)


def log_fleet(log: logging.Logger, event: ev.Joined | ev.Left) -> None:
    """Tell of workers that come and go."""
    if isinstance(event, ev.Left):
        log.info("worker %s left", event.worker_id)
    elif event.rejected:
        log.warning("worker %s was refused: %s", event.worker_id, event.rejected)
    else:
        log.info("worker %s said hello, with %d slots", event.worker_id, event.slots)
