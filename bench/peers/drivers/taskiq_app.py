"""The Taskiq broker that client and workers import."""

from __future__ import annotations

import os

from taskiq.serializers import ORJSONSerializer
from taskiq_redis import ListQueueBroker, RedisAsyncResultBackend, RedisStreamBroker

from bench.peers.drivers.work import FUNCTIONS

URL = os.environ["BENCH_BROKER"]
SETTING = os.environ["BENCH_SETTING"]

kind = RedisStreamBroker if SETTING == "acks" else ListQueueBroker
broker = kind(URL).with_result_backend(RedisAsyncResultBackend(URL))
if SETTING != "default":
    broker = broker.with_serializer(ORJSONSerializer())

TASKS = {name: broker.task(task_name=name)(function) for name, function in FUNCTIONS.items()}
