"""`everfaas top`: not there yet."""

from __future__ import annotations

import click


@click.command("top")
def command() -> None:
    """Not there yet."""
