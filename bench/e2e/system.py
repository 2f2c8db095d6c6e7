"""A running `everfaas up` of its own, on a free port and an empty data directory; and workers for it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

COMMAND = (sys.executable, "-m", "everfaas_core.cli")
STOP_S = 30.0


@dataclass(frozen=True)
class Headless:
    """A system that has no workers yet: where its API is, and where workers join."""

    url: str
    workers_url: str


@contextlib.contextmanager
def running(mode: str, *flags: str, slots: int = 4, data: Path | None = None) -> Iterator[str]:
    """Start it, give its URL, stop it. Without `data` it has a folder of its own."""
    with _started(["up", "-m", mode, "-w", str(slots), *flags], data) as lines:
        yield _line(lines, "ready ").split()[1]


@contextlib.contextmanager
def without_workers(mode: str, *flags: str, data: Path | None = None) -> Iterator[Headless]:
    """Start it without workers, give its addresses, stop it."""
    with _started(["up", "-m", mode, "--workers", "0", *flags], data) as lines:
        said = _line(lines, "waiting for workers at ").split(";")
        yield Headless(url=said[1].split()[-1], workers_url=said[0].split()[-1])


@contextlib.contextmanager
def worker(mode: str, slots: int, workers_url: str) -> Iterator[None]:
    """Start a worker, and stop it: it finishes what it runs."""
    process = subprocess.Popen(
        [*COMMAND, "worker", mode, str(slots), workers_url, "--log-level", "warning"], env=_environ()
    )
    try:
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(STOP_S)


@contextlib.contextmanager
def _started(words: list[str], data: Path | None) -> Iterator[Iterator[str]]:
    """Start `everfaas up`, give the lines that it prints, stop it."""
    with tempfile.TemporaryDirectory(prefix="everfaas-bench-") as folder:
        process = subprocess.Popen(
            [*COMMAND, *words, "--port", "0", "--data", str(data or folder)],
            stdout=subprocess.PIPE,
            text=True,
            env=_environ(),
        )
        assert process.stdout is not None
        try:
            yield process.stdout
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(STOP_S)
            process.stdout.close()


def _line(lines: Iterator[str], beginning: str) -> str:
    for line in lines:
        if line.startswith(beginning):
            return line
    raise RuntimeError("`everfaas up` did not become ready")


def _environ() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("EVERFAAS_")}
