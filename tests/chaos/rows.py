"""The rows of the kill matrix: who dies, how, and what is measured. One function a row, one call a kill.

Each returns the seconds until everything affected ran again or had ended, and what else was wrong.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import psutil

from .client import MIX, MIX_VERY_LONG
from .house import JOIN_S, Role
from .scene import LOOK_S, RECOVER_S, Scene


@dataclass
class Kill:
    """What one kill cost. `measured_s` is None where nothing was affected."""

    measured_s: float | None
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Row:
    """`bound_s` None: no bound is promised, only the outcome."""

    name: str
    title: str
    bound_s: float | None
    once: Callable[[Scene, random.Random], Kill]
    house: Mapping[str, Any] = field(default_factory=dict)
    since: str = "the kill"
    mix: dict[str, int] = field(default_factory=lambda: MIX_VERY_LONG)


def _worst(took: Mapping[int, float]) -> Kill:
    never = sorted(number for number, seconds in took.items() if seconds == float("inf"))
    problems = [f"tasks {never} neither ran again nor ended within {RECOVER_S:g} s"] if never else []
    return Kill(max(took.values(), default=None), problems)


def _await(check: Callable[[], bool], seconds: float) -> float | None:
    """Return how long it took until `check` was true, or None."""
    began = time.monotonic()
    while not check():
        if time.monotonic() - began > seconds:
            return None
        time.sleep(LOOK_S)
    return time.monotonic() - began


# ── slots ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def busy_slot(scene: Scene, rng: random.Random) -> Kill:
    """A slot that executes something dies; its neighbours must not notice."""
    worker = rng.choice(scene.house.workers)
    pids = scene.slot_pids(worker)
    victim = rng.choice([*scene.await_busy(lambda: pids).values()])
    living = {pid for one in scene.house.workers for pid in scene.slot_pids(one)} - {victim["pid"]}
    others = {one["execution"]: one for one in scene.executing(living).values()}
    killed = scene.house.log.write("kill", role=f"slot of {worker.name}", pids=[victim["pid"]])
    try:
        psutil.Process(victim["pid"]).kill()
    except psutil.NoSuchProcess:
        return Kill(None, [f"slot {victim['pid']} was gone already"])
    kill = _worst(scene.recovery_s([victim["number"]], killed))
    replaced_s = _await(lambda: len(scene.slot_pids(worker)) == len(pids), 5.0)
    if replaced_s is None:
        kill.problems.append("the slot was not replaced")
    kill.problems += _disturbed(scene, others)
    return kill


def _disturbed(scene: Scene, others: Mapping[str, Mapping[str, Any]]) -> list[str]:
    ended = {event["execution"] for event in scene.journal.read() if event["do"] == "end"}
    return [
        f"execution {execution} in process {one['pid']} was disturbed"
        for execution, one in others.items()
        if execution not in ended and not psutil.pid_exists(one["pid"])
    ]


def idle_slot(scene: Scene, rng: random.Random) -> Kill:
    """A slot that waits dies. Nothing is affected, unless the pool wedges: measured until it is replaced."""
    worker = rng.choice(scene.house.workers)
    pids = scene.slot_pids(worker)
    idle = [pid for pid in pids if pid not in {event["pid"] for event in scene.executing().values()}]
    if not idle:
        return Kill(None, [], ["no slot was idle"])
    victim = rng.choice(idle)
    killed = scene.house.log.write("kill", role=f"idle slot of {worker.name}", pids=[victim])
    psutil.Process(victim).kill()
    replaced_s = _await(lambda: len(set(scene.slot_pids(worker)) - {victim}) == len(pids), 10.0)
    seconds = float("inf") if replaced_s is None else time.monotonic() - killed
    kill = Kill(seconds, ["the slot was not replaced"] if replaced_s is None else [])
    kill.problems += _worst(scene.recovery_s(scene.unfinished(killed), killed)).problems
    return kill


# ── workers ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def worker(scene: Scene, rng: random.Random) -> Kill:
    """A worker dies with its nursery and slots; a new one is started only when its tasks are well again."""
    victim = rng.choice(scene.house.workers)
    affected = scene.await_busy(lambda: scene.slot_pids(victim))
    affected = scene.executing(scene.slot_pids(victim)) or affected
    killed = victim.kill(tree=True)
    kill = _worst(scene.recovery_s(affected, killed))
    victim.start()
    scene.house.await_slots()
    return kill


def stopped_worker(scene: Scene, rng: random.Random) -> Kill:
    """Only the worker's own process is stopped: its slots go on, and must be dead before their tasks run elsewhere."""
    return _stopped(scene, rng, tree=False)


def frozen_worker(scene: Scene, rng: random.Random) -> Kill:
    """Everything of a worker is stopped, as a machine that hangs."""
    return _stopped(scene, rng, tree=True)


def _stopped(scene: Scene, rng: random.Random, *, tree: bool) -> Kill:
    victim = rng.choice(scene.house.workers)
    affected = scene.await_busy(lambda: scene.slot_pids(victim))
    stopped = victim.freeze(tree=tree)
    kill = _worst(scene.recovery_s(affected, stopped))
    time.sleep(max(stopped + 4.0 - time.monotonic(), 0.0))
    thawed = victim.thaw()
    rejoined_s = _await(lambda: scene.house.listed_slots() == scene.house.slots, JOIN_S)
    if rejoined_s is None:
        kill.problems.append(f"the worker did not come back within {JOIN_S:g} s")
    else:
        kill.notes.append(f"back after {time.monotonic() - thawed:.1f} s")
    return kill


def cut_off_worker(scene: Scene, rng: random.Random) -> Kill:
    """Nothing passes between a worker and its dispatcher any more, and nothing is closed: both live."""
    victim = rng.choice(scene.house.workers)
    line = next(name for name in scene.house.proxies if name.startswith(victim.name))
    affected = scene.await_busy(lambda: scene.slot_pids(victim))
    cut = scene.house.log.write("line", line=line, fault="drop")
    scene.house.proxies[line].set(drop={"up", "down"})
    kill = _worst(scene.recovery_s(affected, cut))
    time.sleep(max(cut + 6.0 - time.monotonic(), 0.0))
    scene.house.proxies[line].heal()
    rejoined_s = _await(lambda: scene.house.listed_slots() == scene.house.slots, JOIN_S)
    if rejoined_s is None:
        kill.problems.append(f"the worker did not come back within {JOIN_S:g} s")
    else:
        kill.notes.append(f"back after {rejoined_s:.1f} s")
    return kill


# ── dispatchers ──────────────────────────────────────────────────────────────────────────────────────────────────────


def dispatcher(scene: Scene, rng: random.Random) -> Kill:
    """The only dispatcher dies and is started again on its port; its workers survive and nothing runs twice."""
    victim = scene.house.dispatchers[0]
    scene.await_busy(lambda: [pid for one in scene.house.workers for pid in scene.slot_pids(one)])
    time.sleep(rng.uniform(0.0, 0.3))
    running = scene.executing()
    killed = victim.kill()
    ready = victim.start()
    kill = _worst(scene.recovery_s(scene.unfinished(killed), killed, ready))
    again = {event["number"] for event in scene.journal.read() if event["at"] > killed and event["do"] == "begin"}
    kill.problems += [f"task {number} ran twice" for number in sorted(again & running.keys())]
    joined_s = _await(lambda: scene.house.listed_slots() == scene.house.slots, JOIN_S)
    kill.notes.append(f"ready {ready - killed:.1f} s after the kill; joined: {joined_s}")
    return kill


def local_dispatcher(scene: Scene, rng: random.Random) -> Kill:
    """A dispatcher dies with its own slots: what ran must run again."""
    victim = scene.house.dispatchers[0]
    scene.await_busy(lambda: scene.slot_pids(victim))
    slots = victim.slots()
    killed = victim.kill()
    ready = victim.start()
    kill = _worst(scene.recovery_s(scene.unfinished(killed), killed, ready))
    left = [slot.pid for slot in slots if slot.is_running() and slot.status() != psutil.STATUS_ZOMBIE]
    kill.problems += [f"slots {left} outlived their dispatcher"] if left else []
    return kill


def one_of_two(scene: Scene, rng: random.Random) -> Kill:
    """One of two dispatchers dies and stays dead: the other takes over what it had, workers included."""
    victim = rng.choice(scene.house.dispatchers)
    mine = scene.house.workers_of(victim) or [victim]  # a local one has slots itself
    scene.await_busy(lambda: [pid for one in mine for pid in scene.slot_pids(one)])
    running = scene.executing()
    killed = victim.kill()
    kill = _worst(scene.recovery_s(scene.unfinished(killed), killed))
    again = {event["number"] for event in scene.journal.read() if event["at"] > killed and event["do"] == "begin"}
    if twice := sorted(again & running.keys()):
        kill.notes.append(f"tasks {twice} ran twice")
    victim.start()
    scene.house.await_slots()
    return kill


def stopped_one_of_two(scene: Scene, rng: random.Random) -> Kill:
    """One of two dispatchers hangs for longer than its lease: the other takes over, and it is harmless afterwards."""
    victim = rng.choice(scene.house.dispatchers)
    mine = scene.house.workers_of(victim) or [victim]  # a local one has slots itself
    scene.await_busy(lambda: [pid for one in mine for pid in scene.slot_pids(one)])
    stopped = victim.freeze(tree=False)
    kill = _worst(scene.recovery_s(scene.unfinished(stopped), stopped))
    time.sleep(max(stopped + 7.0 - time.monotonic(), 0.0))
    victim.thaw()
    scene.house.await_slots()
    time.sleep(4.0)  # until its lease is stored again, and the workers have heard of it
    return kill


# ── API and store ────────────────────────────────────────────────────────────────────────────────────────────────────


def api(scene: Scene, rng: random.Random) -> Kill:
    """The only API process dies and is started again on its port. Measured until a client has an answer again."""
    victim: Role = scene.house.apis[0]
    killed = victim.kill()
    affected = scene.unfinished(killed)
    ready = victim.start()

    def answered() -> bool:
        return any(at > ready and said in ("200", "201") for at, said in scene.load.log.answers[-50:])

    waited_s = _await(answered, RECOVER_S)
    kill = _worst(scene.recovery_s(affected, killed, ready))
    kill.measured_s = float("inf") if waited_s is None else waited_s
    return kill


def store_server(scene: Scene, rng: random.Random) -> Kill:
    """The store's server dies, and the role that looks after it starts it again with its AOF."""
    server = scene.house.server()
    assert server is not None
    killed = scene.house.log.write("kill", role="store server", pids=[server.pid])
    server.kill()
    return _store_back(scene, killed, rng)


def store_role(scene: Scene, rng: random.Random) -> Kill:
    """The whole store role dies, and is started again with its AOF."""
    killed = scene.house.store.kill(tree=True)
    time.sleep(rng.uniform(0.0, 1.0))
    scene.house.store.start()
    return _store_back(scene, killed, rng)


def _store_back(scene: Scene, killed: float, rng: random.Random) -> Kill:
    affected = scene.unfinished(killed)
    if _await(scene.house.store_answers, RECOVER_S) is None:
        return Kill(float("inf"), ["the store did not come back"])
    answers = time.monotonic()
    kill = _worst(scene.recovery_s(affected, killed, answers))
    kill.notes.append(f"down for {answers - killed:.1f} s")
    time.sleep(max(killed + 6.5 - time.monotonic(), 0.0))  # its role restarts it five times in half a minute, no more
    return kill


SINGLE: Final = {"modes": ("pull",)}
SPARE: Final = {
    "modes": ("pull",),
    "workers": 3,
}  # so that those who are left have slots free for what another has lost
LOCAL_PAIR: Final = {"modes": ("local", "local"), "slots": 6}
ROWS: Final = (
    Row("busy-slot", "a busy slot", 0.1, busy_slot, SINGLE, mix=MIX),
    Row("idle-slot", "an idle slot", 0.1, idle_slot, SINGLE, mix=MIX),
    Row("worker", "a worker (whole process tree)", 3.0, worker, SPARE),
    Row("worker-stopped", "a worker, SIGSTOPped (its own process)", 5.0, stopped_worker, SPARE),
    Row("worker-frozen", "a worker, SIGSTOPped (whole process tree)", 5.0, frozen_worker, SPARE),
    Row("worker-cut-off", "a worker's line (packets dropped)", 5.0, cut_off_worker, SPARE | {"proxies": True}),
    Row("dispatcher-pull", "the dispatcher, pull", 3.0, dispatcher, SINGLE, "ready"),
    Row("dispatcher-push", "the dispatcher, push", 3.0, dispatcher, {"modes": ("push",)}, "ready"),
    Row("dispatcher-local", "the dispatcher, local", 3.0, local_dispatcher, {"modes": ("local",), "slots": 8}, "ready"),
    Row("one-of-two", "one of two dispatchers", 5.0, one_of_two, {"modes": ("pull", "pull"), "slots": 3}),
    Row(
        "one-of-two-stopped",
        "one of two dispatchers, SIGSTOPped",
        5.0,
        stopped_one_of_two,
        {"modes": ("pull", "pull"), "slots": 3},
    ),
    Row("one-of-two-local", "one of two local dispatchers", 5.0, one_of_two, LOCAL_PAIR),
    Row("one-of-two-local-stopped", "one of two local dispatchers, SIGSTOPped", 5.0, stopped_one_of_two, LOCAL_PAIR),
    Row("api", "the API", None, api, SINGLE, "ready"),
    Row("store", "the store's server (AOF)", None, store_server, SINGLE, "answers"),
    Row("store-role", "the store, all of it (AOF)", None, store_role, SINGLE, "answers"),
)
