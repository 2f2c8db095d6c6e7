"""Functions that travel by value, since they are made in here."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def made() -> dict[str, Callable[..., Any]]:
    def double(x: int) -> int:
        return x * 2

    def boom(text: str) -> None:
        raise ValueError(text)

    def nap(seconds: float) -> None:
        import time

        time.sleep(seconds)

    def same(value: Any) -> Any:
        return value

    def crash() -> None:
        import os

        os._exit(7)

    return {function.__name__: function for function in (double, boom, nap, same, crash)}


MADE = made()
