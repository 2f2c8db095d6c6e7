"""`everfaas api`: one API process, or several that share a port."""

from __future__ import annotations

import socket
import threading
from typing import TYPE_CHECKING, Final

import click

from everfaas_core.cli import EXIT_FAILED, EXIT_REFUSED
from everfaas_core.cli.options import COMMON, RoleCommand, settings_options
from everfaas_core.cli.role import Role, child_options
from everfaas_core.cli.selection import make_store
from everfaas_core.config.loopback import require_loopback
from everfaas_core.model.errors import StoreRefused, StoreUnavailable
from everfaas_core.runtime.processes import allow_files
from everfaas_core.runtime.signals import STOP, StopRequest

if TYPE_CHECKING:
    import logging

    from everfaas_core.api import ApiServer
    from everfaas_core.ports import Store

STORE_RETRY_S: Final = 0.5
REPEAT_WARNING_S: Final = 5.0


@click.command("api", cls=RoleCommand, needs=("store",))
@settings_options("host", "port", "processes", "allow_host", "body_bytes_max", "max_attempts", "result_ttl", *COMMON)
@child_options
@click.option(
    "--listen-fd", type=int, hidden=True, help="Descriptor of a listening socket to serve, instead of a port."
)
@click.option("--number", type=int, hidden=True, help="Which of several processes this is, for its log.")
@click.pass_context
def command(ctx: click.Context, /, listen_fd: int | None, number: int | None, **_: object) -> int:
    """Run an API server. Needs a store; answers 503 while there is none."""
    role = Role("api" if number is None else f"api {number}", ctx)
    settings = role.settings
    role.warn(require_loopback("the API", settings.host, flag="--host", insecure=settings.insecure))
    role.stop.install()
    if settings.processes > 1 and listen_fd is None:
        from everfaas_core.cli.api_processes import ApiProcesses

        return ApiProcesses(role).run()
    return serve(role, None if listen_fd is None else socket.socket(fileno=listen_fd))


def serve(role: Role, listener: socket.socket | None) -> int:
    """Serve in this process until asked to stop. Returns the exit status."""
    store = make_store(role.registry, role.settings)
    try:
        server = build_server(role, store, listener)
        preparation = Preparation(store, role.stop, role.log)
        preparation.start()
        role.log.info("API on %s" if listener is None else "accepting on %s", server.address)
        role.ready.send(server.address)
        server.run(role.stop)
        if preparation.refused:
            return EXIT_REFUSED if role.is_child else EXIT_FAILED
        return 0
    finally:
        store.close()


def build_server(role: Role, store: Store, listener: socket.socket | None = None) -> ApiServer:
    """Make the application, and bind its port unless there is a `listener`. Raises PortInUse."""
    from everfaas_core.api import ApiServer, ApiSettings, create_app

    settings = role.settings
    hosts = (*ApiSettings().allowed_hosts, *(f"[{name}]" if ":" in name else name for name in settings.allow_host))
    api_settings = ApiSettings(body_bytes_max=settings.body_bytes_max, allowed_hosts=hosts, drain_s=settings.drain_s)
    fitted = api_settings.fitted(allow_files(api_settings.files_wanted))
    if fitted != api_settings:
        role.log.warning(
            "this process may open too few files for %d connections: it takes %d, and %d waiting requests; "
            "`ulimit -n %d` before the start would do",
            *(api_settings.connection_limit, fitted.connection_limit, fitted.waiters_max, api_settings.files_wanted),
        )
    app = create_app(store, fitted, blueprints=role.registry.blueprints())
    return ApiServer(app, settings.host, settings.port, fitted, listener=listener)


class Preparation(threading.Thread):
    """Prepares the store beside the server, so that the API is there at once and says 503 until the store is."""

    def __init__(self, store: Store, stop: StopRequest, log: logging.Logger) -> None:
        super().__init__(name="prepare-store", daemon=True)
        self._store = store
        self._stop = stop
        self._log = log
        self.refused = False

    def run(self) -> None:
        """Try until it is prepared; an unfit store ends the process."""
        waiter = threading.Event()
        tries = 0
        while not self._stop.level:
            try:
                self._store.prepare()
            except StoreUnavailable as error:
                if tries % round(REPEAT_WARNING_S / STORE_RETRY_S) == 0:
                    self._log.warning("answering 503 until the store does: %s", error)
                tries += 1
                waiter.wait(STORE_RETRY_S)
            except StoreRefused as error:
                self.refused = True
                self._log.error("%s", error)
                self._stop.request(STOP)
            else:
                if tries:
                    self._log.info("the store is there")
                return
