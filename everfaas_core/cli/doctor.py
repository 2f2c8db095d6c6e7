"""`everfaas doctor`: look for what goes wrong most often, and say what to do about it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Final

import click
from msgspec import Struct, to_builtins

from everfaas_core.cli import EXIT_FAILED
from everfaas_core.cli.calling import json_option
from everfaas_core.cli.options import read_flags, settings_options
from everfaas_core.cli.shown import shown

OK: Final = "ok"
WARN: Final = "warn"
FAIL: Final = "fail"
STYLES: Final = {OK: "green", WARN: "yellow", FAIL: "bold red"}


class Check(Struct, frozen=True, omit_defaults=True):
    """What was looked at, what was found (`ok`, `warn` or `fail`), why, and the remedy."""

    name: str
    state: str
    text: str
    remedy: str = ""


@click.command("doctor")
@click.argument("target", required=False, metavar="[FILE.py::FUNCTION]")
@settings_options("url", "port", "store_port", "store", "data", "path", "plugins")
@json_option("Print one JSON object: ok, checks.")
@click.pass_context
def command(ctx: click.Context, /, target: str | None, as_json: bool, **_: object) -> int:
    """Check this machine, and the system at the API's address; say what to do about what is wrong.

    With --store, that store is checked, too, without an API between. With a FUNCTION, it is told whether that one
    will travel, and what of it will not. Exit status 1: at least one check has failed.
    """
    flags, _plugin_flags = read_flags(ctx)
    found = []
    console = None
    for check in checks(flags, target):
        found.append(check)
        if not as_json:
            console = console or _console()
            _print(check, console)
    failed = [check for check in found if check.state == FAIL]
    if as_json:
        click.echo(json.dumps({"ok": not failed, "checks": to_builtins(found)}))
    return EXIT_FAILED if failed else 0


def checks(flags: dict[str, object], target: str | None) -> Iterator[Check]:
    """Yield what is found, one after the other. `flags`: what the command line said, key → value."""
    from everfaas_core.cli.doctor_here import code_checks, config_checks, machine_checks
    from everfaas_core.cli.doctor_there import api_checks, store_check
    from everfaas_core.config.layers import load_settings
    from everfaas_core.model.errors import EverfaasError

    try:
        settings = load_settings(flags)
    except EverfaasError as error:
        yield Check("settings", FAIL, error.message, error.hint or "")
        return
    yield from config_checks(settings)
    yield from machine_checks(settings)
    yield from code_checks(settings, target)
    if settings.sources["store"] != "default" and settings.store not in ("embedded", "memory"):
        yield store_check(settings)
    yield from api_checks(settings)


def _console() -> Any:
    from everfaas_core.cli.table import terminal

    return terminal()


def _print(check: Check, console: Any) -> None:
    from rich.text import Text

    line = Text.assemble((check.state.ljust(5), STYLES[check.state]), (check.name.ljust(10), "bold"), shown(check.text))
    console.print(line, soft_wrap=True)
    if check.remedy:
        console.print(Text(" " * 15 + "→ " + shown(check.remedy)), soft_wrap=True)
