"""Which modules are the user's own, and so travel by value; all others are imported where the function runs."""

from __future__ import annotations

import importlib.util
import os
import sys
import sysconfig
from collections.abc import Iterable
from importlib.machinery import EXTENSION_SUFFIXES
from types import ModuleType
from typing import Final

from everfaas_core.shipping.trouble import NotShippable

MAIN: Final = "__main__"
ON_WORKERS: Final = frozenset({"everfaas_core", "everfaas_plugins", "cloudpickle", "dill"})
"""Never by value: every worker has them."""

INSTALLED: Final = ("site-packages", "dist-packages")


class Origins:
    """Decides by where a module's file lies; `ship` names packages that travel although they are installed.

    Raises NotShippable if a name in `ship` is no module that can be found.
    """

    def __init__(self, ship: Iterable[str | ModuleType] = ()) -> None:
        self._ship = frozenset(one.__name__ if isinstance(one, ModuleType) else one for one in ship)
        self._standard = tuple(
            os.path.realpath(path) + os.sep
            for path in {sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib")}
            if path
        )
        self._known: dict[str, bool] = {}
        self._compiled: dict[str, bool] = {}
        for name in self._ship:
            if name not in sys.modules and _spec_file(name) is _ABSENT:
                raise NotShippable(
                    f"ship names {name!r}, and there is no such module here",
                    hint="ship takes names of modules and packages that can be imported",
                )

    def by_value(self, name: str | None) -> bool:
        """Tell whether what a module holds travels by value. Modules that are nowhere (None, made by hand) do."""
        if name is None or name == MAIN or name == "__mp_main__":
            return True
        known = self._known.get(name)
        if known is None:
            known = self._decide(name)
            if name in sys.modules:  # else it may still come, from wherever
                self._known[name] = known
        return known

    def _decide(self, name: str) -> bool:
        root = name.partition(".")[0]
        if root in ON_WORKERS:
            return False
        module = sys.modules.get(name)
        file = _spec_file(root) if module is None else _file_of(module)
        if file is _ABSENT:
            return False  # the import will say so where it is tried
        if file is None:  # built in or frozen; or made by hand, and then no import finds it
            return (
                module is not None and root not in sys.stdlib_module_names and getattr(module, "__spec__", None) is None
            )
        if file.endswith(tuple(EXTENSION_SUFFIXES)):
            return False  # machine code stays where it was built
        return not self.installed(file) or any(name == one or name.startswith(one + ".") for one in self._ship)

    def installed(self, file: str) -> bool:
        """Tell whether a file belongs to the standard library or to an installed distribution."""
        real = os.path.realpath(file)
        return real.startswith(self._standard) or any(part in INSTALLED for part in real.split(os.sep))

    def compiled(self, name: str) -> bool:
        """Tell whether a module is the user's own and machine code: it does not travel, and workers may lack it."""
        known = self._compiled.get(name)
        if known is None:
            module = sys.modules.get(name)
            file = None if module is None else _file_of(module)
            known = file is not None and file.endswith(tuple(EXTENSION_SUFFIXES)) and not self.installed(file)
            self._compiled[name] = known
        return known


_ABSENT: Final = "\0absent"


def _file_of(module: ModuleType) -> str | None:
    file = getattr(module, "__file__", None)
    if isinstance(file, str):
        return file
    try:  # a package without __init__.py
        return next(iter(module.__path__), None)
    except (AttributeError, TypeError):
        return None


def _spec_file(root: str) -> str | None:
    """Return where a module that is not imported lies, None if it has no file, _ABSENT if there is none."""
    try:
        spec = importlib.util.find_spec(root)
    except (ImportError, ValueError, AttributeError):
        spec = None
    if spec is None:
        return _ABSENT
    if spec.submodule_search_locations:
        return next(iter(spec.submodule_search_locations))
    return spec.origin if spec.has_location else None
