"""How long the command line and the package take to start, each in a fresh interpreter."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

TRIES = 5
_IMPORT = "import time; began = time.perf_counter(); import everfaas_core; print(time.perf_counter() - began)"


def measure() -> dict[str, float]:
    """Return the medians in ms: of the import alone, and of the whole process of `everfaas --help`."""
    return {
        "import_ms": statistics.median(_import_s() for _ in range(TRIES)) * 1e3,
        "help_ms": statistics.median(_help_s() for _ in range(TRIES)) * 1e3,
    }


def _import_s() -> float:
    return float(subprocess.run([sys.executable, "-c", _IMPORT], check=True, capture_output=True, text=True).stdout)


def _help_s() -> float:
    began = time.perf_counter()
    subprocess.run([sys.executable, "-m", "everfaas_core.cli", "--help"], check=True, capture_output=True)
    return time.perf_counter() - began
