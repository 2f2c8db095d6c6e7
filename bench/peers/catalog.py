"""The systems that are compared, and their order: ours first, then the queues, the frameworks, the floors."""

from __future__ import annotations

import importlib
from dataclasses import dataclass

from bench.peers.drivers.base import Driver, Setting

DRIVERS = {
    "everfaas-local": "everfaas:Local",
    "everfaas-pull": "everfaas:Pull",
    "everfaas-push": "everfaas:Push",
    "celery": "celery:Celery",
    "dramatiq": "dramatiq:Dramatiq",
    "rq": "rq:Rq",
    "huey": "huey:Huey",
    "arq": "arq:Arq",
    "taskiq": "taskiq:Taskiq",
    "dask": "dask:Dask",
    "ray": "ray:Ray",
    "parsl": "parsl:Parsl",
    "pool": "pool:Pool",
    "loky": "loky:Loky",
}
OURS = tuple(name for name in DRIVERS if name.startswith("everfaas-"))
FLOORS = ("pool", "loky")
SETTINGS = ("default", "best", "acks")


@dataclass(frozen=True)
class System:
    """One driver under one setting: a row of the table."""

    name: str
    setting: str

    @property
    def driver(self) -> type[Driver]:
        return load(self.name)

    @property
    def says(self) -> Setting:
        return next(one for one in self.driver.settings if one.name == self.setting)

    def __str__(self) -> str:
        return f"{self.driver.title} · {self.setting}"


def load(name: str) -> type[Driver]:
    """Return a driver's class; nothing of the peer itself is imported."""
    module, _, kind = DRIVERS[name].partition(":")
    found: type[Driver] = getattr(importlib.import_module(f"bench.peers.drivers.{module}"), kind)
    return found


def systems(names: list[str], settings: list[str]) -> list[System]:
    """Return the rows for these drivers and settings; a driver that has no such setting has no such row.

    `everfaas` stands for all of ours. Raises ValueError for a name that is none.
    """
    wanted = [one for name in names for one in (OURS if name == "everfaas" else (name,))]
    unknown = [name for name in wanted if name not in DRIVERS] + [one for one in settings if one not in SETTINGS]
    if unknown:
        raise ValueError(f"{', '.join(unknown)}: choose from everfaas, {', '.join(DRIVERS)}; {', '.join(SETTINGS)}")
    rows = [System(name, one.name) for name in DRIVERS if name in wanted for one in load(name).settings]
    return [row for row in rows if row.setting in settings]
