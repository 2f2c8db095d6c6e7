"""Does something bad to a house, at least once a second, and makes it good again a little later. Seeded."""

from __future__ import annotations

import contextlib
import heapq
import itertools
import random
import time
from collections import Counter
from collections.abc import Callable
from typing import Any, Final

import psutil

from .house import House, Role

PAUSE_S: Final = (0.3, 0.95)  # between two faults
STORE_KILLS_EVERY_S: Final = 8.0  # its role gives up after five restarts in half a minute
FREEZE_S: Final = (0.1, 6.0)
LOOK_S: Final = 0.1

REPERTOIRE: Final = {
    "kill slot": 4.0,
    "kill worker": 2.5,
    "kill worker's tree": 1.5,
    "kill nursery": 1.0,
    "kill dispatcher": 2.5,
    "kill api": 1.5,
    "kill store": 0.4,
    "kill store's server": 0.4,
    "freeze worker": 2.0,
    "freeze worker's tree": 1.5,
    "freeze dispatcher": 1.5,
    "freeze api": 1.0,
    "freeze store's server": 0.7,
    "freeze slot": 1.0,
    "line delay": 2.0,
    "line drop": 3.0,
    "line reset": 3.0,
    "line refuse": 1.5,
    "line loses answers": 2.0,
    "line throttle": 1.0,
}
"""Faults, and how often each is drawn in relation to the others."""


class Monkey:
    """Draws faults. Also what a service manager would be: it starts again whoever has ended by itself."""

    def __init__(self, house: House, seed: int, repertoire: dict[str, float] | None = None) -> None:
        self.house = house
        self.counts: Counter[str] = Counter()
        self.ended: list[str] = []  # roles that ended though nobody had killed them
        self._random = random.Random(seed)
        self._repertoire = repertoire or REPERTOIRE
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._ids = itertools.count()
        self._down: set[str] = set()  # roles and lines that something is wrong with
        self._store_killed = float("-inf")

    def run(self, seconds: float, go_on: Callable[[], bool] = lambda: True) -> None:
        """Do bad things for so long, or while `go_on`; then make all good again."""
        until = time.monotonic() + seconds
        fault_at = time.monotonic()
        while (now := time.monotonic()) < until and go_on():
            self._undo(now)
            self._look_after()
            if now >= fault_at:
                fault_at = now + self._random.uniform(*PAUSE_S)
                self._fault()
            next_at = min([fault_at, *(at for at, _, _ in self._due[:1]), now + LOOK_S])
            time.sleep(max(next_at - time.monotonic(), 0.0))
        self._undo(float("inf"))
        self.house.heal()

    def _later(self, seconds: float, what: Callable[[], None]) -> None:
        heapq.heappush(self._due, (time.monotonic() + seconds, next(self._ids), what))

    def _undo(self, now: float) -> None:
        while self._due and self._due[0][0] <= now:
            heapq.heappop(self._due)[2]()

    def _look_after(self) -> None:
        for role in self.house.roles:
            if role.name not in self._down and not role.alive:
                self.ended.append(f"{role.name} exited with {role.status}")
                self.house.log.write("ended by itself", role=role.name, status=role.status)
                role.start(wait=False)

    # ── faults ───────────────────────────────────────────────────────────────────────────────────────────────────────

    def _fault(self) -> None:
        """Draw until something can be done."""
        for _ in range(50):
            name = self._random.choices([*self._repertoire], [*self._repertoire.values()])[0]
            with contextlib.suppress(psutil.NoSuchProcess):
                if self._do(name):
                    self.counts[name] += 1
                    return

    def _do(self, name: str) -> bool:
        verb, _, what = name.partition(" ")
        match verb:
            case "kill":
                return self._kill(what)
            case "freeze":
                return self._freeze(what)
        return self._spoil(what)

    def _well(self, kind: str) -> Role | None:
        roles = [role for role in self.house.roles if role.kind == kind and role.name not in self._down and role.alive]
        return self._random.choice(roles) if roles else None

    def _kill(self, what: str) -> bool:
        if what in ("slot", "nursery"):
            return self._signal_below(what, kill=True)
        if what.startswith("store"):
            return self._kill_store(whole=what == "store")
        role = self._well(what.removesuffix("'s tree"))
        if role is None:
            return False
        role.kill(tree=what.endswith("tree"))
        self._start_later(role, self._random.uniform(0.05, 3.0 if role.kind == "dispatcher" else 1.5))
        return True

    def _kill_store(self, *, whole: bool) -> bool:
        role, now = self._well("store"), time.monotonic()
        server = self.house.server() if role is not None else None
        if role is None or server is None or now - self._store_killed < STORE_KILLS_EVERY_S:
            return False
        self._store_killed = now
        if whole:
            role.kill(tree=True)
            self._start_later(role, self._random.uniform(0.05, 1.0))
        else:
            self.house.log.write("kill", role="store's server", pids=[server.pid])
            server.kill()
        return True

    def _start_later(self, role: Role, seconds: float) -> None:
        self._down.add(role.name)

        def start() -> None:
            role.start(wait=False)
            self._down.discard(role.name)

        self._later(seconds, start)

    def _freeze(self, what: str) -> bool:
        if what == "slot":
            return self._signal_below(what, kill=False)
        if what.startswith("store"):
            return self._freeze_server()
        role = self._well(what.removesuffix("'s tree"))
        if role is None:
            return False
        role.freeze(tree=what.endswith("tree"))
        self._down.add(role.name)

        def thaw() -> None:
            role.thaw()
            self._down.discard(role.name)

        self._later(self._random.uniform(*FREEZE_S), thaw)
        return True

    def _freeze_server(self) -> bool:
        role = self._well("store")
        server = self.house.server() if role is not None else None
        if role is None or server is None:
            return False
        self._stop_for_a_while("store", server, role.name)
        return True

    def _signal_below(self, what: str, *, kill: bool) -> bool:
        """Do something to a slot or a nursery of a worker."""
        role = self._well("worker")
        if role is None:
            return False
        below = psutil.Process(role.pid).children() if what == "nursery" else role.slots()
        if not below:
            return False
        victim = self._random.choice(below)
        if kill:
            self.house.log.write("kill", role=f"{what} of {role.name}", pids=[victim.pid])
            victim.kill()
        else:
            self._stop_for_a_while("slot", victim, role.name)
        return True

    def _stop_for_a_while(self, kind: str, victim: psutil.Process, role_name: str) -> None:
        victim.suspend()
        self._down.add(role_name)
        self.house.log.write("freeze", role=kind, pids=[victim.pid])

        def thaw() -> None:
            with contextlib.suppress(psutil.NoSuchProcess):
                victim.resume()
            self.house.log.write("thaw", role=kind, pids=[victim.pid])
            self._down.discard(role_name)

        self._later(self._random.uniform(*FREEZE_S), thaw)

    def _spoil(self, what: str) -> bool:
        """Let a line between two roles misbehave."""
        lines = [line for line in self.house.proxies if line not in self._down]
        if not lines:
            return False
        line = self._random.choice(lines)
        if what == "reset":
            self.house.log.write("line", line=line, fault=what)
            self.house.proxies[line].reset()
            return True
        faults, seconds = self._spoiled(what)
        self.house.log.write("line", line=line, fault=what, seconds=seconds)
        self.house.proxies[line].set(**faults)
        self._down.add(line)

        def heal() -> None:
            self.house.proxies[line].heal()
            self.house.log.write("line", line=line, fault="healed")
            self._down.discard(line)

        self._later(seconds, heal)
        return True

    def _spoiled(self, what: str) -> tuple[dict[str, Any], float]:
        draw = self._random.uniform
        match what:
            case "delay":
                return {"delay_s": draw(0.005, 0.2), "jitter_s": draw(0.0, 0.1)}, draw(0.5, 5.0)
            case "drop":
                return {"drop": self._random.choice(({"up"}, {"down"}, {"up", "down"}))}, draw(*FREEZE_S)
            case "refuse":
                return {"refuse": True}, draw(0.1, 3.0)
            case "throttle":
                return {"rate_bytes_s": draw(20_000.0, 500_000.0)}, draw(0.5, 4.0)
        return {"lose_answers": True}, draw(0.1, 1.0)
