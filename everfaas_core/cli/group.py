"""The group of commands. Listing them imports none; a name that is not ours may be a plugin's."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Final

import click

from everfaas_core.version import __version__

COMMANDS: Final[Mapping[str, tuple[str, str]]] = {
    # name → module with an attribute `command`, and the line that `everfaas --help` shows
    "up": ("everfaas_core.cli.up", "Start everything on this machine: store, API, dispatcher, slots."),
    "api": ("everfaas_core.cli.api", "Run an API server (also: python app.py)."),
    "dispatcher": ("everfaas_core.cli.dispatcher", "Run a dispatcher (also: python run_dispatcher.py)."),
    "worker": ("everfaas_core.cli.worker", "Run a worker (also: python run_worker.py)."),
    "store": ("everfaas_core.cli.store", "Run the embedded store on a loopback port, for separate roles."),
    "drain": ("everfaas_core.cli.drain", "Ask workers to finish what they run and leave."),
    "bench": ("everfaas_core.cli.bench", "Measure a running system through its API."),
    "sim": ("everfaas_core.cli.sim", "Run the machines in a simulated world with faults, and check the promise."),
    "plugins": ("everfaas_core.cli.plugins", "List the installed plugins, importing none."),
}


class LazyGroup(click.Group):
    """Imports the module of the command that runs, and no other."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return our commands, in the order in which a newcomer meets them."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return one of our commands, or a plugin's."""
        if cmd_name in COMMANDS:
            command: click.Command = importlib.import_module(COMMANDS[cmd_name][0]).command
            return command
        return _plugin_command(cmd_name)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command, or say which one may have been meant."""
        name = args[0]
        command = self.get_command(ctx, name)
        if command is None:
            import difflib

            near = difflib.get_close_matches(name, COMMANDS, n=3, cutoff=0.5)
            wish = f"Did you mean {' or '.join(near)}?" if near else f"Commands: {', '.join(COMMANDS)}."
            raise click.UsageError(f"No such command '{name}'. {wish}", ctx)
        return name, command, args[1:]

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands from the table, so that help imports none of them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, summary) for name, (_, summary) in COMMANDS.items()])


def _plugin_command(name: str) -> click.Command | None:
    from everfaas_core.registry import Catalog, Registry

    catalog = Catalog.installed()
    if name not in catalog.names("plugin"):
        return None
    return Registry(catalog).command(name)


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, "--version", message="everfaas %(version)s")
def everfaas() -> None:
    """Functions as a service for Python, on your own machines.

    Start with: everfaas up
    """
