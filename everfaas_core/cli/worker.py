"""`everfaas worker`: one worker process."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from everfaas_core.cli.options import RoleCommand, settings_options
from everfaas_core.cli.role import Role, child_options
from everfaas_core.cli.selection import options_of
from everfaas_core.config.keys import KEYS
from everfaas_core.model.errors import ConfigError

if TYPE_CHECKING:
    from everfaas_core.hookspecs import Transport
    from everfaas_core.registry import Offer, Registry


def _parse_slots(ctx: click.Context, parameter: click.Parameter, text: str) -> int:
    key = KEYS["slots"]
    try:
        slots: int = key.parse(text)
    except ValueError:
        raise click.BadParameter(f"'{text}' is not {key.allowed}", ctx, parameter) from None
    return slots


@click.command("worker", cls=RoleCommand, needs=("transport",))
@click.argument("mode", metavar="MODE")
@click.argument("slots", metavar="N", callback=_parse_slots)
@click.argument("dispatcher_url", metavar="URL")
@settings_options("path", "plugins", "log_format", "log_level")
@child_options
@click.pass_context
def command(ctx: click.Context, /, mode: str, slots: int, dispatcher_url: str, **_: object) -> int:
    """Run a worker of N slots that joins the dispatcher at URL, such as: pull 4 tcp://localhost:5555.

    It waits for the dispatcher, and joins again by itself whenever the connection was lost.
    """
    role = Role("worker", ctx)
    url = dispatcher_url  # not the API's, which is a setting of that name
    transport = find_transport(role.registry, mode)
    check_url(url)
    role.stop.install()
    from everfaas_core.ports import UplinkContext
    from everfaas_core.worker.agent import Agent, AgentConfig
    from everfaas_core.worker.host import ProcessHost, SlotConfig

    context = UplinkContext(url=url, options=options_of(role.registry, role.settings, transport))
    agent = Agent(
        config=AgentConfig(mode=mode, url=url, slots=slots),
        uplink=role.registry.build_uplink(transport, context),
        host=ProcessHost(SlotConfig(slots=slots, path=role.settings.path), log=role.log),
        stop=role.stop,
        log=role.log,
    )
    role.ready.send("")  # settings and plugins are right; that it has joined, /readyz knows
    return agent.run()


def find_transport(registry: Registry, mode: str) -> Offer[Transport]:
    """Load the transport of a mode. Raises ConfigError for a mode that has no workers."""
    if mode in registry.catalog.names("mode") and not registry.offers("transport", mode):
        with_workers = ", ".join(registry.catalog.names("transport"))
        raise ConfigError(
            f"mode '{mode}' has no workers: its dispatcher runs the slots itself",
            hint=f"modes with workers: {with_workers}",
        )
    return registry.transport(mode)


def check_url(url: str) -> None:
    """Refuse what is no URL at all; whether the transport can use it, only the transport knows."""
    scheme, separator, rest = url.partition("://")
    if not separator or not scheme or not rest:
        raise ConfigError(f"'{url}' is not the URL of a dispatcher", hint="for example tcp://localhost:5555")
