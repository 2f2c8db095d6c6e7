"""π by throwing darts: many calls of one function on the fleet, the mean of what they return.

    python examples/pi.py [URL]
    everfaas run examples/pi.py::estimate 1000000
    everfaas map examples/pi.py::estimate --over sizes.txt          # a number of darts in each line

The address is the first argument, or EVERFAAS_URL, or http://127.0.0.1:8000. Each call of `main` has a seed of its own,
so the answer is the same every time, whatever runs where.
"""

from __future__ import annotations

import math
import random
import sys

from everfaas_core import ApiUnreachable, Client

CALLS = 40
DARTS = 50_000  # of each call


def estimate(samples: int, seed: int | None = None) -> float:
    """Throw so many darts at the unit square; return π, as the share says that hits the quarter of a circle in it."""
    dice = random.Random(seed)
    hits = sum(dice.random() ** 2 + dice.random() ** 2 <= 1 for _ in range(samples))
    print(f"{hits:,} of {samples:,} darts hit")  # `everfaas run` shows it, `everfaas logs` has it
    return 4 * hits / samples


def main() -> None:
    with Client(sys.argv[1] if len(sys.argv) > 1 else None) as client:
        estimates = list(client.map(estimate, [DARTS] * CALLS, range(CALLS)))  # like the built-in map

    mean = sum(estimates) / CALLS
    print(f"between {min(estimates):.4f} and {max(estimates):.4f}")
    print(f"pi is about {mean:.4f} ({abs(mean - math.pi) / math.pi:.2%} off, {CALLS * DARTS:,} darts)")


if __name__ == "__main__":
    try:
        main()
    except ApiUnreachable as error:  # it says how to start one
        sys.exit(str(error))
