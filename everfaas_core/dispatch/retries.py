"""What the end of an attempt means: a terminal record, another attempt, or a dead letter."""

from __future__ import annotations

from typing import Final

from everfaas_core.dispatch.actions import FinishAttempt, RequeueAttempt
from everfaas_core.dispatch.entries import Entry
from everfaas_core.model.states import ENDS_AS, RETRIED, Cause

BACKOFF_S_MAX: Final = 3600.0


def backoff_s(first_s: float, charged: int) -> float:
    """Return the wait before the next attempt: `first_s` after the first failure, doubled with each further one."""
    if first_s <= 0:
        return 0.0
    return min(first_s * 2.0 ** min(charged - 1, 60), BACKOFF_S_MAX)


def verdict(entry: Entry, cause: Cause, reason: str, *, has_result: bool = False) -> FinishAttempt | RequeueAttempt:
    """Decide how a claimed task goes on after its attempt ended for `cause`.

    User errors, deadlines and cancels are final. A system failure is charged, and tried again until `max_attempts` are
    used up. What never began goes back at no charge. A cancelled task never runs again, whatever happened to it.
    """
    if cause is Cause.CANCELLED and not entry.cancelled:
        cause, reason = Cause.GIVEN_BACK, "stopped, though nobody cancelled it"
    if entry.cancelled and (cause is Cause.GIVEN_BACK or cause in RETRIED):
        cause, reason = Cause.CANCELLED, "cancelled"
    charged = entry.charged + 1
    if cause is Cause.GIVEN_BACK:
        return RequeueAttempt(entry.task_id, entry.attempt, cause, False, 0.0, reason)
    if cause in RETRIED:
        if charged < entry.max_attempts:
            delay_s = backoff_s(entry.retry_backoff_s, charged)
            return RequeueAttempt(entry.task_id, entry.attempt, cause, True, delay_s, reason)
        reason = f"{reason} (attempt {charged} of {entry.max_attempts})"
    return FinishAttempt(entry.task_id, entry.attempt, ENDS_AS[cause], cause, None if has_result else reason)
