"""The Dramatiq broker and actors that client and workers import."""

from __future__ import annotations

import os

import dramatiq
from dramatiq.brokers.redis import RedisBroker
from dramatiq.results import Results
from dramatiq.results.backends import RedisBackend

from bench.peers.drivers.work import FUNCTIONS

URL = os.environ["BENCH_BROKER"]
SETTING = os.environ["BENCH_SETTING"]

if SETTING == "default":
    encoder: dramatiq.Encoder = dramatiq.JSONEncoder()
    broker = RedisBroker(url=URL)
else:
    encoder = dramatiq.PickleEncoder()
    broker = RedisBroker(url=URL, middleware=[dramatiq.middleware.Retries()])
dramatiq.set_encoder(encoder)
broker.add_middleware(Results(backend=RedisBackend(url=URL, encoder=encoder)))
dramatiq.set_broker(broker)

ACTORS = {name: dramatiq.actor(function, store_results=True) for name, function in FUNCTIONS.items()}
