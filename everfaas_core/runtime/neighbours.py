"""The other dispatchers on the same store: whose claims to take over at once, and where else workers can go."""

from __future__ import annotations

import platform
from collections.abc import Iterable

from everfaas_core.model.ids import DispatcherId
from everfaas_core.model.records import FleetReport
from everfaas_core.runtime.processes import is_alive


class Neighbours:
    """What the last look at the store's fleet has told. Never includes ourselves."""

    def __init__(self, dispatcher_id: DispatcherId, mode: str, machine: str) -> None:
        self._dispatcher_id = dispatcher_id
        self._mode = mode
        self._machine = machine
        self._others: tuple[FleetReport, ...] = ()

    def rename(self, dispatcher_id: DispatcherId) -> None:
        """Take note of a new name of ours; the old one is a neighbour from now on."""
        self._dispatcher_id = dispatcher_id

    def update(self, fleet: Iterable[FleetReport]) -> None:
        """Take in the reports of all dispatchers whose lease is valid."""
        self._others = tuple(report for report in fleet if report.dispatcher_id != self._dispatcher_id)

    def any(self) -> bool:
        """Tell whether anybody else may be alive who could take over our claims."""
        return len(self.dead()) < len(self._others)

    def dead(self) -> tuple[DispatcherId, ...]:
        """Return those that ran on this machine and whose process has ended: their leases need not be waited for."""
        if not self._machine:
            return ()
        return tuple(
            report.dispatcher_id
            for report in self._others
            if report.machine == self._machine and not is_alive(report.pid)
        )

    def peers(self) -> tuple[str, ...]:
        """Return the addresses of living dispatchers that our workers could join."""
        dead = set(self.dead())
        return tuple(
            sorted(
                report.address
                for report in self._others
                if report.address and report.mode == self._mode and report.dispatcher_id not in dead
            )
        )


def advertised(address: str) -> str:
    """Return the address by which others reach us: a wildcard becomes this machine's name."""
    return address.replace("//0.0.0.0:", f"//{platform.node()}:").replace("//[::]:", f"//{platform.node()}:")
