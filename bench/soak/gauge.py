"""What a running system uses: the store's keys and data, and each process's memory."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import psutil
import redis

LOOK_S = 0.2


@dataclass(frozen=True)
class Sample:
    """At one instant. `pss_bytes` is by process: its role, and its number among those of the same role."""

    name: str
    keys: int
    store_bytes: int
    pss_bytes: dict[str, int]

    def __str__(self) -> str:
        memory = ", ".join(f"{name} {size / 1e6:.1f}" for name, size in self.pss_bytes.items())
        return f"{self.name}: {self.keys:,} keys, {self.store_bytes / 1e6:.1f} MB of data; MB: {memory}"

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


class Gauge:
    """Looks at the children of this process, and into the embedded store of a data directory."""

    def __init__(self, data: Path) -> None:
        self._redis = redis.Redis(unix_socket_path=str(data / "valkey.sock"))
        self._names: dict[int, str] = {}

    def __enter__(self) -> Gauge:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._redis.close()

    def keys(self) -> int:
        """Return how many keys there are."""
        return int(self._redis.dbsize())  # type: ignore[arg-type] # redis-py's types allow for its async client

    def await_keys(self, most: int, seconds: float) -> None:
        """Wait until the store has no more keys than that, or for so long."""
        until = time.monotonic() + seconds
        while self.keys() > most and time.monotonic() < until:
            time.sleep(LOOK_S)

    def take(self, name: str) -> Sample:
        """Measure everything once."""
        memory: dict[str, int] = {}
        for process in psutil.Process().children(recursive=True):
            try:
                memory[self._name(process)] = process.memory_full_info().pss
            except (psutil.NoSuchProcess, psutil.AccessDenied):
                continue
        info: Any = self._redis.info("memory")
        return Sample(name, self.keys(), int(info["used_memory"]), memory)

    def _name(self, process: psutil.Process) -> str:
        if process.pid not in self._names:
            title = role_of(process)
            number = sum(name.rpartition(" ")[0] == title for name in self._names.values())
            self._names[process.pid] = f"{title} {number + 1}"
        return self._names[process.pid]


def role_of(process: psutil.Process) -> str:
    """Tell from a command line what a process is for."""
    words = process.cmdline()
    if any("valkey" in word for word in words[:1]):
        return "store"
    if words[:1] == ["everfaas"]:  # forked by `everfaas up`
        return words[1]
    if "everfaas_core.cli" in words:
        at = words.index("everfaas_core.cli")
        return words[at + 1] if at + 1 < len(words) else "everfaas"
    return "slot or nursery" if words else "?"
