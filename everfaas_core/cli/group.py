"""The group of commands. Listing them imports none; a name that is not ours may be a plugin's."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

import click

from everfaas_core.version import __version__

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

SECTIONS: Final[Mapping[str, Mapping[str, str]]] = {
    # what `everfaas --help` shows: heading → command → its line. The module of a command is named after it.
    "Run things": {
        "run": "Run a function of a file or module; its output streams to this terminal.",
        "map": "Run a function over many inputs, with a progress bar; can be resumed.",
    },
    "Look at things": {
        "ls": "List tasks, newest first.",
        "status": "Show everything that is known of a task.",
        "result": "Print the result of a task, or raise its exception here.",
        "logs": "Print what a task writes to stdout and stderr; -f follows it.",
        "top": "Watch the system: throughput, queue, workers, tasks.",
        "workers": "List the workers.",
    },
    "Change things": {
        "cancel": "Cancel tasks, also running ones.",
        "retry": "Run the calls of failed or cancelled tasks once more.",
        "drain": "Ask workers to finish what they run and leave.",
    },
    "Run the system": {
        "up": "Start everything on this machine: store, API, dispatcher, slots.",
        "api": "Run an API server (also: python app.py).",
        "dispatcher": "Run a dispatcher (also: python run_dispatcher.py).",
        "worker": "Run a worker (also: python run_worker.py).",
        "store": "Run the embedded store on a loopback port, for separate roles.",
    },
    "Check and set up": {
        "doctor": "Check this machine and a running system; say what to do.",
        "config": "Show the settings, and where each comes from.",
        "plugins": "List the installed plugins, importing none.",
        "bench": "Measure a running system through its API.",
        "sim": "Run the machines in a simulated world with faults, and check the promise.",
        "completion": "Print what makes bash, zsh or fish complete our commands.",
    },
}

_MODULES: Final = {"logs": "task_logs"}  # `logs` is how roles write theirs


def _commands() -> Mapping[str, tuple[str, str]]:
    return {
        name: (f"everfaas_core.cli.{_MODULES.get(name, name)}", summary)
        for section in SECTIONS.values()
        for name, summary in section.items()
    }


COMMANDS: Final[Mapping[str, tuple[str, str]]] = _commands()
"""Name → module with an attribute `command`, and the line that `everfaas --help` shows."""


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
        widest = max(map(len, COMMANDS))
        for heading, commands in SECTIONS.items():
            with formatter.section(heading):
                formatter.write_dl([(name.ljust(widest), summary) for name, summary in commands.items()])

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Offer our commands from the table, so that completing imports none of them."""
        from click.shell_completion import CompletionItem

        offered = super(click.Group, self).shell_complete(ctx, incomplete)  # its options
        return offered + [
            CompletionItem(name, help=summary) for name, (_, summary) in COMMANDS.items() if name.startswith(incomplete)
        ]


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
