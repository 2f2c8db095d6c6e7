"""Runs in a peer's environment: `python -m bench.peers.host DRIVER SETTING FOLDER BROKER_BINARY FD`.

Reads one JSON object a line from its standard input (`{"do": "noop", "count": 1000}`), does that, and writes one to
file descriptor FD: `{"seconds": 0.7}`, with `latencies_s` for round trips, or `{"error": "…"}`. Results are checked: a
system that is fast because it returns something else has failed.
"""

from __future__ import annotations

import json
import os
import random
import sys
import time
import traceback
from pathlib import Path
from typing import Any

from bench.peers import broker
from bench.peers.catalog import load
from bench.peers.drivers.base import Driver, Place

ROUNDTRIPS_MIN = 20  # of a slow one, when its time is over
ERROR_CHARACTERS_MAX = 400


class Host:
    def __init__(self, driver: str, setting: str, place: Place, binary: str) -> None:
        self._name, self._setting, self._place, self._binary = driver, setting, place, binary
        self._driver: Driver | None = None

    def start(self) -> dict[str, Any]:
        """From nothing to the first result in hand: broker, workers, and importing the client's library."""
        began = time.perf_counter()
        kind = load(self._name)
        if kind.broker:
            broker.start(self._binary, self._place)
        # The peers' worker programs import a module by its name, so this is how that module learns of it.
        os.environ |= {"BENCH_BROKER": self._place.broker_url, "BENCH_SETTING": self._setting}
        self._driver = kind(self._setting, self._place)
        self._driver.start()
        check([self._driver.roundtrip()], [1])
        return {"seconds": time.perf_counter() - began}

    def noop(self, count: int) -> dict[str, Any]:
        began = time.perf_counter()
        results = self.driver.noop(count)
        seconds = time.perf_counter() - began
        check(results, [1] * count)
        return {"seconds": seconds}

    def roundtrip(self, count: int, limit_s: float) -> dict[str, Any]:
        latencies: list[float] = []
        until = time.perf_counter() + limit_s
        while len(latencies) < count and (time.perf_counter() < until or len(latencies) < ROUNDTRIPS_MIN):
            began = time.perf_counter()
            result = self.driver.roundtrip()
            latencies.append(time.perf_counter() - began)
            check([result], [1])
        return {"seconds": sum(latencies), "latencies_s": [round(one, 6) for one in latencies]}

    def sleeps(self, count: int, wait_s: float) -> dict[str, Any]:
        began = time.perf_counter()
        results = self.driver.sleeps(count, wait_s)
        seconds = time.perf_counter() - began
        check(results, [1] * count)
        return {"seconds": seconds}

    def cpu(self, count: int, cpu_s: float) -> dict[str, Any]:
        began = time.perf_counter()
        results = self.driver.cpu(count, cpu_s)
        seconds = time.perf_counter() - began
        check(results, [1] * count)
        return {"seconds": seconds}

    def echo(self, count: int, size: int) -> dict[str, Any]:
        """Echo different arguments, so that nobody sends one of them twice."""
        noise = random.Random(4).randbytes(size)
        blobs = [number.to_bytes(8, "big") + noise[8:] for number in range(count)]
        began = time.perf_counter()
        results = self.driver.echo(blobs)
        seconds = time.perf_counter() - began
        check(results, blobs)
        return {"seconds": seconds}

    def stop(self) -> dict[str, Any]:
        self.driver.stop()
        self._place.stop()
        return {}

    @property
    def driver(self) -> Driver:
        if self._driver is None:
            raise RuntimeError("it was not started")
        return self._driver


def check(results: list[Any], expected: list[Any]) -> None:
    """Raise ValueError unless the results are those."""
    if results != expected:
        wrong = next((f"{one!r:.60}" for one, right in zip(results, expected, strict=False) if one != right), "")
        raise ValueError(f"wrong results: {len(results)} of {len(expected)}; {wrong}")


def main() -> None:
    driver, setting, folder, binary, answers = sys.argv[1:]
    os.set_inheritable(int(answers), False)
    host = Host(driver, setting, Place(Path(folder)), binary)
    for line in sys.stdin:
        step = json.loads(line)
        try:
            answer = getattr(host, step.pop("do"))(**step)
        except Exception as error:
            traceback.print_exc()
            answer = {"error": f"{type(error).__name__}: {error}"[:ERROR_CHARACTERS_MAX]}
        os.write(int(answers), json.dumps(answer).encode() + b"\n")


if __name__ == "__main__":
    main()
