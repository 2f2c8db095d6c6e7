"""From settings to plugins: what a role needs, loaded, with its options validated."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

from everfaas_core.config.options import check_sections, plugin_options
from everfaas_core.config.settings import Settings
from everfaas_core.model.errors import ConfigError
from everfaas_core.model.records import TaskDefaults
from everfaas_core.ports import Store
from everfaas_core.registry import KINDS, Catalog, Offer, Registry, split_selection


def open_registry(settings: Settings) -> Registry:
    """Read what is installed, and load what `-p` names. Raises PluginError, or ConfigError for a stray section."""
    extra, blocked = split_selection(settings.plugins)
    registry = Registry(Catalog.installed(), extra=extra, blocked=blocked)
    check_sections(settings.plugin_values, installed_names(registry.catalog))
    return registry


def installed_names(catalog: Catalog) -> list[str]:
    """Return all names that a plugin's options may belong to."""
    return sorted({*itertools.chain.from_iterable(catalog.names(kind) for kind in ("plugin", *KINDS))})


def offers_needed(
    registry: Registry, settings: Settings, needs: Sequence[str], transport: str | None = None
) -> list[Offer[Any]]:
    """Load and return what a role with these needs ("mode", "strategy", "store", "source", "transport") selects."""
    offers: list[Offer[Any]] = []
    if "store" in needs and settings.store != "embedded":
        offers.append(registry.store(settings.store))
    if "mode" in needs:
        mode = registry.mode(settings.mode)
        offers.append(mode)
        if "strategy" in needs:
            offers.append(registry.strategy(settings.strategy or mode.provider.strategy))
    if "source" in needs:
        offers.extend(registry.source(name) for name in settings.source)
    if "transport" in needs and transport:
        offers.append(registry.transport(transport))
    return offers


def options_of(registry: Registry, settings: Settings, offer: Offer[Any]) -> dict[str, Any]:
    """Return the validated options of an offer. Raises ConfigError."""
    return plugin_options(
        offer.name,
        offer.provider.options,
        settings.plugin_values,
        siblings=[sibling.provider.options for sibling in registry.siblings(offer)],
        installed=installed_names(registry.catalog),
    )


def make_store(registry: Registry, settings: Settings, *, one_process: bool = False) -> Store:
    """Make the store that `--store` names, not yet connected.

    Raises ConfigError for a store that lives in one process, unless this process is to hold all roles.
    """
    offer, options = choose_store(registry, settings, one_process=one_process)
    defaults = TaskDefaults(max_attempts=settings.max_attempts, result_ttl_s=settings.result_ttl_s)
    return registry.build_store(offer, settings.store, options, defaults)


def choose_store(
    registry: Registry, settings: Settings, *, one_process: bool = False
) -> tuple[Offer[Any], dict[str, Any]]:
    """Return the offer of the store that `--store` names, and its validated options. Raises what `make_store` does."""
    if settings.store == "embedded":
        raise ConfigError(
            "--store embedded is for `everfaas up`, which runs the store itself",
            hint="run `everfaas store` in another terminal, and leave --store at redis://127.0.0.1:6379/0",
        )
    offer = registry.store(settings.store)
    if not offer.provider.shared and not one_process:
        raise ConfigError(
            f"--store {settings.store} lives inside one process, so separate roles can't share it",
            hint=f"use `everfaas up --store {settings.store}`, or `everfaas store` and the default --store",
        )
    return offer, options_of(registry, settings, offer)
