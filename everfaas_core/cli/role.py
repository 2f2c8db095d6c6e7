"""What each role does before it begins: settings, plugins, logs, signals, and a word to whoever started it."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from everfaas_core.cli.logs import configure_logs
from everfaas_core.cli.options import RoleCommand, read_flags
from everfaas_core.cli.selection import open_registry
from everfaas_core.config.layers import load_settings
from everfaas_core.config.settings import Settings
from everfaas_core.runtime.processes import death_signal_setter, trim_memory
from everfaas_core.runtime.signals import StopRequest

if TYPE_CHECKING:
    from everfaas_core.registry import Registry

F = TypeVar("F", bound=Callable[..., Any])


class ReadyLine:
    """Tells a supervisor, by one line of JSON on an inherited descriptor, that a role is ready and where."""

    def __init__(self, fd: int | None) -> None:
        self._fd = fd

    def send(self, address: str) -> None:
        """Write the line and close the descriptor; without one, or a second time, do nothing."""
        if self._fd is None:
            return
        fd, self._fd = self._fd, None
        with contextlib.suppress(OSError):  # the supervisor has died; its end will be ours
            os.write(fd, json.dumps({"address": address}).encode() + b"\n")
        os.close(fd)
        trim_memory()  # the start has left much behind


class Role:
    """One process in one role: its settings, plugins, log, and the request to stop."""

    def __init__(self, name: str, ctx: click.Context, *, quiet: bool = False) -> None:
        """Set the process up. Raises ConfigError or PluginError. `quiet` raises the default log level."""
        flags, plugin_flags = read_flags(ctx)
        defaults: dict[str, object] = dict(ctx.command.defaults) if isinstance(ctx.command, RoleCommand) else {}
        if quiet:
            defaults.setdefault("log_level", "warning")
        self.name = name
        self.settings: Settings = load_settings(flags, defaults=defaults, plugin_flags=plugin_flags)
        self.log: logging.Logger = configure_logs(name, self.settings.log_format, self.settings.log_level)
        self.is_child = ctx.params.get("parent_pid") is not None
        if not self.is_child:  # the supervisor has said so already
            for warning in self.settings.warnings:
                self.warn(warning)
        self.ready = ReadyLine(ctx.params.get("ready_fd"))
        self.stop = StopRequest()
        self.registry: Registry = ctx.obj or open_registry(self.settings)  # that of whoever has forked us

    def warn(self, message: str | None) -> None:
        """Show a warning, whatever the log level is."""
        if message is None or self.is_child:
            return
        if self.settings.log_format == "json":
            self.log.warning("%s", message)
        else:
            sys.stderr.write(f"Warning: {message}\n")


def child_options(function: F) -> F:
    """Add the flags by which `everfaas up` starts a role. They are no part of the public command line."""
    function = click.option("--ready-fd", type=int, hidden=True, help="Descriptor for the ready line.")(function)
    return click.option(
        "--parent-pid", type=int, hidden=True, is_eager=True, callback=_follow, help="End when this process does."
    )(function)


def _follow(ctx: click.Context, parameter: click.Parameter, parent_pid: int | None) -> int | None:
    """Ask the kernel to kill us when our supervisor dies. Called before anything else is parsed."""
    if parent_pid is not None:
        death_signal_setter(signal.SIGKILL, parent=parent_pid)()
    return parent_pid
