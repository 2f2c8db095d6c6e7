"""How things look to a person: text that can do nothing to a terminal, durations, instants, sizes."""

from __future__ import annotations

import time
from typing import Final

_UNITS: Final = (("d", 86_400, 3600, "h"), ("h", 3600, 60, "min"), ("min", 60, 1, "s"))
_SIZES: Final = ("B", "KiB", "MiB", "GiB", "TiB")


def shown(text: str, *, lines: bool = False, limit: int | None = None) -> str:
    """Return a text with everything a terminal may obey written out as an escape: `\\x1b`, `\\u202e`, `\\r`.

    `lines` keeps line ends and tabs. `limit` cuts what is longer, and says so with an ellipsis.
    """
    if limit is not None and len(text) > limit:
        text = text[: limit - 1] + "…"
    if text.isprintable():
        return text
    kept = "\n\t" if lines else ""
    return "".join(
        character if character in kept or character.isprintable() else _escaped(character) for character in text
    )


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")


def brief(text: str | None, limit: int = 200) -> str:
    """Return the last line of a text that says something: of a traceback, the exception."""
    found = [line for line in (text or "").splitlines() if line.strip()]
    return shown(found[-1].strip(), limit=limit) if found else ""


def duration(seconds: float | None) -> str:
    """Return `120 ms`, `3.4 s`, `2 min 5 s`, `3 h 4 min`, `2 d 5 h`; "" for None."""
    if seconds is None:
        return ""
    seconds = max(0.0, seconds)
    if seconds < 0.9995:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    for name, length, smaller, smaller_name in _UNITS:
        if whole >= length:
            rest = whole % length // smaller
            return f"{whole // length} {name}" + (f" {rest} {smaller_name}" if rest else "")
    raise AssertionError


def age(at_ms: float | None, now_ms: float | None = None) -> str:
    """Return how long ago an instant (ms since 1970) was, in one unit: `5 s`, `12 min`, `3 h`, `9 d`."""
    if at_ms is None:
        return ""
    seconds = max(0.0, ((time.time() * 1000 if now_ms is None else now_ms) - at_ms) / 1000)
    for name, length, *_ in _UNITS:
        if seconds >= length:
            return f"{seconds / length:.0f} {name}"
    return f"{seconds:.0f} s"


def instant(at_ms: float | None) -> str:
    """Return an instant (ms since 1970) in local time, `2026-11-30 20:12:05`; "" for None."""
    return "" if at_ms is None else time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at_ms / 1000))


def size(count: float) -> str:
    """Return a number of bytes as `17 B`, `1.5 KiB`, `32 MiB`."""
    for unit in _SIZES:
        if count < 1024 or unit == _SIZES[-1]:
            return f"{count:.0f} {unit}" if count >= 10 or unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    raise AssertionError


def count_of(number: int, thing: str, things: str = "") -> str:
    """Return `1 task`, `2,000 tasks`."""
    return f"{number:,} {thing if number == 1 else things or thing + 's'}"
