"""A Valkey server of a system's own: empty, on a free port, with the durability that ours has by default."""

from __future__ import annotations

import contextlib
import socket
import time
from pathlib import Path

from bench.peers.drivers.base import Place

READY_WITHIN_S = 10.0
LOOK_AGAIN_S = 0.005
SAYS = "append-only file, fsync every second"


def start(binary: str, place: Place) -> None:
    """Start it in the place's folder and note its URL there. Raises RuntimeError when it does not answer in time."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    data = Path(place.folder) / "broker"
    data.mkdir()
    options = {"port": port, "bind": "127.0.0.1", "dir": data, "appendonly": "yes", "appendfsync": "everysec"}
    options |= {"save": "", "maxmemory-policy": "noeviction"}
    place.run(binary, *(str(word) for name, value in options.items() for word in (f"--{name}", value)))
    until = time.monotonic() + READY_WITHIN_S
    while time.monotonic() < until:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1) as connection:
            connection.sendall(b"PING\r\n")
            if connection.recv(64).startswith(b"+PONG"):
                place.broker_url = f"redis://127.0.0.1:{port}/0"
                return
        time.sleep(LOOK_AGAIN_S)
    raise RuntimeError("the broker did not answer")
