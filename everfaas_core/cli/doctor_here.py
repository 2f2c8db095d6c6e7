"""What `everfaas doctor` looks at on this machine."""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import shutil
import socket
import sys
from collections.abc import Iterator, Set
from pathlib import Path
from typing import TYPE_CHECKING, Final

from everfaas_core.cli.doctor import FAIL, OK, WARN, Check
from everfaas_core.cli.shown import size
from everfaas_core.model.errors import EverfaasError

if TYPE_CHECKING:
    from everfaas_core.config.settings import Settings

DISK_WARN_BYTES: Final = 1024**3
DISK_FAIL_BYTES: Final = 64 * 1024**2
FILES_WANTED: Final = 1024 + 256
"""An API process with all its connections, and what it needs itself."""

OURS: Final = frozenset(
    {"everfaas_core", "everfaas_plugins", "click", "cloudpickle", "dill", "flask", "marshmallow", "msgspec", "pluggy"}
    | {"redis", "rich", "waitress", "werkzeug", "zmq"}
)
NAMED_MAX: Final = 5


def config_checks(settings: Settings) -> Iterator[Check]:
    """Look at the settings themselves, and at what is installed."""
    where = settings.config_file or "no config file"
    slips = "; ".join(settings.warnings)
    yield Check("settings", WARN if slips else OK, slips or where, "mend the variable's name" if slips else "")
    from everfaas_core.registry.catalog import Catalog

    catalog = Catalog.installed()
    clashes = catalog.clashes()
    if not catalog.plugins:
        yield Check("plugins", FAIL, "no plugin is installed, not even ours", "install the package: pip install .")
    elif clashes:
        yield Check("plugins", FAIL, f"two distributions bring a plugin {', '.join(clashes)}", "uninstall one of them")
    else:
        yield Check("plugins", OK, f"{len(catalog.plugins)} installed")


def machine_checks(settings: Settings) -> Iterator[Check]:
    """Look at ports, limits and disk."""
    yield from _ports(settings)
    yield _files()
    yield _disk(settings)


# ── ports ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def _ports(settings: Settings) -> Iterator[Check]:
    for what, port in (("API", settings.port), ("store", settings.store_port)):
        if port == 0:
            continue
        flag = "--port" if what == "API" else "--store-port"
        if _is_free(port):
            yield Check("ports", OK, f"{port} ({what}) is free: nothing of the kind runs here")
            continue
        owner = port_owner(port)
        if owner is None:
            yield Check("ports", OK, f"{port} ({what}) is in use, by a process that we may not look at")
        elif "everfaas" in owner or "valkey" in owner or "redis" in owner or "app.py" in owner:
            yield Check("ports", OK, f"{port} ({what}) is in use by {owner}")
        else:
            yield Check(
                "ports",
                WARN,
                f"{port}, where the {what} would listen, is in use by something else: {owner}",
                f"end that process, or choose another port: {flag} N (0 picks a free one)",
            )


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            return error.errno not in (errno.EADDRINUSE, errno.EACCES)
    return True


def port_owner(port: int) -> str | None:
    """Return `PID COMMAND` of who listens on a port; None if that can't be found out (no /proc, another user's)."""
    sockets = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        with contextlib.suppress(OSError):
            for line in Path(table).read_text().splitlines()[1:]:
                fields = line.split()
                if fields[3] == "0A" and int(fields[1].rpartition(":")[2], 16) == port:
                    sockets.add(f"socket:[{fields[9]}]")
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if any(_points_to(entry, sockets) for entry in (process / "fd").iterdir()):
                words = (process / "cmdline").read_bytes().decode(errors="replace").split("\0")
                return f"{process.name} {' '.join(words).strip()[:100]}"
    return None


def _points_to(entry: Path, targets: Set[str]) -> bool:
    try:
        return os.readlink(entry) in targets
    except OSError:  # closed just now
        return False


# ── limits ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def _files() -> Check:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < FILES_WANTED:
        return Check(
            "files",
            WARN,
            f"a process may open {hard} files; an API server takes fewer connections then",
            f"raise the limit before the start: ulimit -Hn {FILES_WANTED}",
        )
    return Check("files", OK, "a process may open enough files")


def _disk(settings: Settings) -> Check:
    from everfaas_core.embedded import default_data_dir

    data = Path(settings.data or default_data_dir())
    place = next(folder for folder in (data, *data.parents) if folder.exists())
    if not os.access(place, os.W_OK):
        return Check("disk", FAIL, f"{place} can't be written to", "choose another folder for the data: --data DIR")
    free = shutil.disk_usage(place).free
    if free < DISK_WARN_BYTES:
        state = FAIL if free < DISK_FAIL_BYTES else WARN
        remedy = "make room, or choose another folder: --data DIR; a store that can't write refuses tasks"
        return Check("disk", state, f"{size(free)} free for the embedded store's data in {data}", remedy)
    return Check("disk", OK, f"{size(free)} free for the embedded store's data in {data}")


# ── the user's code ──────────────────────────────────────────────────────────────────────────────────────────────────


def code_checks(settings: Settings, target: str | None) -> Iterator[Check]:
    """Look at the folders that slots import from, and at the function, if one was named."""
    yield from _shadows(settings)
    if target is not None:
        yield from _function(target)


def _shadows(settings: Settings) -> Iterator[Check]:
    """Find files and folders that hide a module which slots need: slots look in these folders first."""
    found = []
    for folder in settings.path:
        try:
            entries = sorted(Path(folder).iterdir())
        except OSError as error:
            yield Check("sys.path", WARN, f"{folder} can't be read: {error.strerror}", "see --path and EVERFAAS_PATH")
            continue
        found += [entry for entry in entries if _hides(entry)]
    if not found:
        yield Check("sys.path", OK, f"nothing in {', '.join(settings.path)} hides another module")
        return
    names = ", ".join(str(entry) for entry in found[:NAMED_MAX]) + (", …" if len(found) > NAMED_MAX else "")
    hidden = f"{names} {'hides' if len(found) == 1 else 'hide'} a module of the same name from slots that start here"
    yield Check("sys.path", WARN, hidden, "rename it; or start dispatchers and workers in another folder, with --path")


def _hides(entry: Path) -> bool:
    name = entry.stem if entry.suffix == ".py" else entry.name
    if name not in sys.stdlib_module_names and name not in OURS:
        return False
    if entry.suffix != ".py" and not (entry / "__init__.py").is_file():
        return False
    module = sys.modules.get(name)  # the checkout of this very package hides nothing
    file = getattr(module, "__file__", None)
    return not (file and Path(file).resolve().is_relative_to(entry.resolve()))


def _function(target: str) -> Iterator[Check]:
    from everfaas_core.cli.targets import find_function
    from everfaas_core.shipping import Shipper

    try:
        packed = Shipper().pack_function(find_function(target))
    except EverfaasError as error:
        yield Check("function", FAIL, error.message, error.hint or "")
        return
    for warning in packed.warnings:
        yield Check("function", WARN, warning, "see docs/shipping.md")
    yield Check("function", OK, f"{target} travels: {size(len(packed.payload))}, {_how(packed.python)}")


def _how(python: str | None) -> str:
    return f"made for Python {python}" if python else "by reference: workers import it"
