"""The Huey instance that client and consumer import."""

from __future__ import annotations

import os

from huey import RedisHuey

from bench.peers.drivers.work import FUNCTIONS

huey = RedisHuey("bench", url=os.environ["BENCH_BROKER"], notify_result=os.environ["BENCH_SETTING"] != "default")

TASKS = {name: huey.task(name=name)(function) for name, function in FUNCTIONS.items()}
