"""The embedded store's process: started in a data directory, ready when it answers, stopped so that nothing is lost."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import socket
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Final, Self
from urllib.parse import quote

from everfaas_core.embedded.binary import find_binary
from everfaas_core.embedded.directory import DirectoryLock, SocketPlace, make_private
from everfaas_core.embedded.flusher import Flusher
from everfaas_core.model.errors import ConfigError, PortInUse, StoreRefused, StoreUnavailable
from everfaas_core.runtime.processes import death_signal_setter

FSYNC: Final = ("always", "everysec", "no")
HOST: Final = "127.0.0.1"  # the only address it ever listens on
LOG_BYTES_MAX: Final = 10 * 1024 * 1024  # of an old log; a longer one is set aside at the next start
LOG_TAIL_BYTES: Final = 4096

_LOG: Final = "valkey.log"
_APPEND_ONLY: Final = "appendonlydir"
_MALLOC: Final = "glibc.malloc.mmap_threshold=131072:glibc.malloc.trim_threshold=1048576"
"""The bundled server has no allocator of its own, and glibc's default lets large buffers split the heap: with them kept
out of it, the server stays at 33 MB where it grew to 119 MB in 150,000 tasks, at the same CPU per task."""

_CRON_HZ: Final = 2
"""How often the server wakes when it has nothing to do. Its default of 10 is half of what it costs while idle. What
has expired is gone for readers at once, and while commands come its memory is freed between them; and a server that is
asked to end by a signal looks at that when it wakes, so `stop` also tells it by a command."""

_STEP_S: Final = 0.002  # between looks at a server that starts
_PROBE_TIMEOUT_S: Final = 1.0


class EmbeddedStore:
    """One Valkey server of ours. It ends with the process, and the thread, that started it.

    `port` None: a unix socket in the data directory. Else: loopback TCP on that port. `fsync` says when the append-only
    file is flushed: "everysec" may lose a second to a power cut (nothing to a crash of any process), "always" nothing.
    The server writes to the file before it answers, in either case; see `flusher`.
    """

    def __init__(self, data_dir: Path | str, *, port: int | None = None, fsync: str = "everysec") -> None:
        if fsync not in FSYNC:
            raise ConfigError(f"fsync can't be {fsync!r}", hint=f"it is one of {', '.join(FSYNC)}")
        self.data_dir = Path(data_dir).expanduser().absolute()
        self._port = port
        self._fsync = fsync
        self._lock = DirectoryLock(self.data_dir)
        self._place: SocketPlace | None = None
        self._flusher = Flusher(self.data_dir / _APPEND_ONLY) if fsync == "everysec" else None
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """The URL for `--store`; the same after a restart, unknown before the first start."""
        if self._port is not None:
            return f"redis://{HOST}:{self._port}/0"
        if self._place is None:
            raise RuntimeError("the embedded store has not been started")
        return f"unix://{quote(str(self._place.path))}"

    @property
    def pid(self) -> int | None:
        """The server's process id while it runs."""
        return self._process.pid if self._process is not None and self._process.poll() is None else None

    def start(self, timeout_s: float = 10.0) -> str:
        """Start the server, or start it again when it has died, and return its URL once it answers.

        `timeout_s` bounds the silence; loading a large data directory may take longer. Raises ConfigError (data
        directory in use or unusable), PortInUse, StoreRefused (no binary), StoreUnavailable (it did not come up).
        """
        if self.pid is not None:
            return self.url
        binary = find_binary()
        make_private(self.data_dir)
        lock = self._lock.acquire()
        try:
            if self._port is not None:
                _check_port(self._port)
            elif self._place is None:
                self._place = SocketPlace(self.data_dir)
            self._process = self._launch(binary, lock)
            self._wait_until_ready(timeout_s)
            if self._flusher is not None:
                self._flusher.start()
        except BaseException:
            self.stop()
            raise
        return self.url

    def poll(self) -> int | None:
        """Return the exit status if the server has ended (negative: by that signal), else None."""
        return None if self._process is None else self._process.poll()

    def wait(self, timeout_s: float | None = None) -> int | None:
        """Wait until the server has ended; return its exit status, or None after `timeout_s`."""
        if self._process is None:
            return None
        try:
            return self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return None

    def stop(self, timeout_s: float = 5.0) -> None:
        """Have the server write everything out and end; kill it after `timeout_s`. Idempotent."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(signal.SIGTERM)
            if self._process.poll() is None:
                self._ask(b"SHUTDOWN NOSAVE\r\n")  # it writes the append-only file out, and saves no snapshot
            if self.wait(timeout_s) is None:
                self._process.kill()
                self._process.wait()
            self._process = None
        if self._flusher is not None:
            self._flusher.stop()
        if self._place is not None:
            self._place.remove()
            self._place = None
        self._lock.release()

    def still(self) -> contextlib.AbstractContextManager[None]:
        """Have no thread of ours run for the time of the context, so that the process can be forked."""
        return contextlib.nullcontext() if self._flusher is None else self._flusher.paused()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _launch(self, binary: Path, lock: int) -> subprocess.Popen[bytes]:
        path = self.data_dir / _LOG
        if path.exists() and path.stat().st_size > LOG_BYTES_MAX:
            path.replace(path.with_suffix(".log.1"))
        with path.open("ab") as log:
            try:
                return subprocess.Popen(  # noqa: S603 - our own binary and arguments
                    [str(binary), *self._arguments()],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    cwd=self.data_dir,
                    env={"GLIBC_TUNABLES": _MALLOC, **os.environ},
                    preexec_fn=death_signal_setter(signal.SIGTERM),  # so that it removes its socket
                    process_group=0,  # Ctrl-C is for us: the server goes last
                    pass_fds=[lock],  # the directory stays locked as long as the server lives
                )
            except OSError as error:
                raise StoreRefused(
                    f"the embedded store's server {binary} does not run here: {error.strerror}",
                    hint="use a Redis or Valkey server of your own: --store redis://HOST:PORT/0",
                ) from error

    def _arguments(self) -> list[str]:
        settings = {
            "dir": str(self.data_dir),
            "daemonize": "no",
            "appendonly": "yes",
            "appenddirname": _APPEND_ONLY,
            "appendfsync": "always" if self._fsync == "always" else "no",
            "aof-load-truncated": "yes",  # a tail that a crash cut off is dropped: nothing in it was acknowledged
            "save": "",
            "rdbcompression": "no",  # of rewritten files: it cost 2.5 ms for an argument and a result of 1 MiB
            "maxmemory-policy": "noeviction",
            "protected-mode": "yes",
            "enable-module-command": "no",
            "always-show-logo": "no",
            "hz": str(_CRON_HZ),
        }
        if self._port is not None:
            settings |= {"port": str(self._port), "bind": HOST}
        else:
            assert self._place is not None
            settings |= {"port": "0", "unixsocket": str(self._place.path), "unixsocketperm": "700"}
        return [word for name, value in settings.items() for word in (f"--{name}", value)]

    def _wait_until_ready(self, timeout_s: float) -> None:
        assert self._process is not None
        until = time.monotonic() + timeout_s
        while not (answer := self._ask()).startswith(b"+PONG"):
            if self._process.poll() is not None:
                raise self._failure(f"it ended with status {self._process.returncode}")
            if answer.startswith(b"-LOADING"):
                until = time.monotonic() + timeout_s
            elif time.monotonic() > until:
                raise self._failure(f"it did not answer within {timeout_s:g} s")
            time.sleep(_STEP_S)  # there is no descriptor to wait on before it listens

    def _ask(self, command: bytes = b"PING\r\n") -> bytes:
        """Send a command and return what is answered; b"" when nobody is there (yet)."""
        family = socket.AF_UNIX if self._port is None else socket.AF_INET
        target = str(self._place.path) if self._place is not None else (HOST, self._port)
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.settimeout(_PROBE_TIMEOUT_S)
            try:
                probe.connect(target)
                probe.sendall(command)
                return probe.recv(64)
            except OSError:
                return b""

    def _failure(self, what: str) -> StoreUnavailable | PortInUse:
        path = self.data_dir / _LOG
        tail = path.read_bytes()[-LOG_TAIL_BYTES:].decode(errors="replace")
        if self._port is not None and "Address already in use" in tail:
            return _port_taken(self._port)
        last = tail.strip().splitlines()[-1:] or ["nothing"]
        return StoreUnavailable(
            f"the embedded store did not start: {what}; it last wrote: {last[0]}", hint=f"see {path}"
        )


def _check_port(port: int) -> None:
    """Find out early, and in plain words, that a port can't be had."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise _port_taken(port) from error
            raise ConfigError(
                f"the store can't listen on {HOST}:{port}: {os.strerror(error.errno or 0)}",
                hint="name another port with --port",
            ) from error


def _port_taken(port: int) -> PortInUse:
    return PortInUse(
        f"{HOST}:{port} is in use, perhaps by another store",
        hint=f"use that one with --store redis://{HOST}:{port}/0, or name another port with --port",
    )
