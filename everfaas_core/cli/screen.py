"""What `everfaas up` shows: one screen where a person looks, single lines in a pipe."""

from __future__ import annotations

import contextlib
import sys
from typing import Final, TextIO

from everfaas_core.config.settings import Settings
from everfaas_core.version import __version__

LABEL_WIDTH: Final = 9


class Screen:
    """Writes to `stream`; never draws over what is there."""

    def __init__(self, settings: Settings, *, data: str, needs_workers: bool, stream: TextIO = sys.stdout) -> None:
        self._settings = settings
        self._data = data  # the embedded store's folder, or the store's URL
        self._needs_workers = needs_workers
        self._stream = stream
        self._person = stream.isatty()

    def waiting(self, api_url: str, workers_url: str) -> None:
        """Say that all is up but the workers, which others start."""
        how = f"python run_worker.py {self._settings.mode} {self._settings.slots} {workers_url}"
        self._line(f"waiting for workers at {workers_url}; API {api_url}; start one: {how}")

    def ready(self, api_url: str, workers_url: str) -> None:
        """Say that a task submitted now would run, and where everything is."""
        settings = self._settings
        if not self._person:
            extra = f" workers={settings.workers} workers_url={workers_url}" if self._needs_workers else ""
            self._line(
                f"ready {api_url} mode={settings.mode} slots={settings.slots}{extra} "
                f"data={self._data} docs={api_url}/docs"
            )
            return
        slots = f"{settings.slots} slots"
        if self._needs_workers:
            slots = f"{settings.workers} worker{'s' * (settings.workers != 1)} of {slots}"
        rows = [
            ("API", api_url),
            ("docs", f"{api_url}/docs"),
            ("mode", f"{settings.mode}, {slots}"),
            *([("workers", f"join at {workers_url}")] if self._needs_workers else []),
            ("data", self._data),
            ("stop", "Ctrl-C"),
        ]
        from rich.console import Console
        from rich.text import Text

        console = Console(file=self._stream, highlight=False)
        console.print(Text.assemble(("everfaas ", "bold"), (__version__, "dim"), "  ", ("ready", "bold green")))
        for label, value in rows:
            console.print(Text.assemble("  ", (label.ljust(LABEL_WIDTH), "dim"), value), soft_wrap=True)

    def draining(self) -> None:
        """Say that the end has begun."""
        over = "\r" if self._person else ""  # the terminal has shown ^C there
        how = " (Ctrl-C again: at once)" if self._person else ""
        self._line(f"{over}draining: running tasks get {self._settings.drain_s:g} s to finish{how}")

    def stopped(self) -> None:
        """Say that nothing is left."""
        self._line("stopped")

    def _line(self, text: str) -> None:
        with contextlib.suppress(BrokenPipeError):  # whoever started us no longer listens: no reason to end
            self._stream.write(text + "\n")
            self._stream.flush()


def shown_url(url: str) -> str:
    """Return a store's URL without the password that it may hold."""
    scheme, separator, rest = url.partition("://")
    return f"{scheme}{separator}***@{rest.rpartition('@')[2]}" if "@" in rest else url
