"""loky: a process pool that survives its workers' crashes; joblib's."""

from __future__ import annotations

from bench.peers.drivers.base import WORKERS
from bench.peers.drivers.pool import Pool


class Loky(Pool):
    title = "loky"
    requirements = "loky.txt"
    distribution = "loky"

    def start(self) -> None:
        from loky import get_reusable_executor

        self.executor = get_reusable_executor(max_workers=WORKERS, timeout=None)
