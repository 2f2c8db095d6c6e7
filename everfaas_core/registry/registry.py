"""Select, load and build: from a name on the command line to an object that fits its port."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import pluggy

from everfaas_core.hookspecs import (
    PROJECT,
    Mode,
    Options,
    SourceProvider,
    Specs,
    StoreProvider,
    StrategyProvider,
    Transport,
)
from everfaas_core.model.errors import EverfaasError, PluginError
from everfaas_core.model.records import TaskDefaults
from everfaas_core.ports import Link, LinkContext, Store, Strategy, TaskSource, Uplink, UplinkContext
from everfaas_core.registry.catalog import Catalog, Plugin, clash
from everfaas_core.registry.fit import check_fit
from everfaas_core.registry.loading import load_plugin

if TYPE_CHECKING:
    import click
    import flask

Provider = Mode | Transport | StoreProvider | StrategyProvider | SourceProvider
P = TypeVar("P", bound=Provider)
T = TypeVar("T")

_HOOK_OF: dict[str, tuple[str, type]] = {
    "mode": ("everfaas_modes", Mode),
    "transport": ("everfaas_transports", Transport),
    "store": ("everfaas_stores", StoreProvider),
    "strategy": ("everfaas_strategies", StrategyProvider),
    "source": ("everfaas_sources", SourceProvider),
}


class Offer(Generic[P]):
    """A provider, and the plugin to blame for it."""

    def __init__(self, kind: str, provider: P, plugin: Plugin) -> None:
        self.kind = kind
        self.provider = provider
        self.plugin = plugin

    @property
    def name(self) -> str:
        """The provider's name."""
        return self.provider.name

    def __str__(self) -> str:
        return f"the {self.kind} '{self.name}' of {self.plugin}"


def split_selection(words: Iterable[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Split the values of `-p` into plugins to load and plugins to block: NAME, no:NAME."""
    words = list(words)
    wanted = tuple(word for word in words if not word.startswith("no:"))
    blocked = tuple(word.removeprefix("no:") for word in words if word.startswith("no:"))
    return wanted, blocked


class Registry:
    """Imports what is selected, once each, and nothing else. Every method raises PluginError with the culprit."""

    def __init__(self, catalog: Catalog, *, extra: Sequence[str] = (), blocked: Sequence[str] = ()) -> None:
        for name in blocked:
            if name not in catalog.names("plugin"):
                catalog.plugin(name)  # raises: blocking a plugin that is not there is a slip of the pen
        self.catalog = catalog
        self._blocked = frozenset(blocked)
        self._manager = pluggy.PluginManager(PROJECT)
        self._manager.add_hookspecs(Specs)
        self._plugins: dict[str, Plugin] = {}
        self._offers: dict[tuple[str, str], list[Offer[Any]]] = {}
        for name in extra:
            self.load(name)

    def load(self, name: str) -> Plugin:
        """Import the plugin of this name, check it, and take in what it offers. A second call does nothing."""
        return self._load(self.catalog.plugin(name), f"plugin '{name}'")

    def _check_blocked(self, plugin: Plugin, needed_for: str) -> None:
        if plugin.name in self._blocked:
            raise PluginError(
                f"{plugin} is blocked by '-p no:{plugin.name}', and {needed_for} needs it",
                hint="take away the block, or select something else",
            )

    def _load(self, plugin: Plugin, needed_for: str) -> Plugin:
        self._check_blocked(plugin, needed_for)
        if plugin.name not in self._plugins:
            load_plugin(self._manager, plugin)
            self._plugins[plugin.name] = plugin
            self._take_in(plugin)
        return plugin

    def _take_in(self, plugin: Plugin) -> None:
        for kind, (hook, expected) in _HOOK_OF.items():
            for provider in self._call(hook, plugin):
                _check_provider(provider, expected, hook, plugin)
                offers = self._offers.setdefault((kind, provider.name), [])
                offers.append(Offer(kind, provider, plugin))
                if len(offers) > 1:
                    raise clash(f"{kind} '{provider.name}'", [offer.plugin for offer in offers])

    def _call(self, hook: str, plugin: Plugin) -> list[Any]:
        """Call one hook of one plugin, so that whatever goes wrong has a name."""
        for implementation in getattr(self._manager.hook, hook).get_hookimpls():
            if implementation.plugin_name == plugin.name:
                try:
                    return list(implementation.function())
                except Exception as error:
                    raise PluginError(f"{hook} of {plugin} raised {type(error).__name__}: {error}") from error
        return []

    def check(self, kind: str, name: str) -> None:
        """Raise PluginError when `name` can't be selected as a `kind`: unknown, blocked, claimed twice."""
        self._check_blocked(self.catalog.find(kind, name), f"the {kind} '{name}'")

    def offers(self, kind: str, name: str) -> bool:
        """Tell whether something installed offers `name`; imports only a plugin whose metadata says nothing."""
        if name in self.catalog.names(kind):
            return True
        if name in self.catalog.undeclared():
            self.load(name)
        return (kind, name) in self._offers

    # ── offers ───────────────────────────────────────────────────────────────────────────────────────────────────────

    def _find(self, kind: str, name: str) -> Offer[Any]:
        offers = self._offers.get((kind, name))
        if not offers or name in self.catalog.names(kind):  # a plugin loaded by `-p` must not shadow a declared one
            plugin = self._load(self.catalog.find(kind, name), f"the {kind} '{name}'")
            offers = self._offers.get((kind, name))
            if not offers:
                hook = _HOOK_OF[kind][0]
                raise PluginError(
                    f"{plugin} offers no {kind} '{name}'",
                    hint=f"its metadata and its {hook} disagree, or it is another kind of plugin; "
                    f"installed: {', '.join(self.catalog.names(kind)) or 'none'}",
                )
        return offers[0]

    def mode(self, name: str) -> Offer[Mode]:
        """Load and return a dispatch mode."""
        return self._find("mode", name)

    def transport(self, name: str) -> Offer[Transport]:
        """Load and return a worker transport."""
        return self._find("transport", name)

    def store(self, url: str) -> Offer[StoreProvider]:
        """Load and return the store for a URL (or for a bare scheme, such as `memory`).

        A plugin may serve several schemes with one provider; it is found by the plugin that the scheme names.
        """
        scheme = url.split(":", 1)[0]
        plugin = self._load(self.catalog.find("store", scheme), f"the store '{scheme}'")
        offers = [
            o for (kind, _), found in self._offers.items() if kind == "store" for o in found if o.plugin is plugin
        ]
        exact = [offer for offer in offers if offer.name == scheme]
        if not offers:
            raise PluginError(f"{plugin} offers no store", hint="its metadata and its everfaas_stores disagree")
        if not exact and len(offers) > 1:
            raise PluginError(f"{plugin} offers several stores, none of them named '{scheme}'")
        return (exact or offers)[0]

    def strategy(self, name: str) -> Offer[StrategyProvider]:
        """Load and return a placement strategy."""
        return self._find("strategy", name)

    def source(self, name: str) -> Offer[SourceProvider]:
        """Load and return a task source."""
        return self._find("source", name)

    def siblings(self, offer: Offer[Any]) -> Sequence[Offer[Any]]:
        """Return all offers of that plugin under that name: they share one section of options."""
        every = (o for found in self._offers.values() for o in found)
        return [o for o in every if o.plugin is offer.plugin and o.name == offer.name]

    # ── objects ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def build_link(self, offer: Offer[Mode], context: LinkContext) -> Link:
        """Make the dispatcher's link of a mode."""
        link: Link = _build(offer, Link, lambda: offer.provider.factory(context))
        if link.credit not in ("granted", "capacity"):
            raise PluginError(f'the Link that {offer} makes has credit {link.credit!r}, not "granted" or "capacity"')
        return link

    def build_uplink(self, offer: Offer[Transport], context: UplinkContext) -> Uplink:
        """Make a worker's uplink."""
        uplink: Uplink = _build(offer, Uplink, lambda: offer.provider.factory(context))
        return uplink

    def build_store(self, offer: Offer[StoreProvider], url: str, options: Options, defaults: TaskDefaults) -> Store:
        """Make a store, not yet connected."""
        store: Store = _build(offer, Store, lambda: offer.provider.factory(url, options, defaults))
        return store

    def build_strategy(self, offer: Offer[StrategyProvider], options: Options) -> Strategy:
        """Make a placement strategy."""
        strategy: Strategy = _build(offer, Strategy, lambda: offer.provider.factory(options))
        return strategy

    def build_source(self, offer: Offer[SourceProvider], options: Options) -> TaskSource:
        """Make a task source."""
        source: TaskSource = _build(offer, TaskSource, lambda: offer.provider.factory(options))
        return source

    def blueprints(self) -> Sequence[flask.Blueprint]:
        """Return the API routes that the loaded plugins offer."""
        import flask

        return [item for _, item in self._typed("everfaas_blueprints", flask.Blueprint)]

    def command(self, name: str) -> click.Command | None:
        """Return the subcommand `name` of the plugin of that name, which is loaded for it; None if it has none."""
        import click

        plugin = self.load(name)
        found = [(p, item) for p, item in self._typed("everfaas_commands", click.Command) if p is plugin]
        return next((item for _, item in found if item.name == name), None)

    def _typed(self, hook: str, expected: type[T]) -> list[tuple[Plugin, T]]:
        found: list[tuple[Plugin, T]] = []
        for plugin in self._plugins.values():
            for item in self._call(hook, plugin):
                if not isinstance(item, expected):
                    raise _wrong_type(item, expected, hook, plugin)
                found.append((plugin, item))
        return found


def _wrong_type(item: object, expected: type, hook: str, plugin: Plugin) -> PluginError:
    return PluginError(
        f"{hook} of {plugin} returned {type(item).__name__} where a {expected.__name__} belongs",
        hint="a hook returns a list of providers, see docs/plugins.md",
    )


def _check_provider(provider: Any, expected: type, hook: str, plugin: Plugin) -> None:
    if not isinstance(provider, expected):
        raise _wrong_type(provider, expected, hook, plugin)
    problems = []
    if not (isinstance(provider.name, str) and provider.name):  # type: ignore[attr-defined]
        problems.append("its name is not a text")
    if not callable(provider.factory):  # type: ignore[attr-defined]
        problems.append("its factory is not callable")
    if provider.options is not None and not _is_schema(provider.options):  # type: ignore[attr-defined]
        problems.append("its options are not a marshmallow Schema class")
    if problems:
        raise PluginError(f"{hook} of {plugin} offers a {expected.__name__} that is not fit: {'; '.join(problems)}")


def _is_schema(options: object) -> bool:
    import marshmallow

    return isinstance(options, type) and issubclass(options, marshmallow.Schema)


def _build(offer: Offer[Any], port: type, make: Callable[[], Any]) -> Any:
    try:
        made = make()
    except EverfaasError:
        raise
    except Exception as error:
        raise PluginError(f"the factory of {offer} raised {type(error).__name__}: {error}") from error
    problems = check_fit(made, port)
    if problems:
        raise PluginError(
            f"the factory of {offer} made a {type(made).__name__}, which is no {port.__name__}: {'; '.join(problems)}",
            hint=f"see {port.__name__} in everfaas_core/ports.py",
        )
    return made
