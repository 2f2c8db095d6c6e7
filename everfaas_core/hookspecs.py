"""The whole extension surface of EverythingFaaS, on one page.

A plugin is a module (or object) that an entry point in the group `everfaas` names. Its hook functions are called once,
at boot, and return *providers*: a name, a summary, a factory, perhaps options. The factory is called once when its
provider was selected, and returns an object that fits a port (`everfaas_core.ports`). No hook is called per task.

    [project.entry-points.everfaas]
    mymode = "everfaas_mymode"

Only plugins that were selected (by `-m`, `--strategy`, `--store`, `--source`, `-p`) are ever imported.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final

import pluggy
from msgspec import Struct

from everfaas_core.model.records import TaskDefaults
from everfaas_core.ports import Link, LinkContext, Store, Strategy, TaskSource, Uplink, UplinkContext

if TYPE_CHECKING:
    import click
    import flask
    import marshmallow

API_VERSION: Final = 1
"""What a plugin states as `EVERFAAS_API_VERSION`; another number is refused with the name of the distribution."""

PROJECT: Final = "everfaas"
hookspec: Final = pluggy.HookspecMarker(PROJECT)
hookimpl: Final = pluggy.HookimplMarker(PROJECT)

Options = Mapping[str, Any]


class Mode(Struct, frozen=True, kw_only=True):
    """A dispatch mode: how a dispatcher reaches executing capacity. Selected by `-m NAME`."""

    name: str
    summary: str
    factory: Callable[[LinkContext], Link]
    strategy: str  # the placement strategy it uses unless `--strategy` names another
    runs_slots: bool = False  # True: it runs `-w` slots itself, and needs no workers
    options: type[marshmallow.Schema] | None = None


class Transport(Struct, frozen=True, kw_only=True):
    """A worker's way to its dispatcher. Selected by the first argument of `run_worker.py`; bears its mode's name."""

    name: str
    summary: str
    factory: Callable[[UplinkContext], Uplink]
    options: type[marshmallow.Schema] | None = None


class StoreProvider(Struct, frozen=True, kw_only=True):
    """A store. Selected by the scheme of `--store URL` (entry-point group `everfaas.schemes`)."""

    name: str
    summary: str
    factory: Callable[[str, Options, TaskDefaults], Store]  # (url, options, defaults) → store, not yet connected
    shared: bool = True  # False: lives in one process, so all roles must run in it
    options: type[marshmallow.Schema] | None = None


class StrategyProvider(Struct, frozen=True, kw_only=True):
    """A placement strategy. Selected by `--strategy NAME`."""

    name: str
    summary: str
    factory: Callable[[Options], Strategy]
    options: type[marshmallow.Schema] | None = None


class SourceProvider(Struct, frozen=True, kw_only=True):
    """A task source: something besides the API that submits tasks. Selected by `--source NAME` (repeatable)."""

    name: str
    summary: str
    factory: Callable[[Options], TaskSource]
    options: type[marshmallow.Schema] | None = None


class Specs:
    """The hooks. Each is called once at boot on the selected plugins, and returns providers, perhaps none."""

    @hookspec
    def everfaas_modes(self) -> Iterable[Mode]:
        """Offer dispatch modes.

        Called when a dispatcher starts, on the plugin that `-m` names.

            @hookimpl
            def everfaas_modes():
                return [Mode(name="mymode", summary="…", factory=MyLink, strategy="least-loaded")]
        """
        raise NotImplementedError  # pluggy never calls a specification

    @hookspec
    def everfaas_transports(self) -> Iterable[Transport]:
        """Offer worker transports.

        Called when a worker starts, on the plugin that its first argument names.

            @hookimpl
            def everfaas_transports():
                return [Transport(name="mymode", summary="…", factory=MyUplink)]
        """
        raise NotImplementedError

    @hookspec
    def everfaas_stores(self) -> Iterable[StoreProvider]:
        """Offer stores.

        Called when a role that needs the store starts, on the plugin that the scheme of `--store` names.

            @hookimpl
            def everfaas_stores():
                return [StoreProvider(name="mystore", summary="…", factory=MyStore)]
        """
        raise NotImplementedError

    @hookspec
    def everfaas_strategies(self) -> Iterable[StrategyProvider]:
        """Offer placement strategies.

        Called when a dispatcher starts, on the plugin that `--strategy` or its mode names.

            @hookimpl
            def everfaas_strategies():
                return [StrategyProvider(name="mystrategy", summary="…", factory=lambda options: MyStrategy())]
        """
        raise NotImplementedError

    @hookspec
    def everfaas_sources(self) -> Iterable[SourceProvider]:
        """Offer task sources.

        Called when a dispatcher starts, on each plugin that `--source` names.

            @hookimpl
            def everfaas_sources():
                return [SourceProvider(name="mysource", summary="…", factory=lambda options: MySource())]
        """
        raise NotImplementedError

    @hookspec
    def everfaas_blueprints(self) -> Iterable[flask.Blueprint]:
        """Offer API routes.

        Called when an API process starts, on each plugin that `-p NAME` names. The routes share the API's checks
        (host, content type, limits) and its one error shape.

            @hookimpl
            def everfaas_blueprints():
                return [my_blueprint]
        """
        raise NotImplementedError

    @hookspec
    def everfaas_commands(self) -> Iterable[click.Command]:
        """Offer subcommands of `everfaas`.

        Called on the plugin whose entry-point name is the command that was typed.

            @hookimpl
            def everfaas_commands():
                return [my_command]
        """
        raise NotImplementedError
