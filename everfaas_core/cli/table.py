"""Tables: columns where a person looks, tab-separated lines in a pipe."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Final

from everfaas_core.cli.shown import shown

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

STATUS_STYLES: Final = {
    "QUEUED": "yellow",
    "RUNNING": "cyan",
    "COMPLETED": "green",
    "FAILED": "bold red",
    "CANCELLED": "magenta",
}


class Column:
    """One column: its head, and what is done when the terminal is too narrow for all.

    `whole` is never cut; `from_width` is that of the terminals that show it at all; `right` aligns numbers.
    """

    def __init__(self, name: str, *, whole: bool = False, right: bool = False, from_width: int = 0) -> None:
        self.name = name
        self.whole = whole
        self.right = right
        self.from_width = from_width


def print_table(columns: Sequence[Column], rows: Iterable[Sequence[str]]) -> None:
    """Print rows, each with a cell for each column. In a pipe all columns, whole, without heads."""
    if not sys.stdout.isatty():
        for row in rows:
            sys.stdout.write("\t".join(shown(cell) for cell in row) + "\n")
        sys.stdout.flush()
        return
    console = terminal()
    console.print(make_table(columns, rows, console.width))


def make_table(columns: Sequence[Column], rows: Iterable[Sequence[str]], width: int) -> Table:
    """Return what `rich` prints: the columns that a terminal of this width shows."""
    from rich.cells import cell_len
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    rows = [[shown(cell) for cell in row] for row in rows]
    visible = [number for number, column in enumerate(columns) if width >= column.from_width]
    for number in visible:
        column = columns[number]
        table.add_column(
            column.name,
            no_wrap=True,
            overflow="ellipsis",
            min_width=max((cell_len(row[number]) for row in rows), default=0) if column.whole else None,
            justify="right" if column.right else "left",
        )
    for row in rows:
        table.add_row(*(Text(row[number], style=STATUS_STYLES.get(row[number], "")) for number in visible))
    return table


def terminal(*, errors: bool = False) -> Console:
    """Return a console on stdout, or stderr, that changes nothing in what it is given. NO_COLOR is honoured."""
    from rich.console import Console

    return Console(stderr=errors, highlight=False, markup=False, emoji=False)
