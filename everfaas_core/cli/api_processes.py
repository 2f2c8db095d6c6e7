"""API processes that share one listening socket: `--processes N` of `everfaas api` and `everfaas up`.

The socket is made once, by the parent, and inherited. So connections that wait to be accepted belong to all of the
processes, and none is lost with the one that dies (docs/decisions/0009-one-listening-socket.md).
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from typing import Final

from everfaas_core.cli.children import Child
from everfaas_core.cli.common_ground import API, SEVERAL_APIS, import_for
from everfaas_core.cli.role import Role
from everfaas_core.cli.selection import choose_store
from everfaas_core.cli.supervisor import STOP_GRACE_S, Supervisor
from everfaas_core.config.layers import settings_environ
from everfaas_core.registry import Registry
from everfaas_core.runtime.listening import listen, url_of

PHASE: Final = 0


def api_children(
    count: int, listener: socket.socket, environ: Mapping[str, str], *, phase: int, registry: Registry | None
) -> list[Child]:
    """Return `count` API processes, not started yet, that will accept from `listener`."""
    fd = listener.fileno()
    arguments = ["api", "--listen-fd", str(fd)]
    if count == 1:
        return [Child("API", arguments, environ, phase=phase, fds=[fd], registry=registry)]
    return [
        Child(f"API {number}", [*arguments, "--number", str(number)], environ, phase=phase, fds=[fd], registry=registry)
        for number in range(1, count + 1)
    ]


class ApiProcesses:
    """The parent of several API processes: starts them, starts again those that die, and ends them all."""

    def __init__(self, role: Role) -> None:
        """Bind the port. Raises PortInUse, and ConfigError for settings that no child could use."""
        choose_store(role.registry, role.settings)
        self._role = role
        self._listener = listen(role.settings.host, role.settings.port)
        self._children = api_children(
            role.settings.processes,
            self._listener,
            {**os.environ, **settings_environ(role.settings)},
            phase=PHASE,
            registry=import_for(role, (*API, *SEVERAL_APIS), store=role.settings.store),
        )
        self._supervisor = Supervisor(
            role.stop,
            role.log,
            drain_s=role.settings.drain_s + STOP_GRACE_S,  # they look at the clock themselves
            on_ready=self._on_ready,
            on_drain=self._listener.close,  # else those who come now would wait for processes that have gone
        )
        self._is_ready = False

    def run(self) -> int:
        """Look after them until all have ended. Returns the exit status."""
        try:
            for child in self._children:
                self._supervisor.start(child)
        except BaseException:
            self._supervisor.fail("")
            self._supervisor.run()
            raise
        try:
            return self._supervisor.run()
        finally:
            self._listener.close()

    def _on_ready(self, _child: Child, _address: str) -> None:
        if self._is_ready or not all(child.was_ready for child in self._children):
            return
        self._is_ready = True
        address = url_of(self._listener)
        self._role.log.info("API on %s, %d processes", address, len(self._children))
        self._role.ready.send(address)
