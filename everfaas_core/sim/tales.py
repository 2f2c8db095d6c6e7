"""Small worlds with a script, whose transcripts a person reads: one thing goes wrong, and what happens then."""

from __future__ import annotations

from typing import Final

from everfaas_core.sim import scenarios as s
from everfaas_core.sim.scenarios import CALM, Act, Scenario


def _tale(name: str, summary: str, *script: Act, tasks: int = 2, task_s: float = 1.0) -> Scenario:
    return Scenario(
        name=name,
        summary=summary,
        workers=2,
        slots=1,
        tasks=tasks,
        functions=1,
        task_s=task_s,
        load=4.0 * task_s,
        mix=CALM,
        script=script,
    )


_ALL: Final = (
    _tale("tale-calm", "three tasks on two workers", tasks=3),
    _tale(
        "tale-slot-killed",
        "a busy slot is killed: its task begins anew, as another attempt",
        Act(0.5, s.SLOT_KILLED, "w0"),
    ),
    _tale(
        "tale-worker-killed",
        "a worker is killed for good: another gets its task",
        Act(0.5, s.WORKER_KILLED, "w0", 30),
    ),
    _tale(
        "tale-worker-stopped",
        "a worker is stopped, fenced, given up; it comes back as another",
        Act(0.5, s.WORKER_STOPPED, "w0", 4),
    ),
    _tale(
        "tale-connection-broken",
        "a connection breaks: the worker presents what it runs",
        Act(0.5, s.CONNECTION_BROKEN, "w0"),
    ),
    _tale(
        "tale-partition",
        "a worker is cut off: it stops its task before the dispatcher gives that to another",
        Act(0.5, s.PARTITION, "w0", 6),
        task_s=4.0,
    ),
    _tale(
        "tale-dispatcher-killed",
        "the dispatcher is killed: the next one adopts what runs",
        Act(0.5, s.DISPATCHER_KILLED, "d0", 1),
        task_s=4.0,
    ),
    _tale(
        "tale-store-refuses",
        "the store is away when a task ends: its worker keeps the outcome",
        Act(0.5, s.STORE_REFUSES, "", 2),
    ),
)

TALES: Final[dict[str, Scenario]] = {tale.name: tale for tale in _ALL}
