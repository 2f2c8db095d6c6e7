"""Which futures wait for which task, while results may come before the ids are known. Used under its reader's lock."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from everfaas_core.client.errors import TaskVanished
from everfaas_core.client.futures import Future

Pairs = Sequence[tuple[str, Future[Any]]]
Settled = list[tuple[Future[Any], str, bytes]]  # with status and result: told outside of the lock


class Pending:
    """Futures by task. Two calls with one idempotency key are one task, so a task can have several."""

    def __init__(self) -> None:
        self._futures: dict[str, Future[Any] | list[Future[Any]]] = {}
        self._early: dict[str, tuple[str, bytes]] = {}
        self._under_way = 0  # calls whose ids are not known yet

    def __len__(self) -> int:
        return len(self._futures)

    @property
    def wanted(self) -> bool:
        """Whether somebody waits, or is about to."""
        return bool(self._futures or self._under_way)

    def ids(self) -> list[str]:
        """Return the tasks that somebody waits for, those submitted first at the beginning."""
        return list(self._futures)

    def expect(self, count: int) -> None:
        """So many more (or fewer) calls are under way: what comes meanwhile may be theirs."""
        self._under_way += count
        if not self._under_way:
            self._early.clear()

    def add(self, pairs: Pairs) -> Settled:
        """These futures wait for these tasks; return those whose end has come before."""
        settled: Settled = []
        for task_id, future in pairs:
            early = self._early.get(task_id)
            known = self._futures.get(task_id)
            if early is not None:
                settled.append((future, *early))
            elif known is None:
                self._futures[task_id] = future
            else:
                self._futures[task_id] = [*(known if isinstance(known, list) else [known]), future]
        return settled

    def take(self, ended: Sequence[dict[str, Any]]) -> Settled:
        """Tasks have ended; return the futures that waited for them."""
        settled: Settled = []
        for one in ended:
            task_id = one["task_id"]
            found = self._futures.pop(task_id, None)
            if found is None:
                if self._under_way:
                    self._early[task_id] = one["status"], one["result"]
            elif isinstance(found, list):
                settled += [(future, one["status"], one["result"]) for future in found]
            else:
                settled.append((found, one["status"], one["result"]))
        return settled

    def drop(self, task_ids: Sequence[str]) -> list[Future[Any]]:
        """Return the futures of these tasks; nobody waits for them any more."""
        found = [self._futures.pop(one) for one in task_ids if one in self._futures]
        return [future for item in found for future in (item if isinstance(item, list) else [item])]


def tell(settled: Settled) -> None:
    """Give the futures their outcome."""
    for future, status, result in settled:
        future.ended(status, result)


def vanished(task_id: str) -> TaskVanished:
    """Return the error for a task that the store does not have (any more)."""
    return TaskVanished(
        f"the API no longer knows task {task_id}: its retention has passed, or its store was emptied",
        hint="submit the call again; result_ttl_s keeps results longer",
    )
