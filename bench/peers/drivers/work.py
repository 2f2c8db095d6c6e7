"""What the workers run. Importable by each of them, and by name where a system ships functions by name."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any


def noop() -> int:
    """Nothing. The result is a value and not None, because some queues do not store a None."""
    return 1


def sleep(wait_s: float) -> int:
    time.sleep(wait_s)
    return 1


def spin(cpu_s: float) -> int:
    """Use so much CPU time of this process, however long it takes."""
    until = time.process_time() + cpu_s
    while time.process_time() < until:
        pass
    return 1


def echo(blob: bytes) -> bytes:
    return blob


FUNCTIONS: dict[str, Callable[..., Any]] = {function.__name__: function for function in (noop, sleep, spin, echo)}
