"""A parameter sweep: one task for each combination, printed as a table. What raises comes back as its own exception.

    pip install requests dill
    python examples/sweep.py [URL]

The address is the first argument, or EVERFAAS_URL, or http://127.0.0.1:8000. The function simulates an epidemic day by
day; the table shows the largest share of people who are ill at once, by infections a day and days of illness.
"""

from __future__ import annotations

import codecs
import os
import sys
from itertools import product
from typing import Any

import dill
import requests

URL = sys.argv[1] if len(sys.argv) > 1 else os.environ.get("EVERFAAS_URL", "http://127.0.0.1:8000")
INFECTIONS_A_DAY = (0.1, 0.2, 0.4, 0.8)
DAYS_ILL = (0, 2, 5, 10)  # zero days make no sense: the function says so, and the sweep goes on
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


def peak(infections_a_day: float, days_ill: int) -> float:
    """Return the largest share of the people that is ill at once, within a year."""
    if days_ill <= 0:
        raise ValueError("an illness lasts at least a day")
    healthy, ill, most = 0.999, 0.001, 0.0
    for _ in range(365):
        new = min(infections_a_day * healthy * ill, healthy)
        healthy, ill = healthy - new, ill + new - ill / days_ill
        most = max(most, ill)
    return most


def run_all(combinations: list[tuple[float, int]]) -> dict[tuple[float, int], Any]:
    """Return a value or an exception for each combination."""
    python = f"{sys.version_info.major}.{sys.version_info.minor}"  # another version is refused, not run
    function_id = post("/v1/functions", name="peak", payload=pack(peak), python=python)["function_id"]
    calls = [{"function_id": function_id, "payload": pack((one, {})), "group": "sweep"} for one in combinations]
    waiting = dict(zip(post("/v1/tasks:batch", tasks=calls)["task_ids"], combinations, strict=True))
    results = {}
    while waiting:
        for task in post("/v1/tasks:wait", task_ids=list(waiting), wait_s=WAIT_S)["ended"]:
            results[waiting.pop(task["task_id"])] = unpack(task["result"])
    return results


def main() -> None:
    results = run_all(list(product(INFECTIONS_A_DAY, DAYS_ILL)))
    print("infections a day " + "".join(f"{f'{days} days ill':>14}" for days in DAYS_ILL))
    for rate in INFECTIONS_A_DAY:
        cells = [results[rate, days] for days in DAYS_ILL]
        shown = [type(cell).__name__ if isinstance(cell, Exception) else f"{cell:.1%}" for cell in cells]
        print(f"{rate:<17}" + "".join(f"{text:>14}" for text in shown))
    values = {where: value for where, value in results.items() if not isinstance(value, Exception)}
    worst = max(values, key=values.__getitem__)
    where = f"{worst[0]:g} infections a day and {worst[1]} days"
    print(f"worst: {values[worst]:.1%} ill at once, at {where} ({len(results) - len(values)} combinations failed)")


if __name__ == "__main__":
    main()
