"""What a function can say from inside of its task. Importable anywhere: outside of a slot it does nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from everfaas_core.model.output import MESSAGE_CHARS_MAX, number_of

Report = Callable[[int | float, int | float | None, str], None]

# A function reaches its slot by nothing but this module, from whatever thread it calls; so the slot's process, which
# has one slot, keeps it here. Everywhere else the list is empty.
_listeners: Final[list[Report]] = []


def progress(done: float, total: float | None = None, message: str = "") -> None:
    """Say how far the task is: `done` of `total` (None: unknown), and a few words. Shown in its record as `progress`.

        for n, page in enumerate(pages):
            everfaas_core.progress(n, len(pages), f"page {n}")

    Cheap enough for an inner loop: at most ten reports a second leave the slot, and the last one before the end always
    does. Raises TypeError or ValueError for what is no finite number.
    """
    done = number_of(done, "done")
    total = None if total is None else number_of(total, "total")
    for report in _listeners:
        report(done, total, str(message)[:MESSAGE_CHARS_MAX])


def listen(report: Report) -> None:
    """Have all progress of this process reported there. Called once, by the slot."""
    _listeners[:] = [report]
