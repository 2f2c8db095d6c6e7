"""Two rows of the kill matrix that need no house under load: a client that dies, and `everfaas up` that dies."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import psutil
import requests

from tests.e2e.processes import ROOT, Process, clean_env

from .client import Caller, Load, Log
from .history import History
from .house import House, free_port
from .rows import Kill

RESULTS_S: Final = 30.0
GONE_S: Final = 10.0


# ── the client ───────────────────────────────────────────────────────────────────────────────────────────────────────


def kill_client(house: House, folder: Path, busy_s: float) -> Kill:
    """A client dies in the middle of everything; another one finds each of its tasks, ended, under its group."""
    folder.mkdir(parents=True)
    before = _connections(house)
    command = [sys.executable, "-m", "tests.chaos.client", house.urls[0], str(folder), "40"]
    client = subprocess.Popen(command, cwd=ROOT, env=clean_env(folder), start_new_session=True)
    try:
        time.sleep(busy_s)
    finally:
        client.kill()
        client.wait()
    killed = time.monotonic()
    kill = Kill(None)
    accepted = {event["task_id"] for event in History.read(folder).client if event["saw"] == "accepted"}
    kill.notes.append(f"{len(accepted)} tasks")
    if not accepted:
        kill.problems.append("the client had submitted nothing")
        return kill
    open_ids, log = set(accepted), Log(folder)
    caller = Caller(house.urls, log)
    for task_id in accepted:
        log.accepted[task_id] = 0
    listed = _group(house, folder.name)
    if missing := accepted - listed:
        kill.problems.append(f"{len(missing)} accepted tasks are not listed under their group")
    while open_ids and time.monotonic() < killed + RESULTS_S:
        asked, found = caller.call("POST", "/v1/tasks:wait", {"task_ids": sorted(open_ids), "wait_s": 1.0}, 1.0)
        for entry in (found or {}).get("ended", ()):
            caller.see(asked, entry)
            open_ids.discard(entry["task_id"])
    log.close()
    kill.measured_s = float("inf") if open_ids else time.monotonic() - killed
    kill.problems += [f"{len(open_ids)} of its tasks have not ended"] if open_ids else []
    until = time.monotonic() + GONE_S
    while _connections(house) > before + 1 and time.monotonic() < until:  # the one of `caller`
        time.sleep(0.05)
    if _connections(house) > before + 1:
        kill.problems.append(f"the API keeps {_connections(house) - before} connections of it")
    return kill


def _connections(house: House) -> int:
    inodes = psutil.Process(house.apis[0].pid).net_connections("tcp")
    port = int(house.urls[0].rpartition(":")[2])
    return sum(one.laddr.port == port and one.status != psutil.CONN_LISTEN for one in inodes)


def _group(house: House, group: str) -> set[str]:
    found: set[str] = set()
    cursor: str | None = None
    while True:
        query = {"group": group, "limit": "500"} | ({"cursor": cursor} if cursor else {})
        page = requests.get(house.urls[0] + "/v1/tasks", params=query, timeout=10).json()
        found.update(task["task_id"] for task in page["tasks"])
        cursor = page["cursor"]
        if cursor is None:
            return found


# ── everfaas up ──────────────────────────────────────────────────────────────────────────────────────────────────────


def kill_up(home: Path, busy_s: float, mode: str = "pull") -> Kill:
    """`everfaas up` dies under load: measured until the last process of it is gone, and its port with it."""
    home.mkdir(parents=True)
    port = free_port()
    words = ["-m", "everfaas_core.cli", "up", "-m", mode, "--workers", "2", "-w", "2"]
    up = Process([*words, "--port", str(port), "--data", str(home / "data")], home / "up.log")
    load = Load([f"http://127.0.0.1:{port}"], home, rate=20, seed=1)
    load.begin()
    time.sleep(busy_s)
    family = up.family()
    sockets = _unix_sockets(family)
    killed = time.monotonic()
    up.popen.kill()
    up.popen.wait()
    kill = Kill(None, [], [f"{len(family)} processes"])
    left = [one for one in family if one.pid != up.popen.pid]
    while (left := [one for one in left if _runs(one)]) and time.monotonic() < killed + GONE_S:
        time.sleep(0.005)
    kill.measured_s = float("inf") if left else time.monotonic() - killed
    for one in left:
        with contextlib.suppress(psutil.NoSuchProcess):
            kill.problems.append(f"left behind: {one.pid} {' '.join(one.cmdline())[:80]}")
            one.kill()
    if open_ports := [number for number in (port,) if _listens(number)]:
        kill.problems.append(f"ports {open_ports} still listen")
    if left_sockets := [str(path) for path in sockets if path.exists()]:
        kill.notes.append(f"socket files left: {left_sockets}")
    load.abandon()
    return kill


def _runs(process: psutil.Process) -> bool:
    """Tell whether a process has not ended. One that has may stay listed until the system's init has looked at it."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _unix_sockets(family: Iterable[psutil.Process]) -> set[Path]:
    """Return the socket files that these processes listen on."""
    found: set[Path] = set()
    for one in family:
        with contextlib.suppress(psutil.Error):
            found.update(Path(link.laddr) for link in one.net_connections("unix") if link.laddr)
    return found


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
