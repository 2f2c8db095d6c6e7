"""`everfaas dispatcher`: one dispatcher process."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

import click

from everfaas_core.cli.options import COMMON, RoleCommand, settings_options
from everfaas_core.cli.role import Role, child_options
from everfaas_core.cli.selection import make_store, options_of
from everfaas_core.config.loopback import require_loopback
from everfaas_core.model.ids import DispatcherId

if TYPE_CHECKING:
    from collections.abc import Callable

    from everfaas_core.hookspecs import Mode
    from everfaas_core.ports import Link, SlotHost, Store
    from everfaas_core.registry import Offer
    from everfaas_core.runtime.dispatcher import Dispatcher


@click.command("dispatcher", cls=RoleCommand, needs=("mode", "strategy", "store", "source"))
@settings_options(
    "mode",
    "slots",
    "worker_host",
    "worker_port",
    "path",
    "task_deadline",
    "heartbeat",
    "liveness",
    "lease",
    "strategy",
    "source",
    *COMMON,
    also={"worker_host": ["--host"]},
)
@child_options
@click.pass_context
def command(ctx: click.Context, /, **_: object) -> int:
    """Run a dispatcher: it takes tasks from the store and has them run, by its own slots or by workers.

    Needs a store, and waits for it when it is not there.
    """
    role = Role("dispatcher", ctx)
    role.stop.install()
    store = make_store(role.registry, role.settings)
    try:
        return build_dispatcher(role, store, role.ready.send).run()
    finally:
        store.close()


def build_dispatcher(role: Role, store: Store, on_ready: Callable[[str], None]) -> Dispatcher:
    """Make a dispatcher of settings and plugins. Raises PluginError, ConfigError; opens nothing."""
    from everfaas_core.runtime.dispatcher import Dispatcher, DispatcherConfig

    settings, registry = role.settings, role.registry
    mode = registry.mode(settings.mode)
    if not mode.provider.runs_slots:
        role.warn(
            require_loopback(
                "the port for workers", settings.worker_host, flag="--worker-host", insecure=settings.insecure
            )
        )
    strategy = registry.strategy(settings.strategy or mode.provider.strategy)
    sources = [registry.source(name) for name in settings.source]
    dispatcher_id = DispatcherId(str(uuid.uuid4()))
    return Dispatcher(
        DispatcherConfig(
            dispatcher_id=dispatcher_id,
            mode=mode.name,
            heartbeat_s=settings.heartbeat_s,
            liveness_s=settings.liveness_s,
            lease_s=settings.lease_s,
            default_timeout_s=settings.task_deadline_s,
        ),
        store,
        make_link(role, mode, dispatcher_id),
        registry.build_strategy(strategy, options_of(registry, settings, strategy)),
        role.stop,
        sources=[registry.build_source(one, options_of(registry, settings, one)) for one in sources],
        log=role.log,
        on_ready=on_ready,
    )


def make_link(role: Role, mode: Offer[Mode], dispatcher_id: DispatcherId) -> Link:
    """Make the link of a mode, not yet open. Raises PluginError, ConfigError."""
    from everfaas_core.ports import LinkContext

    settings = role.settings

    def make_slots(slots: int) -> SlotHost:
        from everfaas_core.runtime.lease import FENCE_SHARE
        from everfaas_core.worker.host import ProcessHost, SlotConfig

        config = SlotConfig(slots=slots, path=settings.path, fence_s=settings.lease_s * FENCE_SHARE)
        return ProcessHost(config, log=role.log)

    context = LinkContext(
        dispatcher_id=dispatcher_id,
        mode=mode.name,
        host=settings.worker_host,
        worker_port=settings.worker_port,
        slots=settings.slots,
        heartbeat_s=settings.heartbeat_s,
        liveness_s=settings.liveness_s,
        options=options_of(role.registry, settings, mode),
        make_slots=make_slots,
    )
    return role.registry.build_link(mode, context)
