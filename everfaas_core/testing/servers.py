"""Servers for tests: the embedded store, and the redis-server that may be installed on the machine."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from everfaas_core.embedded import EmbeddedStore
from everfaas_core.runtime.processes import death_signal_setter

READY_TIMEOUT_S: Final = 20.0

_SOCKET_PATH_MAX: Final = 100


@contextmanager
def embedded_store(tmp_dir: Path, port: int | None = None) -> Iterator[str]:
    """Run an embedded store with its data in `tmp_dir`, and give its URL."""
    store = EmbeddedStore(tmp_dir, port=port)
    try:
        yield store.start(READY_TIMEOUT_S)
    finally:
        store.stop()


@contextmanager
def redis_server(tmp_dir: Path) -> Iterator[str]:
    """Run the machine's redis-server with its data in `tmp_dir`, and give its URL. Raises FileNotFoundError."""
    binary = shutil.which("redis-server")
    if binary is None:
        raise FileNotFoundError("there is no redis-server on PATH")
    path = tmp_dir / "redis.sock"
    if len(str(path)) < _SOCKET_PATH_MAX:
        url, family, target = f"unix://{path}", socket.AF_UNIX, str(path)
        listen = ["--port", "0", "--unixsocket", str(path)]
    else:
        port = free_port()
        url, family, target = f"redis://127.0.0.1:{port}/0", socket.AF_INET, ("127.0.0.1", port)  # type: ignore[assignment]
        listen = ["--port", str(port), "--bind", "127.0.0.1"]
    with (tmp_dir / "redis.log").open("ab") as log:
        process = subprocess.Popen(  # noqa: S603 - found on PATH, for tests
            [binary, *listen, "--dir", str(tmp_dir), "--save", "", "--appendonly", "no"],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            preexec_fn=death_signal_setter(),
        )
    try:
        _wait(process, family, target)
        yield url
    finally:
        process.kill()
        process.wait()


def free_port() -> int:
    """Return a loopback port that nobody listens on just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _wait(process: subprocess.Popen[bytes], family: socket.AddressFamily, target: object) -> None:
    until = time.monotonic() + READY_TIMEOUT_S
    while True:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            if probe.connect_ex(target) == 0:  # type: ignore[arg-type]  # a path or an address
                return
        if process.poll() is not None or time.monotonic() > until:
            raise RuntimeError(f"redis-server did not start (status {process.returncode})")
        time.sleep(0.01)
