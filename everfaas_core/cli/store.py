"""`everfaas store`: the embedded store in the foreground, on a loopback port, for separate roles."""

from __future__ import annotations

import socket

import click

from everfaas_core.cli.options import RoleCommand, settings_options
from everfaas_core.cli.role import Role, child_options
from everfaas_core.cli.supervisor import Supervisor


@click.command("store", cls=RoleCommand)
@settings_options("store_port", "data", "fsync", "plugins", "log_format", "log_level", also={"store_port": ["--port"]})
@child_options
@click.pass_context
def command(ctx: click.Context, /, **_: object) -> int:
    """Run the embedded store on 127.0.0.1, where separate roles expect one. Ctrl-C saves and stops it."""
    role = Role("store", ctx)
    settings = role.settings
    role.stop.install()
    from everfaas_core.embedded import EmbeddedStore, default_data_dir

    data = settings.data or default_data_dir()
    store = EmbeddedStore(data, port=settings.store_port or free_port(), fsync=settings.fsync)
    supervisor = Supervisor(role.stop, role.log, drain_s=settings.drain_s, store=store)
    try:
        url = store.start()
    except BaseException:
        store.stop()
        raise
    click.echo(f"ready {url} data={data} fsync={settings.fsync}")
    role.ready.send(url)
    return supervisor.run()


def free_port() -> int:
    """Return a loopback port that is free now. Another process may take it first; then the store says so."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port
