"""`everfaas up`: store, API, dispatcher and workers on this machine, as one thing."""

from __future__ import annotations

import contextlib
import os
import signal
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

import click

from everfaas_core.cli.api_processes import api_children
from everfaas_core.cli.children import Child
from everfaas_core.cli.common_ground import API, DISPATCHER, SEVERAL_APIS, SLOTS, WORKER, import_for
from everfaas_core.cli.options import COMMON, RoleCommand, settings_options
from everfaas_core.cli.probe import ReadyProbe
from everfaas_core.cli.role import Role, child_options
from everfaas_core.cli.screen import Screen, shown_url
from everfaas_core.cli.supervisor import Supervisor
from everfaas_core.config.layers import settings_environ
from everfaas_core.config.loopback import require_loopback
from everfaas_core.runtime.listening import listen, url_of

if TYPE_CHECKING:
    from everfaas_core.embedded import EmbeddedStore
    from everfaas_core.registry import Registry

API_PHASE: Final = 0  # accepts no more
DISPATCHER_PHASE: Final = 1  # finishes what runs, gives the rest back
WORKER_PHASE: Final = 2
# The store is stopped last, by the supervisor.

DEFAULTS: Final = {"store": "embedded", "log_level": "warning"}


@click.command("up", cls=RoleCommand, needs=("mode", "strategy", "store", "source"), defaults=DEFAULTS)
@settings_options(
    "mode",
    "slots",
    "workers",
    "host",
    "port",
    "processes",
    "worker_host",
    "worker_port",
    "data",
    "fsync",
    "path",
    "task_deadline",
    "heartbeat",
    "liveness",
    "lease",
    "max_attempts",
    "strategy",
    "source",
    "allow_host",
    "result_ttl",
    "body_bytes_max",
    "drain",
    *COMMON,
    defaults=DEFAULTS,
)
@child_options
@click.pass_context
def command(ctx: click.Context, /, **_: object) -> int:
    """Start everything on this machine: the embedded store, the API, a dispatcher, and slots to run functions.

    Prints `ready` and the API's address as soon as a task submitted now would run. Ctrl-C ends it all, running tasks
    first; a second Ctrl-C ends it at once.
    """
    role = Role("up", ctx)
    needs_workers = check_selection(role)
    role.stop.install()
    signal.signal(signal.SIGHUP, lambda _signum, _frame: role.stop.request())  # the terminal was closed
    if role.settings.store != "embedded" and not role.registry.store(role.settings.store).provider.shared:
        from everfaas_core.cli.single import run_in_one_process

        return run_in_one_process(role)
    return System(role, needs_workers=needs_workers).run()


def check_selection(role: Role) -> bool:
    """Raise now what the roles would raise later, and return whether the mode needs workers. Imports no plugin."""
    settings, registry = role.settings, role.registry
    registry.check("mode", settings.mode)
    if settings.strategy is not None:
        registry.check("strategy", settings.strategy)
    for name in settings.source:
        registry.check("source", name)
    needs_workers = registry.offers("transport", settings.mode)
    role.warn(require_loopback("the API", settings.host, flag="--host", insecure=settings.insecure))
    if needs_workers:
        role.warn(
            require_loopback(
                "the port for workers", settings.worker_host, flag="--worker-host", insecure=settings.insecure
            )
        )
    return needs_workers


class System:
    """The roles of one `everfaas up`."""

    def __init__(self, role: Role, *, needs_workers: bool) -> None:
        self._role = role
        self._needs_workers = needs_workers
        self._store: EmbeddedStore | None = None
        self._listener = listen(role.settings.host, role.settings.port)
        self._api_url = url_of(self._listener)
        data = shown_url(role.settings.store)
        if role.settings.store == "embedded":
            from everfaas_core.embedded import EmbeddedStore, default_data_dir

            data = str(role.settings.data or default_data_dir())
            self._store = EmbeddedStore(data, port=None, fsync=role.settings.fsync)
        self._screen = Screen(role.settings, data=data, needs_workers=needs_workers)
        self._environ: dict[str, str] = {}
        self._registry: Registry | None = None
        self._apis: list[Child] = []
        self._dispatcher: Child | None = None
        self._workers: list[Child] = []
        self._workers_url = ""
        self._probe: ReadyProbe | None = None
        self._supervisor = Supervisor(
            role.stop,
            role.log,
            drain_s=role.settings.drain_s,
            store=self._store,
            on_ready=self._on_ready,
            on_drain=self._on_drain,
            still=contextlib.nullcontext if self._store is None else self._store.still,
        )

    def run(self) -> int:
        """Start all roles and look after them. Returns the exit status."""
        settings = self._role.settings
        try:
            self._environ = {**os.environ, **settings_environ(settings)}
            if self._store is not None:
                self._environ["EVERFAAS_STORE"] = self._store.start()
            if settings.sources["worker_port"] == "default" and settings.workers:
                self._environ["EVERFAAS_WORKER_PORT"] = "0"  # our own workers are told which one it became
            self._registry = self._import()
            self._apis = api_children(
                settings.processes, self._listener, self._environ, phase=API_PHASE, registry=self._registry
            )
            self._dispatcher = Child(
                "dispatcher", ["dispatcher"], self._environ, phase=DISPATCHER_PHASE, registry=self._registry
            )
            self._supervisor.start(self._dispatcher)
            for api in self._apis:
                self._supervisor.start(api)
        except BaseException:
            self._supervisor.fail("")
            self._supervisor.run()
            raise
        try:
            status = self._supervisor.run()
        finally:
            self._listener.close()
        if self._probe is not None:
            self._probe.close()
        if status == 0:
            self._screen.stopped()
        return status

    def _import(self) -> Registry | None:
        """Import what the roles share; return their registry if they may be forked."""
        settings = self._role.settings
        modules = [*DISPATCHER, *API, *(SEVERAL_APIS if settings.processes > 1 else ())]
        if not self._needs_workers:
            modules += SLOTS
        elif settings.workers:
            modules += [*SLOTS, *WORKER]
        store = self._environ.get("EVERFAAS_STORE", settings.store)
        with contextlib.nullcontext() if self._store is None else self._store.still():
            return import_for(self._role, modules, store=store, answers=self._store is not None, with_mode=True)

    def _on_drain(self) -> None:
        self._listener.close()  # else those who come now would wait for an API that has gone
        self._screen.draining()

    def _on_ready(self, child: Child, address: str) -> None:
        """Go on when a role says that it is ready. A role that starts again keeps the port that it had."""
        if child is self._dispatcher:
            self._workers_url = _connectable(address)
            if address:
                child.environ["EVERFAAS_WORKER_PORT"] = str(urlsplit(address).port)
            if self._needs_workers and not self._workers:
                self._start_workers()
        if self._probe is None and self._roles_are_ready():
            if self._needs_workers and not self._role.settings.workers:
                self._screen.waiting(self._api_url, self._workers_url)
            self._probe = ReadyProbe(self._api_url)
            self._supervisor.watch(self._probe.fileno(), self._on_probed)
            self._probe.start()

    def _roles_are_ready(self) -> bool:
        assert self._dispatcher is not None
        return all(child.was_ready for child in (*self._apis, self._dispatcher))

    def _start_workers(self) -> None:
        settings = self._role.settings
        arguments = ["worker", settings.mode, str(settings.slots), self._workers_url]
        environ = {name: value for name, value in self._environ.items() if name != "EVERFAAS_STORE"}
        for number in range(settings.workers):
            child = Child(f"worker {number + 1}", arguments, environ, phase=WORKER_PHASE, registry=self._registry)
            self._workers.append(child)
            self._supervisor.start(child)

    def _on_probed(self) -> None:
        assert self._probe is not None
        self._supervisor.unwatch(self._probe.fileno())
        self._screen.ready(self._api_url, self._workers_url)
        self._role.ready.send(self._api_url)


def _connectable(address: str) -> str:
    """Return an address that workers on this machine can connect to."""
    return address.replace("//0.0.0.0:", "//127.0.0.1:").replace("//[::]:", "//[::1]:").replace("//*:", "//127.0.0.1:")
