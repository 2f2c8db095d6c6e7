"""The Python client in each mode: a call, many, one that is cancelled."""

from __future__ import annotations

import concurrent.futures

from everfaas_core import Client, Executor

from .processes import System
from .test_client import eventually, nap, square


def test_calls(system: System) -> None:
    with Client(system.url) as client:
        assert client.submit(square, 12).result(30) == 144
        assert list(client.map(square, range(1_000))) == [n * n for n in range(1_000)]
        running = client.submit(nap, 60)
        eventually(running.running)
        assert running.cancel()


def test_an_executor(system: System) -> None:
    with Executor(system.url) as pool:
        futures = [pool.submit(square, n) for n in range(50)]
        found = {future.result() for future in concurrent.futures.as_completed(futures, 30)}
        assert found == {n * n for n in range(50)}
        assert list(pool.map(square, range(50), chunksize=5)) == [n * n for n in range(50)]
