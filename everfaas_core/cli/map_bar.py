"""How far a map is: a bar where a person looks, a line now and then in a pipe."""

from __future__ import annotations

import sys
import threading
import time
from collections import deque
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self

from everfaas_core.cli.map_flow import Counts
from everfaas_core.cli.shown import duration, shown

if TYPE_CHECKING:
    from rich.text import Text

REFRESH_S: Final = 0.1
LINES_S: Final = 5.0  # between lines in a pipe
RATE_S: Final = 15.0  # what the rate is averaged over
BAR_MIN: Final = 10
BAR_MAX: Final = 40


class Pace:
    """How many ended in each of the last seconds."""

    def __init__(self) -> None:
        self._points: deque[tuple[float, int]] = deque()

    def note(self, now: float, ended: int) -> None:
        """Take note of how many have ended by now."""
        self._points.append((now, ended))
        while len(self._points) > 2 and now - self._points[1][0] > RATE_S:
            self._points.popleft()

    @property
    def per_s(self) -> float:
        """Tasks that end in a second; 0.0 while nobody knows."""
        if len(self._points) < 2:
            return 0.0
        (began, before), (now, after) = self._points[0], self._points[-1]
        return (after - before) / (now - began) if now > began else 0.0


def facts(counts: Counts, total: int | None, per_s: float) -> list[str]:
    """Return what is worth telling, the most important first."""
    done = counts.earlier + counts.ended
    words = [f"{done:,}/{total:,}" if total is not None else f"{done:,}"]
    if counts.failed:
        words.append(f"{counts.failed:,} failed")
    if counts.cancelled:
        words.append(f"{counts.cancelled:,} cancelled")
    left = None if total is None else total - done
    if left != 0:  # what the API said of those that run is a moment old
        words.append(f"{min(counts.running, counts.submitted):,} running")
    words.append(f"{per_s:,.0f}/s" if per_s >= 10 else f"{per_s:.1f}/s")
    if left and per_s > 0 and not counts.cancelled:  # what is cancelled takes no time
        words.append(f"{duration(left / per_s)} left")
    return words


class Bar:
    """Shows the counts until it is left. A context manager; `say` writes a line above the bar."""

    def __init__(self, name: str, counts: Counts, total: int | None) -> None:
        self._name = shown(name, limit=30)
        self._counts = counts
        self._total = total
        self._pace = Pace()
        self._stop = threading.Event()
        self._live: Any = None
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        self._pace.note(time.monotonic(), 0)
        if sys.stderr.isatty():
            from rich.live import Live

            from everfaas_core.cli.table import terminal

            console = terminal(errors=not sys.stdout.isatty())
            self._live = Live(
                get_renderable=lambda: self._drawn(console.width),
                console=console,
                refresh_per_second=1 / REFRESH_S,
                redirect_stdout=False,
                redirect_stderr=False,
            )
            self._live.__enter__()
        else:
            self._thread = threading.Thread(target=self._tell, name="map-lines", daemon=True)
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        if self._live is not None:
            self._live.__exit__(kind, error, trace)
        if self._thread is not None:
            self._thread.join()

    def say(self, text: str) -> None:
        """Write a line for the person, above the bar."""
        if self._live is not None:
            self._live.console.print(text, soft_wrap=True)
        else:
            sys.stderr.write(text + "\n")
            sys.stderr.flush()

    def put(self, text: str) -> None:
        """Write lines of results to stdout, above the bar if it is there."""
        if self._live is not None and sys.stdout.isatty():
            self._live.console.print(text, soft_wrap=True, end="")
        else:
            sys.stdout.write(text)
            sys.stdout.flush()

    def _drawn(self, width: int) -> Text:
        from rich.text import Text

        self._pace.note(time.monotonic(), self._counts.ended)
        words = facts(self._counts, self._total, self._pace.per_s)
        text = "  ".join(words)
        room = width - len(text) - 2
        line = Text(no_wrap=True, overflow="crop")
        if self._name and room - len(self._name) - 2 >= BAR_MIN:
            line.append(self._name + "  ", style="bold")
            room -= len(self._name) + 2
        if self._total and room >= BAR_MIN:
            line.append_text(_bar(self._counts, self._total, min(room, BAR_MAX)))
            line.append("  ")
        return line.append(text)

    def _tell(self) -> None:
        """Write lines on stderr, until the map is over."""
        while not self._stop.wait(LINES_S):
            self._pace.note(time.monotonic(), self._counts.ended)
            sys.stderr.write(", ".join(facts(self._counts, self._total, self._pace.per_s)) + "\n")
            sys.stderr.flush()


def _bar(counts: Counts, total: int, width: int) -> Text:
    """Return the bar: what has completed, what has failed, and what is left."""
    from rich.text import Text

    done = min(counts.earlier + counts.ended, total)
    full = width * done // total
    bad = min(full, -(-width * counts.failed // total) if counts.failed else 0)
    bar = Text("━" * (full - bad), style="green")
    bar.append("━" * bad, style="bold red")
    return bar.append("─" * (width - full), style="dim")
