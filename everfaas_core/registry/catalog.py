"""What is installed, read from the metadata of distributions: nothing is imported to list or to find a plugin.

Two kinds of entry-point groups are read:

- `everfaas` names the plugins: `pull = "everfaas_plugins.pull"`.
- `everfaas.modes`, `.transports`, `.schemes`, `.strategies`, `.sources` say what a plugin offers, under the names that
  a command line uses, each pointing at a plugin's value: `rediss = "everfaas_plugins.redis"`.

A plugin for which no such line exists may offer anything under its own name; it is imported to find out, once selected.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from importlib import metadata
from typing import Any, Final

from everfaas_core.model.errors import PluginError

GROUP: Final = "everfaas"

KINDS: Final[Mapping[str, str]] = {
    "mode": "everfaas.modes",
    "transport": "everfaas.transports",
    "store": "everfaas.schemes",
    "strategy": "everfaas.strategies",
    "source": "everfaas.sources",
}

_SPOKEN: Final[Mapping[str, tuple[str, str]]] = {
    # in messages: one, several
    "plugin": ("plugin", "plugins"),
    "mode": ("mode", "modes"),
    "transport": ("worker mode", "worker modes"),
    "store": ("store", "store schemes"),
    "strategy": ("strategy", "strategies"),
    "source": ("task source", "task sources"),
}


class Plugin:
    """An installed plugin, not imported. Its distribution's metadata is parsed only when a message needs it."""

    def __init__(self, entry: metadata.EntryPoint) -> None:
        self.entry = entry
        self.name = entry.name
        self.value = entry.value  # "package.module", perhaps ":object"

    @property
    def distribution(self) -> str:
        """The name of the distribution that brings it, as `pip` knows it."""
        return str(self.entry.dist.name) if self.entry.dist is not None else "an unknown distribution"

    @property
    def version(self) -> str:
        """The distribution's version."""
        return str(self.entry.dist.version) if self.entry.dist is not None else "?"

    @property
    def origin(self) -> str:
        """The folder that the distribution's metadata lies in."""
        return str(self.entry.dist.locate_file("")) if self.entry.dist is not None else "?"

    @property
    def source(self) -> str:
        """Distribution and version, for messages: "everfaas 0.1.0"."""
        return f"{self.distribution} {self.version}"

    def __str__(self) -> str:
        return f"plugin '{self.name}' of {self.source}"


class Catalog:
    """All installed plugins and what they offer, by metadata."""

    def __init__(self, entries: Iterable[metadata.EntryPoint]) -> None:
        by_group: dict[str, list[metadata.EntryPoint]] = {}
        for entry in entries:
            by_group.setdefault(entry.group, []).append(entry)
        self.plugins: Sequence[Plugin] = sorted(
            (Plugin(entry) for entry in by_group.get(GROUP, [])), key=lambda plugin: (plugin.name, plugin.value)
        )
        self._offers = {kind: by_group.get(group, []) for kind, group in KINDS.items()}

    @classmethod
    def installed(cls) -> Catalog:
        """Read the metadata of everything on `sys.path`, some ten milliseconds."""
        found: list[metadata.EntryPoint] = []
        every = metadata.entry_points()
        for group in (GROUP, *KINDS.values()):
            found.extend(every.select(group=group))
        return cls(found)

    def names(self, kind: str) -> Sequence[str]:
        """Return the names that `kind` ("plugin", or a key of KINDS) can be selected by, sorted."""
        if kind == "plugin":
            return sorted({plugin.name for plugin in self.plugins})
        return sorted({entry.name for entry in self._offers[kind]})

    def undeclared(self) -> Sequence[str]:
        """Return the plugins of which no metadata says what they offer."""
        return sorted({plugin.name for plugin in self.plugins if not self.offers_of(plugin)})

    def offers_of(self, plugin: Plugin) -> Mapping[str, Sequence[str]]:
        """Return what the metadata says this plugin offers: kind → names. Empty when it says nothing."""
        found: dict[str, list[str]] = {}
        for kind, entries in self._offers.items():
            names = [entry.name for entry in entries if entry.value == plugin.value]
            if names:
                found[kind] = sorted(names)
        return found

    def clashes(self) -> Mapping[str, Sequence[Plugin]]:
        """Return the plugin names that more than one distribution claims. Selecting one of them is an error."""
        by_name: dict[str, list[Plugin]] = {}
        for plugin in self.plugins:
            by_name.setdefault(plugin.name, []).append(plugin)
        return {name: plugins for name, plugins in by_name.items() if len(plugins) > 1}

    def plugin(self, name: str) -> Plugin:
        """Return the plugin of this name. Raises PluginError when there is none, or more than one."""
        found = [plugin for plugin in self.plugins if plugin.name == name]
        if not found:
            raise self._unknown("plugin", name)
        if len(found) > 1:
            raise clash(f"plugin name '{name}'", found)
        return found[0]

    def find(self, kind: str, name: str) -> Plugin:
        """Return the plugin that offers `name` as a `kind`. Raises PluginError when none does, or more than one."""
        entries = [entry for entry in self._offers[kind] if entry.name == name]
        if len(entries) > 1:
            raise clash(f"{kind} '{name}'", [Plugin(entry) for entry in entries])
        if not entries:
            if name in self.undeclared():
                return self.plugin(name)
            raise self._unknown(kind, name)
        for plugin in self.plugins:
            if plugin.value == entries[0].value:
                return self.plugin(plugin.name)
        lost = Plugin(entries[0])
        raise PluginError(
            f"{lost.source} offers the {kind} '{name}' by '{lost.value}', which is not one of its plugins",
            hint=f'its metadata needs a line with that value in the entry-point group "{GROUP}"',
        )

    def _unknown(self, kind: str, name: str) -> PluginError:
        installed = self.names(kind)
        one, plural = _SPOKEN[kind]
        listing = f"installed {plural}: {', '.join(installed)}" if installed else f"no {plural} are installed"
        if not self.plugins:
            return PluginError(
                f"unknown {one} '{name}': no plugins are installed",
                hint="install EverythingFaaS with its plugins: pip install .",
            )
        near = near_names(name, installed)
        if near:
            listing = f"did you mean {' or '.join(near)}? {listing}"
        return PluginError(f"unknown {one} '{name}'", hint=listing)


def clash(what: str, plugins: Sequence[Plugin]) -> PluginError:
    """Return the error that blames the distributions which claim one thing."""
    claims = " and ".join(f"{plugin.source} ({plugin.value})" for plugin in plugins)
    names = " or ".join(sorted({plugin.distribution for plugin in plugins}))
    return PluginError(f"two plugins claim the {what}: {claims}", hint=f"uninstall one of them: pip uninstall {names}")


def near_names(name: str, known: Iterable[str]) -> list[str]:
    """Return up to three of `known` that look like `name`."""
    import difflib

    return difflib.get_close_matches(name, list(known), n=3, cutoff=0.6)


def describe(plugin: Plugin, catalog: Catalog) -> dict[str, Any]:
    """Return a plugin as `everfaas plugins --json` shows it."""
    return {
        "name": plugin.name,
        "offers": {kind: list(names) for kind, names in catalog.offers_of(plugin).items()},
        "distribution": plugin.distribution,
        "version": plugin.version,
        "module": plugin.value,
        "origin": plugin.origin,
        "clash": plugin.name in catalog.clashes(),
    }
