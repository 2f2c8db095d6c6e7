"""A whole system of real processes that can be killed, stopped, started again and cut off, role by role."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import psutil
import requests

from tests.e2e.processes import Process

from .proxy import Proxy

PORTS: Final = (20_000, 30_000)  # below the kernel's range for outgoing connections, so that nobody takes a dead one's
JOIN_S: Final = 30.0
TREE_GONE_S: Final = 5.0


_PORTS: Final = iter(random.SystemRandom().sample(range(*PORTS), PORTS[1] - PORTS[0]))  # each once a process


def free_port() -> int:
    """Return a port that a role may keep over its deaths."""
    for port in _PORTS:
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
            return port
    raise AssertionError("all ports have been used")


class DriverLog:
    """What the driver did, for the checker's eyes only where it froze somebody, and for people."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._file = (folder / "driver.jsonl").open("a", buffering=1)
        self._lock = threading.Lock()

    def write(self, do: str, **fields: Any) -> float:
        at = time.monotonic()
        with self._lock:
            self._file.write(json.dumps({"at": at, "do": do, **fields}) + "\n")
        return at

    def close(self) -> None:
        self._file.close()


class Role:
    """One role over all its lives: the same command each time."""

    def __init__(self, kind: str, name: str, command: Sequence[str], home: Path, log: DriverLog) -> None:
        self.kind, self.name, self.command = kind, name, tuple(command)
        self._home, self._log = home, log
        self._process: Process | None = None
        self._frozen: list[int] = []
        self._ever: dict[int, psutil.Process] = {}

    def start(self, *, wait: bool = True) -> float:
        """Start it; return the instant when it said that it was ready (with `wait`)."""
        self._log.write("start", role=self.name)
        self._process = Process(self.command, self._home / f"{self.name}.log", wait=wait)
        return self._log.write("ready" if wait else "started", role=self.name, pid=self.pid)

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.popen.pid

    @property
    def alive(self) -> bool:
        return self._process is not None and self._process.popen.poll() is None

    @property
    def frozen(self) -> bool:
        return bool(self._frozen)

    @property
    def status(self) -> int | None:
        """The exit status of a role that has ended by itself."""
        return None if self._process is None else self._process.popen.poll()

    def tree(self) -> list[psutil.Process]:
        """Return the process and its descendants."""
        family = self._process.family() if self._process is not None and self.alive else []
        self._ever.update((one.pid, one) for one in family)
        return family

    def slots(self) -> list[psutil.Process]:
        """Return the slots of a worker or a local dispatcher: the children of its nursery."""
        nurseries = psutil.Process(self.pid).children()
        return [slot for nursery in nurseries for slot in _children(nursery)]

    def kill(self, *, tree: bool = False) -> float:
        """SIGKILL the process, or it and all below it. Returns the instant before the first kill."""
        victims = self.tree()
        at = self._log.write("kill", role=self.name, pids=[one.pid for one in victims], tree=tree)
        for one in victims if tree else victims[:1]:
            _signal(one.pid, signal.SIGKILL)
        assert self._process is not None
        self._frozen = []
        self._process.popen.wait(TREE_GONE_S)
        self._thaw_written(victims)
        return at

    def _thaw_written(self, victims: list[psutil.Process]) -> None:
        self._log.write("thaw", role=self.kind, pids=[one.pid for one in victims])

    def freeze(self, *, tree: bool) -> float:
        """SIGSTOP the process, or it and all below it, from the top."""
        pids = [self.pid]
        at = time.monotonic()
        _signal(self.pid, signal.SIGSTOP)
        if tree:
            for one in self.tree()[1:]:  # its nursery comes before the slots, and makes no more of them then
                _signal(one.pid, signal.SIGSTOP)
                pids.append(one.pid)
            for one in self.tree()[1:]:
                if one.pid not in pids:
                    _signal(one.pid, signal.SIGSTOP)
                    pids.append(one.pid)
        self._frozen = pids
        self._log.write("freeze", role=self.kind, name=self.name, pids=pids)
        return at

    def thaw(self) -> float:
        """SIGCONT what was stopped, from the top."""
        at = time.monotonic()
        for pid in self._frozen:
            _signal(pid, signal.SIGCONT)
        self._log.write("thaw", role=self.kind, name=self.name, pids=self._frozen)
        self._frozen = []
        return at

    def end(self) -> None:
        """Stop it in order, and then for certain. Raises AssertionError if something had to be killed."""
        if self._process is None:
            return
        if self._frozen:
            self.thaw()
        self.tree()
        try:
            self._process.stop()
        finally:
            left = [one for one in self._ever.values() if _lives(one)]
            _, left = psutil.wait_procs(left, timeout=TREE_GONE_S)
            for one in left:
                with contextlib.suppress(psutil.NoSuchProcess):
                    one.kill()
            self._process = None
        assert not left, f"{self.name} left {left} behind"


def _children(process: psutil.Process) -> list[psutil.Process]:
    with contextlib.suppress(psutil.NoSuchProcess):
        return list(process.children())
    return []


def _lives(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    return False


def _signal(pid: int, signum: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signum)


class House:
    """A store, APIs, dispatchers and their workers. With `proxies`, one stands on each line between two roles."""

    def __init__(
        self,
        home: Path,
        *,
        modes: Sequence[str] = ("pull",),
        apis: int = 1,
        workers: int = 2,
        slots: int = 4,
        proxies: bool = False,
        flags: Sequence[str] = (),
    ) -> None:
        """`workers` for each dispatcher; `slots` for each worker, or for each local dispatcher; `flags` for these."""
        self.home = home
        home.mkdir(parents=True, exist_ok=True)
        self.log = DriverLog(home)
        self.roles: list[Role] = []
        self.proxies: dict[str, Proxy] = {}
        self._proxied = proxies
        self.slots = sum(slots if mode == "local" else slots * workers for mode in modes)
        try:
            store_port = free_port()
            self.store = self._role("store", "store", "store", "--port", str(store_port), "--data", str(home / "data"))
            self._store_port = store_port
            self.store.start()
            ports = [free_port() for _ in range(apis)]
            self.urls = [f"http://127.0.0.1:{port}" for port in ports]
            self.apis = [
                self._role("api", f"api-{at}", "api", "--port", str(port), "--store", self._store_url(f"api-{at}"))
                for at, port in enumerate(ports)
            ]
            self.dispatchers: list[Role] = []
            self.workers: list[Role] = []
            for at, mode in enumerate(modes):
                self._add_dispatcher(at, mode, workers, slots, flags)
            for role in (*self.apis, *self.dispatchers, *self.workers):
                role.start()
            self.await_slots()
        except BaseException:
            self.end()
            raise

    def _role(self, kind: str, name: str, *words: str) -> Role:
        role = Role(kind, name, ["-m", "everfaas_core.cli", *words], self.home, self.log)
        self.roles.append(role)
        return role

    def _add_dispatcher(self, at: int, mode: str, workers: int, slots: int, flags: Sequence[str]) -> None:
        name, port = f"dispatcher-{at}", free_port()
        where = ["-w", str(slots)] if mode == "local" else ["-p", str(port)]
        words = ["dispatcher", "-m", mode, *where, "--store", self._store_url(name), *flags]
        self.dispatchers.append(self._role("dispatcher", name, *words))
        if mode == "local":
            return
        for number in range(workers):
            worker = f"worker-{at}-{number}"
            address = self._via(f"{worker}→{name}", ("127.0.0.1", port))
            self.workers.append(
                self._role("worker", worker, "worker", mode, str(slots), f"tcp://{address[0]}:{address[1]}")
            )

    def _store_url(self, name: str) -> str:
        host, port = self._via(f"{name}→store", ("127.0.0.1", self._store_port_of()))
        return f"redis://{host}:{port}/0"

    def _store_port_of(self) -> int:
        return int(self.store.command[self.store.command.index("--port") + 1])

    def _via(self, line: str, target: tuple[str, int]) -> tuple[str, int]:
        if not self._proxied:
            return target
        self.proxies[line] = Proxy(target)
        return self.proxies[line].address

    # ── what is seen from outside ────────────────────────────────────────────────────────────────────────────────────

    def workers_of(self, dispatcher: Role) -> list[Role]:
        """Return the workers that were started for a dispatcher."""
        return [one for one in self.workers if one.name.split("-")[1] == dispatcher.name.split("-")[1]]

    def listed_slots(self) -> int:
        """Return how many slots the API lists, -1 while it does not answer."""
        for url in self.urls:
            with contextlib.suppress(requests.RequestException, ValueError, KeyError):
                workers = requests.get(f"{url}/v1/workers", timeout=5).json()["workers"]
                return sum(worker["slots"] for worker in workers)
        return -1

    def await_slots(self, wait_s: float = JOIN_S) -> None:
        """Wait until all slots are listed."""
        until = time.monotonic() + wait_s
        while (listed := self.listed_slots()) != self.slots:
            assert time.monotonic() < until, f"{listed} of {self.slots} slots joined in {wait_s} s"
            time.sleep(0.05)

    def store_answers(self) -> bool:
        """Tell whether the store would answer somebody new."""
        try:
            with socket.create_connection(("127.0.0.1", self._store_port_of()), timeout=0.5) as end:
                end.sendall(b"PING\r\n")
                return end.recv(16).startswith(b"+PONG")
        except OSError:
            return False

    def server(self) -> psutil.Process | None:
        """Return the store's own server process, below the role that looks after it."""
        return next(iter(_children(psutil.Process(self.store.pid))), None)

    def logs(self, tail: int = 2000) -> str:
        """Return the end of each role's log."""
        return "\n".join(f"── {path.name}\n{path.read_text()[-tail:]}" for path in sorted(self.home.glob("*.log")))

    # ── the end ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def heal(self) -> None:
        """Undo everything that the driver did."""
        for proxy in self.proxies.values():
            proxy.heal()
        for role in self.roles:
            if role.frozen:
                role.thaw()
        for role in self.roles:
            if not role.alive:
                role.start(wait=role.kind == "store")

    def end(self) -> None:
        """Stop everything. Raises AssertionError that names what was left behind."""
        failures = []
        for proxy in self.proxies.values():
            proxy.heal()
        for role in reversed(self.roles):  # workers, dispatchers, APIs, the store
            try:
                role.end()
            except AssertionError as error:
                failures.append(str(error))
        for proxy in self.proxies.values():
            proxy.close()
        self.log.close()
        assert not failures, "\n".join(failures)


@contextlib.contextmanager
def housed(home: Path, **options: Any) -> Iterator[House]:
    """Run a house, and leave nothing of it behind."""
    house = House(home, **options)
    try:
        yield house
    except BaseException:
        with contextlib.suppress(AssertionError):
            house.end()
        raise
    house.end()


def port_of(url: str) -> int:
    """Return the port of a URL that has one."""
    port = urlsplit(url).port
    assert port is not None
    return port
