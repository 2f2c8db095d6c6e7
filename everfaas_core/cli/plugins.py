"""`everfaas plugins`: what is installed, by metadata alone."""

from __future__ import annotations

import json
import sys
from typing import Any

import click

from everfaas_core.registry.catalog import Catalog, describe

COLUMNS = ("name", "offers", "distribution", "version", "module")


@click.command("plugins")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, with the folder that each comes from.")
def command(as_json: bool) -> None:
    """List the installed plugins: what they offer, and which distribution brings them. Imports none of them."""
    catalog = Catalog.installed()
    plugins = [describe(plugin, catalog) for plugin in catalog.plugins]
    if as_json:
        click.echo(json.dumps(plugins, indent=2))
        return
    rows = [{**plugin, "offers": _offers(plugin)} for plugin in plugins]
    if sys.stdout.isatty():
        _print_table(rows)
    else:
        for row in rows:
            click.echo("\t".join(str(row[column]) for column in COLUMNS))
    for name, claims in catalog.clashes().items():
        who = " and ".join(plugin.source for plugin in claims)
        click.echo(f"Warning: {who} both bring a plugin '{name}'; selecting it is an error.", err=True)


def _offers(plugin: dict[str, Any]) -> str:
    """Return "mode pull, transport pull"; a plugin that declares nothing is asked when it is selected."""
    offers = [f"{kind} {name}" for kind, names in plugin["offers"].items() for name in names]
    return ", ".join(offers) or "(not declared)"


def _print_table(rows: list[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("name", no_wrap=True)
    table.add_column("offers")
    table.add_column("from", no_wrap=True)
    table.add_column("module", overflow="fold")
    for row in rows:
        table.add_row(row["name"], row["offers"], f"{row['distribution']} {row['version']}", row["module"])
    Console().print(table)
