"""`everfaas config`: the settings, and where each of them comes from."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Final

import click
from msgspec import Struct

from everfaas_core.cli.options import read_flags, settings_options
from everfaas_core.cli.screen import shown_url
from everfaas_core.config.keys import KEYS
from everfaas_core.config.layers import load_settings
from everfaas_core.config.settings import Settings

ROLES: Final = ("up", "api", "dispatcher", "worker", "store")


class Row(Struct, frozen=True):
    """One setting: its key in the file, its value, and who has set it."""

    key: str
    value: Any
    origin: str


@click.command("config")
@click.argument("role", required=False, type=click.Choice(ROLES), metavar="[COMMAND]")
@settings_options(*KEYS)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object: config_file, settings.")
@click.pass_context
def command(ctx: click.Context, /, role: str | None, as_json: bool, **_: object) -> None:
    """Show what each setting is, and where it comes from: default, config file, environment, or a flag.

    With a COMMAND (up, api, dispatcher, worker, store), what that one would start with: some have defaults of their
    own. All flags of theirs are taken, so that the result of a whole command line can be seen before it is run.
    Passwords in URLs are not shown.
    """
    flags, _plugin_flags = read_flags(ctx)
    settings = load_settings(flags, defaults=_defaults(role))
    rows = [*_keys(settings, role), *_options(settings)]
    if as_json:
        found = {row.key: {"value": row.value, "from": row.origin} for row in rows}
        click.echo(json.dumps({"config_file": settings.config_file, "settings": found}, indent=2))
    else:
        from everfaas_core.cli.table import Column, print_table

        columns = [Column("key", whole=True), Column("value"), Column("from")]
        print_table(columns, ([row.key, _text(row.value), row.origin] for row in rows))
    for warning in settings.warnings:
        click.echo(f"Warning: {warning}", err=True)


def _defaults(role: str | None) -> dict[str, object]:
    """Return what a command sets by itself, where that is not what the table of keys says."""
    from everfaas_core.cli.group import everfaas
    from everfaas_core.cli.options import RoleCommand

    found = everfaas.get_command(click.Context(everfaas), role) if role else None
    return dict(found.defaults) if isinstance(found, RoleCommand) else {}


def _keys(settings: Settings, role: str | None) -> Iterator[Row]:
    for key in sorted(KEYS.values(), key=lambda one: one.name):
        value = getattr(settings, key.attribute)
        origin = settings.sources[key.name]
        if origin == "default" and key.name in _defaults(role):
            origin = f"default of {role}"
        if key.name in ("store", "url"):
            value = shown_url(value)
        yield Row(key.name, list(value) if isinstance(value, tuple) else value, origin)


def _options(settings: Settings) -> Iterator[Row]:
    """What was said to plugins; only a plugin that is selected can tell whether it is right."""
    given = settings.plugin_values
    for name, section in sorted(given.sections.items()):
        for key, value in sorted(section.items()):
            yield Row(f"plugin.{name}.{key}", value, given.file)
    for variable in sorted(given.environ):
        if variable not in ("EVERFAAS_CONFIG", "EVERFAAS_TOKEN"):
            yield Row(variable, "(set)", "environment")


def _text(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return f"{value:g}"
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
