"""The interface of a driver: how the benchmark starts a system, gives it work, and stops it.

A driver is imported twice: by the benchmark, for what it says of itself (nothing of the peer is imported then), and in
the peer's own environment, where `start` imports the peer. The rule for all: four worker processes that run one task
at a time each; whatever else a setting changes, it says.
"""

from __future__ import annotations

import subprocess
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from bench.peers.processes import die_with_parent

WORKERS = 4
RESULT_TIMEOUT_S = 100  # for one result; the benchmark gives a whole step a little more


@dataclass(frozen=True)
class Setting:
    """One way to run a system: `default`, `best` (best-known), or `acks` (best, with acknowledgements on).

    `says` is what was set, for the table. `delivery` is what becomes of a task whose worker dies while it runs.
    """

    name: str
    says: str
    delivery: str


@dataclass
class Place:
    """Where a driver runs: an empty folder of its own, and its broker's URL if it has asked for one."""

    folder: Path
    broker_url: str = ""
    started: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def run(self, *command: str, output: int | None = None) -> subprocess.Popen[bytes]:
        """Start a process of the system, which ends when this one does. Its output goes to a file, or to `output`."""
        with (self.folder / f"{len(self.started)}.log").open("wb") as log:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log if output is None else output,
                stderr=log,
                cwd=self.folder,
                preexec_fn=die_with_parent,
            )
        self.started.append(process)
        return process

    def stop(self) -> None:
        for process in self.started:
            process.terminate()
        for process in self.started:
            process.wait()


class Driver(ABC):
    """One system under one setting. The figures are taken by the caller; a driver only does the work."""

    title: ClassVar[str]
    requirements: ClassVar[str]
    """Name of the file in requirements/; empty for what runs in the benchmark's own environment."""
    distribution: ClassVar[str] = ""
    """Whose version the table shows."""
    durability: ClassVar[str]
    """What is on a disk when a submit returns, and who keeps the queue."""
    settings: ClassVar[tuple[Setting, ...]]
    broker: ClassVar[bool] = False
    """Whether it needs a broker, which is then counted as part of it."""
    scheduler_in_client: ClassVar[bool] = False
    """Whether the client's process is a part of the system that a user cannot do without, and is counted at rest."""

    def __init__(self, setting: str, place: Place) -> None:
        self.setting = setting
        self.place = place
        self.best = setting != "default"

    @abstractmethod
    def start(self) -> None:
        """Start the workers and connect. May return before they are ready: the first task waits for them."""

    @abstractmethod
    def call(self, function: str, *arguments: Any) -> Any:
        """Submit one task and return its result."""

    @abstractmethod
    def many(self, function: str, arguments: Sequence[tuple[Any, ...]]) -> list[Any]:
        """Submit them all and return all results, in order."""

    def stop(self) -> None:
        """Stop what was started. What is left after that is killed."""
        self.place.stop()

    def noop(self, count: int) -> list[Any]:
        return self.many("noop", [()] * count)

    def roundtrip(self) -> Any:
        return self.call("noop")

    def sleeps(self, count: int, wait_s: float) -> list[Any]:
        return self.many("sleep", [(wait_s,)] * count)

    def cpu(self, count: int, cpu_s: float) -> list[Any]:
        return self.many("spin", [(cpu_s,)] * count)

    def echo(self, blobs: Sequence[bytes]) -> list[Any]:
        return self.many("echo", [(blob,) for blob in blobs])
