"""A TCP proxy on loopback that misbehaves on request: between roles and store, or between workers and dispatcher.

"up" is from whoever connects to the target, "down" is the way back. Each proxy runs in a thread of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import struct
import threading
from collections.abc import Coroutine
from dataclasses import dataclass, field, replace
from typing import Any, Final

CHUNK_BYTES: Final = 64 * 1024
CHUNKS_MAX: Final = 64  # under way in one direction of one connection; then the sender has to wait
CALL_S: Final = 10.0
UP: Final = "up"
DOWN: Final = "down"
_RST_ON_CLOSE: Final = struct.pack("ii", 1, 0)


@dataclass(frozen=True)
class Faults:
    """What the proxy does wrong now. The default is nothing."""

    delay_s: float = 0.0
    jitter_s: float = 0.0  # added to the delay, from 0 up to this; the order of bytes stays
    drop: frozenset[str] = frozenset()  # directions in which nothing passes and nothing is closed
    refuse: bool = False  # nobody listens
    lose_answers: bool = False  # requests pass; the first answer is swallowed, then both sides are reset
    rate_bytes_s: float | None = None  # in each direction of each connection


class Connection:
    """One client and its connection to the target."""

    def __init__(self, client: socket.socket, target: socket.socket) -> None:
        self.ends = {UP: (client, target), DOWN: (target, client)}
        self.sockets = (client, target)
        self.tasks: list[asyncio.Task[None]] = []
        self.closed = False

    def close(self, *, reset: bool) -> None:
        """Close both sides, with a FIN or a RST. Idempotent."""
        if self.closed:
            return
        self.closed = True
        for end in self.sockets:
            with contextlib.suppress(OSError):
                if reset:
                    end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RST_ON_CLOSE)
        current = asyncio.current_task()
        for task in self.tasks:
            if task is not current:
                task.cancel()
        for end in self.sockets:
            end.close()


@dataclass
class Counts:
    """What has happened so far."""

    connections: int = 0
    resets: int = 0
    answers_lost: int = 0
    bytes_passed: dict[str, int] = field(default_factory=lambda: {UP: 0, DOWN: 0})


class Proxy:
    """Listens at `address` and forwards to `target`. All methods are called from other threads than its own."""

    def __init__(self, target: tuple[str, int], *, seed: int = 0) -> None:
        self.target = target
        self.faults = Faults()
        self.counts = Counts()
        self._random = random.Random(seed)
        self._connections: set[Connection] = set()
        self._loop = asyncio.new_event_loop()
        self._changed: asyncio.Event = asyncio.Event()
        self._listener: socket.socket | None = None
        self._accepting: asyncio.Task[None] | None = None
        self._port = 0
        self._thread = threading.Thread(target=self._loop.run_forever, name="fault-proxy", daemon=True)
        self._thread.start()
        self._do(self._listen())

    @property
    def address(self) -> tuple[str, int]:
        """Where it listens, and goes on to listen after it has refused for a while."""
        return ("127.0.0.1", self._port)

    @property
    def connections(self) -> int:
        """How many are open now."""
        return len(self._connections)

    def url(self, scheme: str = "tcp", path: str = "") -> str:
        """Return the address as a URL."""
        return f"{scheme}://127.0.0.1:{self._port}{path}"

    def set(self, **changes: Any) -> None:
        """Change some of the faults: names and values of `Faults`."""
        if "drop" in changes:
            changes["drop"] = frozenset(changes["drop"])
        self._do(self._apply(replace(self.faults, **changes)))

    def heal(self) -> None:
        """Do nothing wrong any more. What was held back is delivered now."""
        self._do(self._apply(Faults()))

    def reset(self) -> None:
        """Reset all connections there are."""
        self._do(self._reset())

    def close(self) -> None:
        """Close everything. Idempotent."""
        if self._loop.is_closed():
            return
        self._do(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _do(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(CALL_S)

    # ── in the thread ────────────────────────────────────────────────────────────────────────────────────────────────

    async def _listen(self) -> None:
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", self._port))
        listener.listen(512)
        listener.setblocking(False)
        self._listener, self._port = listener, listener.getsockname()[1]
        self._accepting = asyncio.create_task(self._accept(listener))

    async def _deafen(self) -> None:
        if self._accepting is not None:
            self._accepting.cancel()
            await asyncio.gather(self._accepting, return_exceptions=True)
            self._accepting = None
        if self._listener is not None:
            self._listener.close()
            self._listener = None

    async def _apply(self, faults: Faults) -> None:
        self.faults = faults
        self._changed.set()
        self._changed = asyncio.Event()
        if faults.refuse:
            await self._deafen()
        elif self._listener is None:
            await self._listen()

    async def _reset(self) -> None:
        self.counts.resets += len(self._connections)
        for connection in list(self._connections):
            connection.close(reset=True)
        self._connections.clear()

    async def _end(self) -> None:
        await self._deafen()
        tasks = [task for connection in self._connections for task in connection.tasks]
        for connection in list(self._connections):
            connection.close(reset=False)
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _accept(self, listener: socket.socket) -> None:
        pending: set[asyncio.Task[None]] = set()
        try:
            while True:
                client, _ = await self._loop.sock_accept(listener)
                task = asyncio.create_task(self._connect(client))
                pending.add(task)
                task.add_done_callback(pending.discard)
        finally:
            for task in pending:
                task.cancel()

    async def _connect(self, client: socket.socket) -> None:
        target = socket.socket()
        for end in (client, target):
            end.setblocking(False)
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection = Connection(client, target)
        try:
            await self._loop.sock_connect(target, self.target)
        except BaseException as error:
            connection.close(reset=True)
            if isinstance(error, OSError):
                return  # nobody is there: whoever connected learns it by a reset
            raise
        self.counts.connections += 1
        self._connections.add(connection)
        connection.tasks = [asyncio.create_task(self._pump(connection, direction)) for direction in (UP, DOWN)]

    async def _pump(self, connection: Connection, direction: str) -> None:
        """Read one direction; a second task writes it, so that a delay is a latency and no limit of the rate."""
        source, sink = connection.ends[direction]
        queue: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(CHUNKS_MAX)
        writer = asyncio.create_task(self._write(connection, direction, sink, queue))
        connection.tasks.append(writer)
        due = 0.0
        try:
            while True:
                await self._passable(direction)
                data = await self._loop.sock_recv(source, CHUNK_BYTES)
                if direction == DOWN and data and self.faults.lose_answers:
                    self.counts.answers_lost += 1
                    self._drop_connection(connection, reset=True)
                    return
                lateness_s = self.faults.delay_s + self._random.uniform(0, self.faults.jitter_s)
                due = max(due, self._loop.time() + lateness_s)
                await queue.put((due, data))
                if not data:
                    return
        except OSError:
            self._drop_connection(connection, reset=True)

    async def _write(
        self, connection: Connection, direction: str, sink: socket.socket, queue: asyncio.Queue[tuple[float, bytes]]
    ) -> None:
        try:
            while True:
                due, data = await queue.get()
                late_s = due - self._loop.time()
                if late_s > 0:
                    await asyncio.sleep(late_s)
                await self._passable(direction)
                if not data:
                    self._drop_connection(connection, reset=False)  # roles never half-close
                    return
                if self.faults.rate_bytes_s is not None:
                    await asyncio.sleep(len(data) / self.faults.rate_bytes_s)
                await self._loop.sock_sendall(sink, data)
                self.counts.bytes_passed[direction] += len(data)
        except OSError:
            self._drop_connection(connection, reset=True)

    async def _passable(self, direction: str) -> None:
        while direction in self.faults.drop:
            await self._changed.wait()

    def _drop_connection(self, connection: Connection, *, reset: bool) -> None:
        self._connections.discard(connection)
        connection.close(reset=reset)
