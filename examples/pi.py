"""π by throwing darts: many tasks submitted in one request, their results fetched as they end.

    pip install requests dill
    python examples/pi.py [URL]

The address is the first argument, or EVERFAAS_URL, or http://127.0.0.1:8000. Each task has a seed of its own, so the
answer is the same every time, whatever runs where.
"""

from __future__ import annotations

import codecs
import math
import os
import sys
from typing import Any

import dill
import requests

URL = sys.argv[1] if len(sys.argv) > 1 else os.environ.get("EVERFAAS_URL", "http://127.0.0.1:8000")
TASKS = 40
DARTS = 50_000  # of each task
WAIT_S = 30.0


def pack(thing: object) -> str:
    return codecs.encode(dill.dumps(thing), "base64").decode()


def unpack(text: str) -> Any:
    return dill.loads(codecs.decode(text.encode(), "base64"))


def post(path: str, **body: object) -> Any:
    try:
        answer = requests.post(f"{URL}{path}", json=body, timeout=WAIT_S + 30)
    except requests.ConnectionError:
        sys.exit(f"nobody answers at {URL}: start a system with `everfaas up`, or name another address")
    if not answer.ok:
        sys.exit(f"{path}: {answer.json()['detail']}")
    return answer.json()


def hits(seed: int, darts: int) -> int:
    """Return how many of so many darts, thrown at the unit square, hit the quarter of a circle in it."""
    import random  # inside: what a function needs has to travel with it

    dice = random.Random(seed)
    return sum(dice.random() ** 2 + dice.random() ** 2 <= 1 for _ in range(darts))


def main() -> None:
    python = f"{sys.version_info.major}.{sys.version_info.minor}"  # another version is refused, not run
    function_id = post("/v1/functions", name="hits", payload=pack(hits), python=python)["function_id"]
    calls = [{"function_id": function_id, "payload": pack(((seed, DARTS), {}))} for seed in range(TASKS)]
    waiting = set(post("/v1/tasks:batch", tasks=calls)["task_ids"])

    inside = 0
    while waiting:
        news = post("/v1/tasks:wait", task_ids=sorted(waiting), wait_s=WAIT_S)
        for task in news["ended"]:
            result = unpack(task["result"])
            if task["status"] != "COMPLETED":
                raise result
            inside += result
            waiting.discard(task["task_id"])
        print(f"{TASKS - len(waiting)} of {TASKS} tasks", file=sys.stderr)

    estimate = 4 * inside / (TASKS * DARTS)
    print(f"pi is about {estimate:.4f} ({abs(estimate - math.pi) / math.pi:.2%} off, {TASKS * DARTS:,} darts)")


if __name__ == "__main__":
    main()
