"""The roles as commands of their own, instead of `everfaas up`."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

READY_S = 30.0
LOOK_S = 0.05


@contextlib.contextmanager
def separate_roles(mode: str, *, slots: int = 4) -> Iterator[str]:
    """Run store, API, dispatcher and worker, each on free ports; give the API's URL; end them, the store last."""
    with tempfile.TemporaryDirectory(prefix="everfaas-bench-") as folder, contextlib.ExitStack() as stack:
        data = Path(folder)
        store = _start(stack, data, "store", "--port", "0", "--data", str(data / "data"))
        url = _address(data, store, "ready ", 1)
        api = _start(stack, data, "api", "--port", "0", store=url)
        address = _address(data, api, "API on ", -1)
        slots_flag = ["-w", str(slots)] if mode == "local" else ["-p", "0"]
        dispatcher = _start(stack, data, "dispatcher", "-m", mode, *slots_flag, store=url)
        if mode != "local":
            _start(stack, data, "worker", mode, str(slots), _address(data, dispatcher, " on tcp://", -1))
        yield address


def _start(stack: contextlib.ExitStack, folder: Path, *words: str, store: str = "") -> subprocess.Popen[bytes]:
    environ = {name: value for name, value in os.environ.items() if not name.startswith("EVERFAAS_")}
    if store:
        environ["EVERFAAS_STORE"] = store
    with (folder / f"{words[0]}.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "everfaas_core.cli", *words], stdout=log, stderr=log, cwd=folder, env=environ
        )
    stack.callback(_end, process)
    process.args = [words[0]]  # names its log
    return process


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    process.wait(READY_S)


def _address(folder: Path, process: subprocess.Popen[bytes], mark: str, word: int) -> str:
    """Wait for a line of a role's log that has the mark, and return one word of it."""
    log = folder / f"{process.args[0]}.log"  # type: ignore[index] # a list, see _start
    deadline = time.monotonic() + READY_S
    while time.monotonic() < deadline and process.poll() is None:
        for line in log.read_text().splitlines():
            if mark in line:
                return line.split()[word]
        time.sleep(LOOK_S)
    raise RuntimeError(f"{process.args[0]} did not say where it is: {log.read_text()}")  # type: ignore[index]
