"""Randomness from one seed: a stream of its own for each concern, so that drawing more of one changes no other."""

from __future__ import annotations

import random


def stream(seed: int, concern: str) -> random.Random:
    """Return a generator that depends on the two arguments alone, whatever the hash seed of the process."""
    return random.Random(f"{seed}/{concern}")  # noqa: S311 - a simulation wants repeatable numbers, not secret ones
