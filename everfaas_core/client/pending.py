"""Who waits for which task, while results may come before the ids are known. Used under its reader's lock."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from everfaas_core.client.errors import TaskVanished
from everfaas_core.client.slips import Waiter

Pairs = Sequence[tuple[str, Waiter]]
Settled = list[tuple[Waiter, str, bytes]]  # with status and result: told outside of the lock


class Pending:
    """Waiters by task. Two calls with one idempotency key are one task, so a task can have several."""

    def __init__(self) -> None:
        self._waiters: dict[str, Waiter | list[Waiter]] = {}
        self._early: dict[str, tuple[str, bytes]] = {}
        self._under_way = 0  # calls whose ids are not known yet

    def __len__(self) -> int:
        return len(self._waiters)

    @property
    def wanted(self) -> bool:
        """Whether somebody waits, or is about to."""
        return bool(self._waiters or self._under_way)

    def ids(self) -> list[str]:
        """Return the tasks that somebody waits for, those submitted first at the beginning."""
        return list(self._waiters)

    def expect(self, count: int) -> None:
        """So many more (or fewer) calls are under way: what comes meanwhile may be theirs."""
        self._under_way += count
        if not self._under_way:
            self._early.clear()

    def add(self, pairs: Pairs) -> Settled:
        """These wait for these tasks; return those whose end has come before."""
        settled: Settled = []
        for task_id, waiter in pairs:
            early = self._early.get(task_id)
            known = self._waiters.get(task_id)
            if early is not None:
                settled.append((waiter, *early))
            elif known is None:
                self._waiters[task_id] = waiter
            else:
                self._waiters[task_id] = [*(known if isinstance(known, list) else [known]), waiter]
        return settled

    def take(self, ended: Sequence[dict[str, Any]]) -> Settled:
        """Tasks have ended; return those that waited for them."""
        settled: Settled = []
        for one in ended:
            task_id = one["task_id"]
            found = self._waiters.pop(task_id, None)
            if found is None:
                if self._under_way:
                    self._early[task_id] = one["status"], one["result"]
            elif isinstance(found, list):
                settled += [(waiter, one["status"], one["result"]) for waiter in found]
            else:
                settled.append((found, one["status"], one["result"]))
        return settled

    def drop(self, task_ids: Sequence[str]) -> list[Waiter]:
        """Return who waits for these tasks; nobody waits for them any more."""
        found = [self._waiters.pop(one) for one in task_ids if one in self._waiters]
        return [waiter for item in found for waiter in (item if isinstance(item, list) else [item])]


def tell(settled: Settled) -> None:
    """Give them their outcome."""
    for waiter, status, result in settled:
        waiter.ended(status, result)


def vanished(task_id: str) -> TaskVanished:
    """Return the error for a task that the store does not have (any more)."""
    return TaskVanished(
        f"the API no longer knows task {task_id}: its retention has passed, or its store was emptied",
        hint="submit the call again; result_ttl_s keeps results longer",
    )
