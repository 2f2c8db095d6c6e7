"""What the end of an attempt means: a terminal record, another attempt, or a dead letter."""

from __future__ import annotations

import zlib
from typing import Final

from everfaas_core.dispatch.actions import FinishAttempt, RequeueAttempt
from everfaas_core.dispatch.entries import Entry
from everfaas_core.model.states import ENDS_AS, RETRIED, Cause

BACKOFF_S_MAX: Final = 3600.0


def backoff_s(first_s: float, charged: int, key: str) -> float:
    """Return the wait before the next attempt: about `first_s` after the first failure, doubled with each further one.

    "Equal jitter" (M. Brooker, "Exponential Backoff And Jitter", 2015): between half of it and all of it, so that tasks
    that failed together do not come back together. `key` decides where in between, so that the same course of events
    gives the same waits.
    """
    if first_s <= 0:
        return 0.0
    whole = min(first_s * 2.0 ** min(charged - 1, 60), BACKOFF_S_MAX)
    return whole * (0.5 + 0.5 * zlib.crc32(f"{key}/{charged}".encode()) / 0xFFFF_FFFF)


def verdict(
    entry: Entry, cause: Cause, reason: str, *, has_result: bool = False, raised: tuple[str, ...] = ()
) -> FinishAttempt | RequeueAttempt:
    """Decide how a claimed task goes on after its attempt ended for `cause`.

    User errors, deadlines and cancels are final, unless the function asked for a retry on one of the exceptions that
    `raised` names. A system failure is charged, and tried again until `max_attempts` are used up. What never began goes
    back at no charge. A cancelled task never runs again, whatever happened to it.
    """
    again = cause in RETRIED or (cause is Cause.RAISED and not set(raised).isdisjoint(entry.retry_on))
    if cause is Cause.CANCELLED and not entry.cancelled:
        cause, reason = Cause.GIVEN_BACK, "stopped, though nobody cancelled it"
    if entry.cancelled and (cause is Cause.GIVEN_BACK or again):
        cause, reason, again, has_result = Cause.CANCELLED, "cancelled", False, False
    charged = entry.charged + 1
    if cause is Cause.GIVEN_BACK:
        return RequeueAttempt(entry.task_id, entry.attempt, cause, False, 0.0, reason)
    if again and charged < entry.max_attempts:
        delay_s = backoff_s(entry.retry_backoff_s, charged, entry.task_id)
        return RequeueAttempt(entry.task_id, entry.attempt, cause, True, delay_s, reason)
    if again and not has_result:
        reason = f"{reason} (attempt {charged} of {entry.max_attempts})"
    return FinishAttempt(entry.task_id, entry.attempt, ENDS_AS[cause], cause, None if has_result else reason)
