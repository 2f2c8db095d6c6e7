"""A running `everfaas up` of its own, on a free port and an empty data directory."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def running(mode: str, *flags: str, slots: int = 4, data: Path | None = None) -> Iterator[str]:
    """Start it, give its URL, stop it. Without `data` it has a folder of its own."""
    command = [sys.executable, "-m", "everfaas_core.cli", "up", "-m", mode, "-w", str(slots), "--port", "0", *flags]
    env = {name: value for name, value in os.environ.items() if not name.startswith("EVERFAAS_")}
    with tempfile.TemporaryDirectory(prefix="everfaas-bench-") as folder:
        process = subprocess.Popen(
            [*command, "--data", str(data or folder)], stdout=subprocess.PIPE, text=True, env=env
        )
        assert process.stdout is not None
        try:
            for line in process.stdout:
                if line.startswith("ready "):
                    yield line.split()[1]
                    break
            else:
                raise RuntimeError(f"`everfaas up -m {mode}` did not become ready")
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(30)
            process.stdout.close()
