"""Import one selected plugin and check it, before any of it is used. Every error names its distribution."""

from __future__ import annotations

import inspect
import sys
from typing import Any, Final

import pluggy

from everfaas_core.hookspecs import API_VERSION, PROJECT, Specs
from everfaas_core.model.errors import PluginError
from everfaas_core.registry.catalog import Plugin, near_names

_HOOK_PREFIX: Final = f"{PROJECT}_"
HOOKS: Final = frozenset(name for name in vars(Specs) if name.startswith(_HOOK_PREFIX))


def load_plugin(manager: pluggy.PluginManager, plugin: Plugin) -> None:
    """Import `plugin` and register it. Raises PluginError; then nothing of it is registered."""
    loaded = _import(plugin)
    _check_version(loaded, plugin)
    _check_hook_names(loaded, plugin)
    try:
        manager.register(loaded, name=plugin.name)
        manager.check_pending()
    except (pluggy.PluginValidationError, ValueError) as error:
        if manager.has_plugin(plugin.name):
            manager.unregister(name=plugin.name)
        problem = str(error).replace("\n", " ")
        raise PluginError(f"{plugin} does not fit the hooks: {problem}", hint="see docs/plugins.md") from error
    for caller in manager.get_hookcallers(manager.get_plugin(plugin.name)) or []:
        for implementation in caller.get_hookimpls():
            if implementation.plugin_name == plugin.name and (implementation.wrapper or implementation.hookwrapper):
                manager.unregister(name=plugin.name)
                raise PluginError(f"{plugin} implements {caller.name} as a wrapper, which no hook of ours allows")


def _import(plugin: Plugin) -> Any:
    try:
        return plugin.entry.load()
    except (Exception, SystemExit) as error:
        raise PluginError(
            f"{plugin} can't be imported from '{plugin.value}': {type(error).__name__}: {error}",
            hint=_import_remedy(plugin, error),
        ) from error


def _import_remedy(plugin: Plugin, error: BaseException) -> str:
    if isinstance(error, ModuleNotFoundError) and error.name and not plugin.value.startswith(error.name):
        return f"is the module '{error.name}' installed? `pip check` tells what {plugin.distribution} lacks"
    return f"reinstall it: pip install --force-reinstall {plugin.distribution}"


def _check_version(loaded: Any, plugin: Plugin) -> None:
    stated = getattr(loaded, "EVERFAAS_API_VERSION", None)
    if stated is None and not inspect.ismodule(loaded):
        stated = getattr(sys.modules[plugin.entry.module], "EVERFAAS_API_VERSION", None)
    if stated == API_VERSION:
        return
    says = "states no EVERFAAS_API_VERSION" if stated is None else f"is made for plugin API version {stated!r}"
    raise PluginError(
        f"{plugin} {says}; this EverythingFaaS has version {API_VERSION}",
        hint=f"install a release of {plugin.distribution} for API version {API_VERSION}",
    )


def _check_hook_names(loaded: Any, plugin: Plugin) -> None:
    implemented = 0
    for name, member in inspect.getmembers(loaded, inspect.isroutine):
        marked = hasattr(member, f"{PROJECT}_impl")
        if name.startswith(_HOOK_PREFIX) and name not in HOOKS:
            near = near_names(name, HOOKS)
            wish = f"did you mean {near[0]}?" if near else f"the hooks are {', '.join(sorted(HOOKS))}"
            raise PluginError(f"{plugin} implements an unknown hook, {name}", hint=wish)
        if name in HOOKS and not marked:
            raise PluginError(
                f"{plugin} defines {name} but does not mark it", hint="write @hookimpl above it, or rename it"
            )
        implemented += marked
    if not implemented:
        raise PluginError(f"{plugin} implements no hook", hint="see docs/plugins.md for the hooks that there are")
