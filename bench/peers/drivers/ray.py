"""Ray, started by its driver on this machine with four CPUs."""

from __future__ import annotations

import itertools
import os
from collections.abc import Sequence
from typing import Any

from bench.peers.drivers.base import RESULT_TIMEOUT_S, WORKERS, Driver, Setting
from bench.peers.drivers.work import FUNCTIONS


class Ray(Driver):
    title = "Ray"
    requirements = "ray.txt"
    distribution = "ray"
    durability = "nothing stored: in the memory of the driver and the object store"
    settings = (
        Setting(
            "default", "remote functions, num_cpus 4, get() on all", "runs again, up to 3 times, while the driver lives"
        ),
        Setting("best", "4 actors, calls in turn; no dashboard", "runs again (max_restarts, max_task_retries 3)"),
    )

    def start(self) -> None:
        os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
        import ray

        options = {"include_dashboard": False} if self.best else {}
        folder = str(self.place.folder / "ray")
        ray.init(num_cpus=WORKERS, log_to_driver=False, _temp_dir=folder, **options)
        self.ray = ray
        self.functions = {name: ray.remote(function) for name, function in FUNCTIONS.items()}
        if self.best:
            actor = ray.remote(num_cpus=1, max_restarts=3, max_task_retries=3)(_Actor)
            self.actors = itertools.cycle([actor.remote() for _ in range(WORKERS)])

    def _submit(self, function: str, arguments: tuple[Any, ...]) -> Any:
        if self.best:
            return getattr(next(self.actors), function).remote(*arguments)
        return self.functions[function].remote(*arguments)

    def call(self, function: str, *arguments: Any) -> Any:
        return self.ray.get(self._submit(function, arguments), timeout=RESULT_TIMEOUT_S)

    def many(self, function: str, arguments: Sequence[tuple[Any, ...]]) -> list[Any]:
        waiting = [self._submit(function, one) for one in arguments]
        return list(self.ray.get(waiting, timeout=RESULT_TIMEOUT_S))

    def stop(self) -> None:
        self.ray.shutdown()


class _Actor:
    def noop(self) -> Any:
        return FUNCTIONS["noop"]()

    def sleep(self, wait_s: float) -> Any:
        return FUNCTIONS["sleep"](wait_s)

    def spin(self, cpu_s: float) -> Any:
        return FUNCTIONS["spin"](cpu_s)

    def echo(self, blob: bytes) -> Any:
        return FUNCTIONS["echo"](blob)
