"""The data directory: where it is, that only its owner can read it, and that one store at a time uses it."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import stat
import tempfile
import time
from pathlib import Path
from typing import Final

from everfaas_core.model.errors import ConfigError

SOCKET_PATH_BYTES_MAX: Final = 100  # the kernel's limit is 104 to 108, by platform
DYING_OWNER_S: Final = 2.0  # what the server of a killed owner gets to be gone

_LOCK: Final = "everfaas.lock"
_SOCKET: Final = "valkey.sock"
_STEP_S: Final = 0.005


def default_data_dir() -> Path:
    """Return the directory used when none is named: under the user's state directory."""
    state = os.environ.get("XDG_STATE_HOME", "")
    base = Path(state) if os.path.isabs(state) else Path.home() / ".local" / "state"
    return base / "everfaas"


def make_private(path: Path) -> None:
    """Create a directory that only its owner can enter. Raises ConfigError if that can't be."""
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.chmod(0o700)
    except OSError as error:
        raise ConfigError(
            f"the data directory {path} can't be used: {error.strerror}", hint="name another with --data DIR"
        ) from error


class DirectoryLock:
    """Holds a data directory for as long as this process, or the server it started, lives: `fd` is inherited by it."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.fd: int | None = None

    def acquire(self) -> int:
        """Take the lock and return its descriptor. Raises ConfigError that names who holds it."""
        if self.fd is not None:
            return self.fd
        fd = os.open(self._directory / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            until = time.monotonic() + DYING_OWNER_S
            while not _locked(fd):
                owner = _owner(fd)
                if (owner is not None and _lives(owner)) or time.monotonic() > until:
                    raise self._taken(owner)
                time.sleep(_STEP_S)  # its owner was killed, and the server is about to follow
            os.ftruncate(fd, 0)
            os.pwrite(fd, b"%d\n" % os.getpid(), 0)
        except BaseException:
            os.close(fd)
            raise
        self.fd = fd
        return fd

    def release(self) -> None:
        """Give the directory free. Idempotent."""
        if self.fd is not None:
            os.close(self.fd)
            self.fd = None

    def _taken(self, owner: int | None) -> ConfigError:
        who = f"process {owner}" if owner is not None else "another process"
        return ConfigError(
            f"the data directory {self._directory} is in use by {who}",
            hint="end that one, or name another directory with --data DIR",
        )


class SocketPlace:
    """The path of the server's socket: in the data directory, or in a short private one when that is too long."""

    def __init__(self, directory: Path) -> None:
        self._short: Path | None = None
        self.path = directory / _SOCKET
        if len(os.fsencode(self.path)) >= SOCKET_PATH_BYTES_MAX:
            self._short = _short_directory(directory)
            self.path = self._short / _SOCKET

    def remove(self) -> None:
        """Remove the socket, and the directory made for it. Idempotent."""
        with contextlib.suppress(OSError):
            self.path.unlink()
        if self._short is not None:
            with contextlib.suppress(OSError):
                self._short.rmdir()


def _short_directory(directory: Path) -> Path:
    """Return a private directory with a short path, the same each time, so that kills leave no trail of them."""
    digest = hashlib.sha256(os.fsencode(directory)).hexdigest()[:12]
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    for base in (runtime, tempfile.gettempdir(), "/tmp"):  # noqa: S108 - mkdtemp makes a private one in it
        if os.path.isabs(base) and os.access(base, os.W_OK) and len(os.fsencode(base)) < SOCKET_PATH_BYTES_MAX - 40:
            path = Path(base) / f"everfaas-{os.geteuid()}-{digest}"
            with contextlib.suppress(FileExistsError):
                path.mkdir(mode=0o700)
            return path if _is_ours(path) else Path(tempfile.mkdtemp(prefix="everfaas-", dir=base))
    raise ConfigError("there is no directory with a path short enough for a socket", hint="set TMPDIR to a short one")


def _is_ours(path: Path) -> bool:
    """Tell whether nobody else made, or can enter, a directory in a place that others can write to."""
    found = path.lstat()
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid() and not found.st_mode & 0o077


def _locked(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _owner(fd: int) -> int | None:
    text = os.pread(fd, 32, 0).strip()
    return int(text) if text.isdigit() else None


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
