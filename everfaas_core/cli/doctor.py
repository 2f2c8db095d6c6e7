"""`everfaas doctor`: not there yet."""

from __future__ import annotations

import click


@click.command("doctor")
def command() -> None:
    """Not there yet."""
