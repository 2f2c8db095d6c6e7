"""Draw a recording as a picture that moves: an SVG with CSS animations, for pages that run no scripts.

    python docs/cast/draw.py docs/cast/first-minutes.cast > docs/cast/first-minutes.svg

Each row of the terminal is a strip of all that it ever shows, one below the other, behind a window one row high; its
animation jumps from one to the next. So a key that is typed costs one row, not a whole screen. Without animations, or
for those who asked for no motion, the strips stand as they were at the mark `still`.
"""

from __future__ import annotations

import hashlib
import html
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pyte
from asciicast import Cast

CELL: Final = 8.4
LINE: Final = 18
SIZE: Final = 14
BASELINE: Final = 13.5
MARGIN: Final = 16
BAR: Final = 32
FRAME_S: Final = 0.05
"""What changes within one frame is shown at once."""
END_S: Final = 4.0
"""How long the end stands before it begins anew."""

BACK: Final = "#12151c"
FORE: Final = "#d7dae0"
COLOURS: Final = {
    "black": "#3b4252",
    "red": "#ff6b70",
    "green": "#7fd88f",
    "brown": "#f2c66d",  # pyte's name of yellow
    "blue": "#6cb0ff",
    "magenta": "#d191f0",
    "cyan": "#62d3e0",
    "white": "#d7dae0",
    "brightblack": "#7a8394",
    "brightred": "#ff8f93",
    "brightgreen": "#a3e8b0",
    "brightbrown": "#ffdc94",
    "brightblue": "#97c8ff",
    "brightmagenta": "#e3b3ff",
    "brightcyan": "#8fe6f0",
    "brightwhite": "#ffffff",
}
FONTS: Final = "ui-monospace,SFMono-Regular,Menlo,Consolas,'DejaVu Sans Mono','Liberation Mono',monospace"

Style = tuple[str, bool, bool, bool, bool]  # colour, bold, italic, underlined, dim
Run = tuple[int, int, str, Style, str]  # first column, columns, text, style, background
Row = tuple[Run, ...]


class Screen(pyte.Screen):
    """pyte knows no dim text; here it is kept as blinking, which nobody should use."""

    def select_graphic_rendition(self, *attributes: int, **kwargs: Any) -> None:
        """Set colours and the like: 2 (dim) is kept as 5, and 22 (neither bold nor dim) ends it."""
        kept: list[int] = []
        rest = list(attributes)
        while rest:
            code = rest.pop(0)
            if code in (38, 48):  # the numbers behind it are of a colour
                count = {5: 2, 2: 4}.get(rest[0] if rest else 0, 0)
                kept += [code, *rest[:count]]
                del rest[:count]
            elif code == 2:
                kept.append(5)
            elif code == 22:
                kept += [22, 25]
            else:
                kept.append(code)
        super().select_graphic_rendition(*kept, **kwargs)


@dataclass
class Strip:
    """All that one row ever shows: its states, and when which of them is to be seen."""

    states: dict[Row, int] = field(default_factory=dict)
    moments: list[tuple[float, int]] = field(default_factory=list)
    still: int = 0

    def show(self, at_s: float, row: Row) -> None:
        """Note that from now on the row is this."""
        number = self.states.setdefault(row, len(self.states))
        if not self.moments or self.moments[-1][1] != number:
            self.moments.append((at_s, number))


@dataclass
class Film:
    """A recording, taken apart: rows, the places of the cursor (column, row; None if hidden), its length."""

    strips: list[Strip]
    cursor: list[tuple[float, tuple[int, int] | None]]
    still_cursor: tuple[int, int] | None
    length_s: float


def film(cast: Cast) -> Film:
    """Play a recording to an emulated terminal and note what each row shows when."""
    screen = Screen(cast.columns, cast.rows)
    stream = pyte.Stream(screen)
    made = Film([Strip() for _ in range(cast.rows)], [], None, 0.0)
    screen.dirty.update(range(cast.rows))
    still = False
    for at_s, kind, text in _frames(cast):
        if kind == "o":
            stream.feed(text)
        for number in sorted(screen.dirty):
            made.strips[number].show(at_s, row_of(screen, number))
        screen.dirty.clear()
        cursor = None if screen.cursor.hidden else (min(screen.cursor.x, cast.columns - 1), screen.cursor.y)
        if not made.cursor or made.cursor[-1][1] != cursor:
            made.cursor.append((at_s, cursor))
        if not still:
            for strip in made.strips:
                strip.still = strip.moments[-1][1]
            made.still_cursor = cursor
            still = kind == "m" and text == "still"
        made.length_s = at_s
    made.length_s += END_S
    return made


def _frames(cast: Cast) -> Iterator[tuple[float, str, str]]:
    """Yield what was shown, in pieces at least a frame apart, and the marks."""
    began_s, gathered = 0.0, ""
    yield 0.0, "o", ""
    for at_s, kind, text in cast.played():
        if gathered and (at_s - began_s >= FRAME_S or kind == "m"):
            yield began_s, "o", gathered
            gathered = ""
        if kind == "o":
            began_s = began_s if gathered else at_s
            gathered += text
        elif kind == "m":
            yield at_s, kind, text
    if gathered:
        yield began_s, "o", gathered


def row_of(screen: Screen, number: int) -> Row:
    """Return a row of the terminal as runs of cells that look alike; blank cells are left out."""
    runs: list[Run] = []
    line = screen.buffer[number]
    column = 0
    while column < screen.columns:
        cell = line[column]
        wide = column + 1 < screen.columns and cell.data != "" and line[column + 1].data == ""
        width = 2 if wide else 1
        fore, back = _colour(cell.fg, FORE), _colour(cell.bg, "")
        if cell.reverse:
            fore, back = back or BACK, fore
        style = (fore, cell.bold, cell.italics, cell.underscore, cell.blink)
        blank = cell.data in ("", " ") and not cell.underscore
        if not (blank and not back):
            last = runs[-1] if runs else None
            joins = last is not None and last[0] + last[1] == column and last[3:] == (style, back) and not wide
            if last is not None and joins and not _is_wide(last):
                runs[-1] = (last[0], last[1] + width, last[2] + cell.data, style, back)
            else:
                runs.append((column, width, cell.data, style, back))
        elif runs and not runs[-1][4] and not _is_wide(runs[-1]) and runs[-1][0] + runs[-1][1] == column:
            # One blank between words of the same style belongs to them.
            after = line[column + 1] if column + 1 < screen.columns else None
            last = runs[-1]
            same = after is not None and after.data not in ("", " ") and _colour(after.bg, "") == ""
            if same and after is not None and not after.reverse and last[3] == _style(after):
                runs[-1] = (last[0], last[1] + 1, last[2] + " ", last[3], "")
        column += width
    return tuple(runs)


def _style(cell: Any) -> Style:
    return (_colour(cell.fg, FORE), cell.bold, cell.italics, cell.underscore, cell.blink)


def _is_wide(run: Run) -> bool:
    return run[1] != len(run[2])


def _colour(name: str, default: str) -> str:
    if name == "default":
        return default
    return COLOURS.get(name, f"#{name}")


# ── the picture ──────────────────────────────────────────────────────────────────────────────────────────────────────


class Picture:
    """Collects the parts of the SVG: classes of text, rows that several strips share, keyframes."""

    def __init__(self, cast: Cast, made: Film) -> None:
        """Take what is to be drawn."""
        self._cast = cast
        self._film = made
        self._classes: dict[Style, str] = {}
        self._shared: dict[Row, str] = {}
        self._rules: list[str] = []

    def draw(self, source: str) -> str:
        """Return the SVG; `source` says what it was drawn from."""
        cast, made = self._cast, self._film
        counts = Counter(row for strip in made.strips for row in strip.states if row)
        for row, count in counts.items():
            if count > 1:
                self._shared[row] = f"l{len(self._shared)}"
        defs = "".join(f'<g id="{name}">{self._row(row, 0)}</g>' for row, name in self._shared.items())
        strips = "".join(self._strip(number, strip) for number, strip in enumerate(made.strips))
        cursor = self._cursor()
        width, height = cast.columns * CELL + 2 * MARGIN, BAR + cast.rows * LINE + MARGIN
        dots = "".join(
            f'<circle cx="{MARGIN + 5 + 18 * i}" cy="{BAR / 2}" r="5.5" fill="{colour}"/>'
            for i, colour in enumerate(("#ff5f57", "#febc2e", "#28c840"))
        )
        title = html.escape(cast.title)
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" width="{width:g}" '
            f'height="{height:g}" role="img" aria-labelledby="title">\n'
            f"<!-- {source} -->\n"
            f'<title id="title">{title}</title>\n<style>{self._css()}</style>\n<defs>{defs}</defs>\n'
            f'<rect x=".5" y=".5" width="{width - 1:g}" height="{height - 1:g}" rx="9" fill="{BACK}" stroke="#3a4150"/>'
            f'{dots}<text class="h" x="{width / 2:g}" y="{BAR / 2 + 4.5:g}" text-anchor="middle">{title}</text>\n'
            f'<rect class="p" x="9" y="{height - 3:g}" width="{width - 18:g}" height="2" fill="#62d3e0"/>\n'
            f'<svg x="{MARGIN}" y="{BAR}" width="{cast.columns * CELL:g}" height="{cast.rows * LINE}">\n'
            f"{cursor}{strips}</svg>\n</svg>\n"
        )

    def _css(self) -> str:
        length = f"{self._film.length_s:.2f}s"
        rules = [
            f"text{{font:{SIZE}px {FONTS};white-space:pre;fill:{FORE}}}",
            "text.h{font-size:13px;fill:#7a8394}",
            f".a{{animation:0s step-end infinite;animation-duration:{length}}}",
            f".p{{transform-origin:9px 0;animation:p {length} linear infinite}}",
            "@keyframes p{0%{transform:scaleX(0)}}",
        ]
        for (colour, bold, italic, underlined, dim), name in self._classes.items():
            rules.append(
                f".{name}{{fill:{colour}"
                + ";font-weight:bold" * bold
                + ";font-style:italic" * italic
                + ";text-decoration:underline" * underlined
                + ";opacity:.65" * dim
                + "}"
            )
        stop = "@media(prefers-reduced-motion:reduce){.a,.p{animation:none}}"
        return "\n".join([*rules, *self._rules, stop])

    def _strip(self, number: int, strip: Strip) -> str:
        inner = "".join(self._state(row, place) for row, place in strip.states.items() if row)
        if not inner:
            return ""
        window = f'<svg y="{number * LINE}" width="{self._cast.columns * CELL:g}" height="{LINE}">'
        moved = "".join(
            f"{self._percent(at_s)}{{transform:translateY({-place * LINE}px)}}" for at_s, place in strip.moments
        )
        self._rules.append(f"@keyframes r{number}{{{moved}}}")
        still = f' transform="translate(0 {-strip.still * LINE})"' if strip.still else ""
        return f'{window}<g class="a" style="animation-name:r{number}"{still}>{inner}</g></svg>\n'

    def _cursor(self) -> str:
        def place(where: tuple[int, int] | None) -> str:
            return f"{where[0] * CELL:.1f}px,{where[1] * LINE}px" if where else "0,-99px"

        moved = "".join(
            f"{self._percent(at_s)}{{transform:translate({place(where)})}}" for at_s, where in self._film.cursor
        )
        self._rules.append(f"@keyframes c{{{moved}}}")
        still = place(self._film.still_cursor).replace("px", "")
        return (
            f'<rect class="a" style="animation-name:c" transform="translate({still})" y="1" width="{CELL}" '
            f'height="{LINE - 2}" fill="#8b93a3"/>\n'
        )

    def _percent(self, at_s: float) -> str:
        return f"{100 * at_s / self._film.length_s:.2f}".rstrip("0").rstrip(".") + "%"

    def _state(self, row: Row, place: int) -> str:
        if row in self._shared:
            at = f' y="{place * LINE}"' if place else ""
            return f'<use href="#{self._shared[row]}"{at}/>'
        return self._row(row, place)

    def _row(self, row: Row, place: int) -> str:
        parts = []
        for column, width, text, style, back in row:
            if back:
                parts.append(
                    f'<rect x="{column * CELL:.5g}" y="{place * LINE}" width="{width * CELL:.5g}" height="{LINE}" '
                    f'fill="{back}"/>'
                )
            if text.strip():
                name = self._class(style)
                # Lines and blocks touch in every font; letters keep their shape, and only their distance is set.
                fill = ' lengthAdjust="spacingAndGlyphs"' if any("─" <= sign <= "▟" for sign in text) else ""
                parts.append(
                    f'<text{name} x="{column * CELL:.5g}" y="{place * LINE + BASELINE:g}" '
                    f'textLength="{width * CELL:.5g}"{fill}>{html.escape(text, quote=False)}</text>'
                )
        return "".join(parts)

    def _class(self, style: Style) -> str:
        if style == (FORE, False, False, False, False):
            return ""
        name = self._classes.setdefault(style, f"s{len(self._classes)}")
        return f' class="{name}"'


def draw(path: Path) -> str:
    """Return the picture of a recording. The same recording gives the same picture."""
    cast = Cast.read(path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return Picture(cast, film(cast)).draw(f"drawn by docs/cast/draw.py from {path.name}, sha256 {digest}")


if __name__ == "__main__":
    sys.stdout.write(draw(Path(sys.argv[1])))
