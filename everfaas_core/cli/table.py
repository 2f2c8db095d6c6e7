"""Tables: columns where a person looks, tab-separated lines in a pipe."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Final

from everfaas_core.cli.shown import shown

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

STATUS_STYLES: Final = {
    "QUEUED": "yellow",
    "RUNNING": "cyan",
    "COMPLETED": "green",
    "FAILED": "bold red",
    "CANCELLED": "magenta",
}


GAP: Final = "  "
CUT_MIN: Final = 4  # cells of a column that is cut


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
    console.print(make_table(columns, rows, console.width), soft_wrap=True)


def make_table(columns: Sequence[Column], rows: Iterable[Sequence[str]], width: int) -> Text:
    """Return a table for a terminal of this width: what is not whole is cut until everything fits."""
    from rich.text import Text

    seen = [number for number, column in enumerate(columns) if width >= column.from_width]
    visible = [columns[number] for number in seen]
    cells = [[shown(row[number]) for number in seen] for row in rows]
    widths = _widths(visible, cells, width)
    table = Text()
    table.append(_line([column.name for column in visible], visible, widths), style="bold")
    for row in cells:
        table.append("\n")
        for number, cell in enumerate(row):
            table.append(
                _fitted(cell, visible[number], widths[number], last=number == len(row) - 1),
                style=STATUS_STYLES.get(cell, ""),
            )
            if number < len(row) - 1:
                table.append(GAP)
    return table


def _widths(columns: Sequence[Column], cells: Sequence[Sequence[str]], width: int) -> list[int]:
    """Return how wide each column is: as its widest cell, or less, the widest of those that may be cut first."""
    from rich.cells import cell_len

    widths = [
        max([cell_len(column.name), *(cell_len(row[number]) for row in cells)]) for number, column in enumerate(columns)
    ]
    while sum(widths) + len(GAP) * (len(widths) - 1) > width:
        _, _, widest = max((not columns[number].whole, wide, number) for number, wide in enumerate(widths))
        if columns[widest].whole or widths[widest] <= CUT_MIN:
            break  # the rest does not fit, whatever is cut: the terminal breaks the line
        widths[widest] -= 1
    return widths


def _line(cells: Sequence[str], columns: Sequence[Column], widths: Sequence[int]) -> str:
    last = len(cells) - 1
    return GAP.join(_fitted(cell, columns[n], widths[n], last=n == last) for n, cell in enumerate(cells))


def _fitted(cell: str, column: Column, width: int, *, last: bool) -> str:
    from rich.cells import cell_len, set_cell_size

    length = cell_len(cell)
    if length > width:
        cut = set_cell_size(cell, width - 1).rstrip() + "…"
        return cut if last else set_cell_size(cut, width)
    if column.right:
        return " " * (width - length) + cell
    return cell if last else cell + " " * (width - length)


def terminal(*, errors: bool = False) -> Console:
    """Return a console on stdout, or stderr, that changes nothing in what it is given. NO_COLOR is honoured."""
    from rich.console import Console

    plain = {"color_system": None} if os.environ.get("NO_COLOR") else {}
    return Console(stderr=errors, highlight=False, markup=False, emoji=False, **plain)  # type: ignore[arg-type]  # one of its names, or nothing
