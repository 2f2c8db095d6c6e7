"""`everfaas map`: not there yet."""

from __future__ import annotations

import click


@click.command("map")
def command() -> None:
    """Not there yet."""
