"""Makes task ids, and tells which ones this store has issued."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Final

from everfaas_core.model.ids import RANDOM_BYTES, TaskId, issued_here, task_id
from everfaas_core.ports import Store

SECRET_AGE_S: Final = 10.0  # then the secret is asked for again: somebody may have flushed the store


class TaskIds:
    """Asks the store for its secret once in a while, not once a task. Used by many threads."""

    def __init__(self, store: Store, clock: Callable[[], float] = time.monotonic) -> None:
        self._store = store
        self._clock = clock
        self._known: tuple[bytes, float] | None = None  # the secret, and until when it may be used

    def new(self, count: int) -> list[TaskId]:
        """Make ids for tasks that are submitted now. Raises StoreUnavailable."""
        secret = self._secret()
        entropy = os.urandom(RANDOM_BYTES * count)
        now_ms = time.time_ns() // 1_000_000
        return [task_id(now_ms, entropy[at : at + RANDOM_BYTES], secret) for at in range(0, len(entropy), RANDOM_BYTES)]

    def issued(self, candidate: TaskId) -> bool:
        """Tell whether this store issued the id. Raises StoreUnavailable."""
        return issued_here(candidate, self._secret())

    def _secret(self) -> bytes:
        known = self._known
        if known is None or self._clock() > known[1]:
            known = (self._store.secret(), self._clock() + SECRET_AGE_S)
            self._known = known
        return known[0]
