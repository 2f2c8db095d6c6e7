"""Which of the user's own modules a function uses, and what of them: those travel with it."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Iterable, Iterator, Mapping
from types import BuiltinFunctionType, ModuleType
from typing import Any

from everfaas_core.shipping.origin import MAIN, Origins
from everfaas_core.shipping.reading import Facts
from everfaas_core.shipping.watching import Watch


class Uses:
    """What one function uses of the user's own modules."""

    def __init__(self, origins: Origins, watch: Watch, warnings: dict[str, None]) -> None:
        self._origins = origins
        self._watch = watch
        self._warnings = warnings
        self._wanted: dict[int, tuple[ModuleType, dict[str, Any]]] = {}
        self.imports = False  # its body imports some of them

    def find(self, facts: Facts, namespace: Mapping[str, Any], closure: Iterable[tuple[str, Any]]) -> None:
        """Look through a function's globals, the variables of its closure, and the imports in its body."""
        variables = [(name, namespace[name]) for name in facts.globals if name in namespace]
        for name, value in (*variables, *closure):
            if isinstance(value, ModuleType):
                self._warn_of_machine_code(value.__name__)
                if name not in facts.bare:
                    self._want(value, facts.names)
            elif isinstance(value, BuiltinFunctionType) and isinstance(value.__module__, str):
                self._warn_of_machine_code(value.__module__)
        for module, names in self._imported(facts, namespace):
            self.imports = True
            self._want(module, facts.names | names)

    @property
    def modules(self) -> list[tuple[ModuleType, dict[str, Any]]]:
        """Each module with the attributes of it that are used."""
        return list(self._wanted.values())

    def _want(self, module: ModuleType, names: Iterable[str]) -> None:
        if not self._origins.by_value(module.__name__):
            return
        _, held = self._wanted.setdefault(id(module), (module, {}))
        holds = vars(module)
        new = sorted(name for name in names if name not in held and not name.startswith("__"))
        self._watch.names(holds, new)
        for name in new:
            if name in holds:
                held[name] = value = holds[name]
                if isinstance(value, ModuleType):
                    self._want(value, names)

    def _imported(self, facts: Facts, namespace: Mapping[str, Any]) -> Iterator[tuple[ModuleType, frozenset[str]]]:
        """Yield modules that import statements name, with what they take of each."""
        for one in facts.imports:
            name = _absolute(one.name, one.level, namespace)
            if name == MAIN or not self._origins.by_value(name):
                self._warn_of_machine_code(name)
                continue
            try:
                module = importlib.import_module(name)
                for part in one.names:
                    if not hasattr(module, part):  # a submodule
                        importlib.import_module(f"{name}.{part}")
            except Exception as error:  # noqa: BLE001 - a user's module can raise anything when it is imported
                said = f"{type(error).__name__}: {error}"
                self._warn(
                    f"the body imports {name!r}, which can't be imported here ({said}) and so does not travel: workers "
                    f"need it"
                )
                self._watch.steady = False
                continue
            self._watch.names(sys.modules, [name])
            parts = name.split(".")
            for length in range(1, len(parts)):  # import a.b.c binds a, in which b is looked up, …
                yield sys.modules[".".join(parts[:length])], frozenset({parts[length]})
            yield module, frozenset(one.names)

    def _warn_of_machine_code(self, name: str) -> None:
        if self._origins.compiled(name):
            self._warn(f"{name!r} is machine code, which does not travel: workers need it installed")

    def _warn(self, text: str) -> None:
        self._warnings[text] = None


def _absolute(name: str, level: int, namespace: Mapping[str, Any]) -> str:
    if not level:
        return name
    package = namespace.get("__package__") or str(namespace.get("__name__", "")).rpartition(".")[0]
    try:
        return importlib.util.resolve_name("." * level + name, package)
    except ImportError:
        return name
