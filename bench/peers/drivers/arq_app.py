"""The settings of arq's workers. Its functions are coroutines; these block, so that a process runs one at a time."""

from __future__ import annotations

import os
from typing import Any

from arq.connections import RedisSettings

from bench.peers.drivers import work


async def noop(_context: dict[str, Any]) -> int:
    return work.noop()


async def sleep(_context: dict[str, Any], wait_s: float) -> int:
    return work.sleep(wait_s)


async def spin(_context: dict[str, Any], cpu_s: float) -> int:
    return work.spin(cpu_s)


async def echo(_context: dict[str, Any], blob: bytes) -> bytes:
    return work.echo(blob)


class WorkerSettings:
    functions = (noop, sleep, spin, echo)
    redis_settings = RedisSettings.from_dsn(os.environ["BENCH_BROKER"])
    poll_delay = 0.5 if os.environ["BENCH_SETTING"] == "default" else 0.005
