"""The Celery application that client and worker import."""

from __future__ import annotations

import os

from celery import Celery

from bench.peers.drivers.work import FUNCTIONS

URL = os.environ["BENCH_BROKER"]
SETTING = os.environ["BENCH_SETTING"]

app = Celery("bench", broker=URL, backend=URL)
if SETTING != "default":
    app.conf.update(
        worker_prefetch_multiplier=64,
        task_serializer="msgpack",
        result_serializer="msgpack",
        accept_content=["msgpack"],
        worker_enable_remote_control=False,
    )
if SETTING == "acks":
    app.conf.update(task_acks_late=True, task_reject_on_worker_lost=True)

TASKS = {name: app.task(name=name)(function) for name, function in FUNCTIONS.items()}
