"""A house under load, and what can be measured of it when something dies: from the journal and from the clients."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Final

from .client import Load
from .history import Event, History, Verdict, check
from .house import House, Role, housed

RECOVER_S: Final = 45.0  # after so long without recovery a kill counts as never recovered
SETTLE_S: Final = 60.0
LOOK_S: Final = 0.005


class Journal:
    """Follows the functions' journal while it grows."""

    def __init__(self, path: Path) -> None:
        self._path, self._offset, self._rest = path, 0, b""
        self.events: list[Event] = []

    def read(self) -> list[Event]:
        """Take in what is new; return everything."""
        if self._path.exists():
            with self._path.open("rb") as file:
                file.seek(self._offset)
                data = file.read()
            self._offset += len(data)
            *lines, self._rest = (self._rest + data).split(b"\n")
            self.events += [json.loads(line) for line in lines]
        return self.events


class Scene:
    """A house, its load, and the means to tell when what a kill has affected is well again."""

    def __init__(self, house: House, load: Load) -> None:
        self.house, self.load = house, load
        self.journal = Journal(load.folder / "functions.jsonl")

    def executing(self, pids: Iterable[int] | None = None) -> dict[int, Event]:
        """Return the executions that have begun and not ended, in these processes: number → begin."""
        among = None if pids is None else set(pids)
        live: dict[str, Event] = {}
        for event in self.journal.read():
            if event["do"] == "begin":
                live[event["execution"]] = event
            elif event["do"] == "end":
                live.pop(event["execution"], None)
        return {event["number"]: event for event in live.values() if among is None or event["pid"] in among}

    def unfinished(self, at: float) -> set[int]:
        """Return the tasks that were accepted by `at` and not seen to end by then."""
        accepted, ended = dict(self.load.log.accepted_at), self.load.log.ended_at
        return {number for number, when in accepted.items() if when <= at and ended.get(number, at + 1) > at}

    def recovery_s(self, numbers: Iterable[int], killed: float, since: float | None = None) -> dict[int, float]:
        """Wait until each task runs again or has ended; return for each how long that took from `since` (or the kill).

        What was not interrupted counts from its own end on: it must be seen to have ended. inf: not in RECOVER_S.
        """
        start = killed if since is None else since
        left, took = set(numbers), dict[int, float]()
        until = time.monotonic() + RECOVER_S
        while left and time.monotonic() < until:
            events = [event for event in self.journal.read() if event["at"] > killed]
            begun: dict[int, float] = {}
            ended: dict[int, float] = {}
            for event in events:
                if event["do"] == "begin":
                    begun.setdefault(event["number"], event["at"])
                elif event["do"] == "end":
                    ended[event["number"]] = event["at"]
            for number in list(left):
                seen = self.load.log.ended_at.get(number)
                if number in begun:
                    took[number] = max(begun[number] - start, 0.0)
                elif seen is not None:
                    took[number] = max(seen - max(start, ended.get(number, start)), 0.0)
                left -= took.keys()
            time.sleep(LOOK_S)
        return took | dict.fromkeys(left, float("inf"))

    def await_busy(self, pids: Callable[[], Iterable[int]], *, seconds: float = 20.0) -> dict[int, Event]:
        """Wait until one of these processes executes something that will not end at once; return what they execute."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            found = self.executing(pids())
            if any(time.monotonic() - event["at"] > 0.01 for event in found.values()):
                return found
            time.sleep(LOOK_S)
        raise AssertionError(f"nothing was executed for {seconds} s\n{self.house.logs()}")

    def slot_pids(self, role: Role) -> list[int]:
        """Return the slots of a role; none while it is dead."""
        return [slot.pid for slot in role.slots()] if role.alive else []


@contextlib.contextmanager
def staged(
    home: Path, *, rate: float = 12.0, seed: int = 1, mix: dict[str, int] | None = None, **options: Any
) -> Iterator[tuple[Scene, list[Verdict]]]:
    """Run a house under load. At the end all is healed and settled, and the verdict of the checker appended."""
    verdicts: list[Verdict] = []
    with housed(home, **options) as house:
        load = Load(house.urls, home, rate=rate, seed=seed, mix=mix)
        load.begin()
        try:
            time.sleep(1.0)
            yield Scene(house, load), verdicts
            house.heal()
        finally:
            settled = load.finish(SETTLE_S)
        verdicts.append(check(History.read(home)))
        if not settled:
            (home / "unsettled").write_text(house.logs())
