"""All roles in one process, for a store that lives in it: `everfaas up --store memory`."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Final

from everfaas_core.cli.api import build_server
from everfaas_core.cli.dispatcher import build_dispatcher
from everfaas_core.cli.role import Role
from everfaas_core.cli.screen import Screen
from everfaas_core.cli.selection import make_store
from everfaas_core.model.errors import ConfigError
from everfaas_core.runtime.signals import StopRequest

API_JOIN_S: Final = 15.0


def run_in_one_process(role: Role) -> int:
    """Run the API in a thread and the dispatcher in the main thread. Raises ConfigError for a mode with workers."""
    settings = role.settings
    if not role.registry.mode(settings.mode).provider.runs_slots:
        raise ConfigError(
            f"--store {settings.store} lives in one process, and mode '{settings.mode}' needs workers beside it",
            hint="use mode local, or the embedded store",
        )
    if settings.processes > 1:
        raise ConfigError(
            f"--store {settings.store} lives in one process, and --processes {settings.processes} asks for more",
            hint="leave --processes at 1, or use the embedded store",
        )
    store = make_store(role.registry, settings, one_process=True)
    api_stop = StopRequest()
    _stop_both(role.stop, api_stop)
    server = build_server(role, store)
    screen = Screen(settings, data=settings.store, needs_workers=False)

    def on_ready(_address: str) -> None:
        screen.ready(server.address, "")
        role.ready.send(server.address)

    dispatcher = build_dispatcher(role, store, on_ready)
    api = threading.Thread(target=server.run, args=(api_stop,), name="api")
    api.start()
    try:
        status = dispatcher.run()
    finally:
        api_stop.request()
        api.join(API_JOIN_S)
        store.close()
    screen.stopped()
    return status


def _stop_both(stop: StopRequest, api_stop: StopRequest) -> None:
    """Have each signal reach both loops: the API stops accepting while the dispatcher drains."""

    def on_signal(_signum: int, _frame: FrameType | None) -> None:
        stop.request(stop.level + 1)
        api_stop.request(api_stop.level + 1)

    for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(signum, on_signal)
