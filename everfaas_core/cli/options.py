"""From the table of keys to flags, and from the schemas of selected plugins to more flags."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click
from click.core import ParameterSource

from everfaas_core.config.keys import KEYS, Key
from everfaas_core.config.settings import Settings
from everfaas_core.model.errors import EverfaasError, PluginError

if TYPE_CHECKING:
    from everfaas_core.registry import Registry

F = TypeVar("F", bound=Callable[..., Any])

COMMON: Final = ("store", "plugins", "insecure", "log_format", "log_level")
WORKER_PORT_OR_PLUGIN: Final = "p_words"
_PLUGIN_PARAMETER: Final = "plugin_option_"
_PARAMETERS_KEY: Final = "everfaas.plugin_parameters"


def settings_options(
    *names: str, defaults: Mapping[str, object] | None = None, also: Mapping[str, Sequence[str]] | None = None
) -> Callable[[F], F]:
    """Give a command the flags of these keys, `--config`, and `-p`.

    Values stay text; `load_settings` validates them, so that a bad one gets the same message from every layer. `also`
    maps keys to further flags that this command has for them.
    """
    defaults = defaults or {}
    also = also or {}

    def decorate(function: F) -> F:
        options = [_option(KEYS[name], defaults.get(name), also.get(name, ())) for name in names]
        options.append(_p_option(with_port="worker_port" in names))
        options.append(click.Option(["--config"], metavar="FILE", help="Config file (TOML)."))
        parameters = getattr(function, "__click_params__", [])
        function.__click_params__ = [*parameters, *reversed(options)]  # type: ignore[attr-defined] # click's own way
        return function

    return decorate


def _option(key: Key, default: object, further: Sequence[str]) -> click.Option:
    flags = [*([key.short] if key.short else []), *further, key.option, key.name]
    if default is None:
        default = getattr(Settings(), key.attribute)
    shown = "" if key.switch or default in (None, ()) else f"  [default: {default}]"
    if key.switch:
        return click.Option(flags, is_flag=True, help=key.help)
    return click.Option(flags, multiple=key.repeat, metavar=key.metavar, help=key.help + shown)


def _p_option(*, with_port: bool) -> click.Option:
    """Make `-p`: in the classic commands it is the worker port, everywhere it selects plugins; a digit tells."""
    text = "Short for --plugin; a number is short for --worker-port." if with_port else "Short for --plugin."
    return click.Option(
        ["-p", WORKER_PORT_OR_PLUGIN], multiple=True, metavar="NAME|N" if with_port else "NAME", help=text
    )


def read_flags(ctx: click.Context) -> tuple[dict[str, object], dict[str, Any]]:
    """Return what the command line said: key → value for `load_settings`, and flag → value for plugins."""
    flags: dict[str, object] = {}
    plugin_flags: dict[str, Any] = {}
    for parameter in ctx.command.get_params(ctx):
        name = parameter.name or ""
        if ctx.get_parameter_source(name) is not ParameterSource.COMMANDLINE:
            continue
        if name.startswith(_PLUGIN_PARAMETER):
            plugin_flags[parameter.opts[0]] = ctx.params[name]
        elif name in KEYS or name == "config":
            flags[name] = ctx.params[name]
    _spread_p(ctx, ctx.params.get(WORKER_PORT_OR_PLUGIN, ()), flags)
    return flags, plugin_flags


def _spread_p(ctx: click.Context, words: Sequence[str], flags: dict[str, object]) -> None:
    with_port = any(parameter.name == "worker_port" for parameter in ctx.command.params)
    for word in words:
        if not word.lstrip("-").isdigit():
            flags["plugins"] = (*_words(flags.get("plugins")), word)
        elif with_port:
            flags["worker_port"] = word
        else:
            raise click.UsageError(f"-p {word}: this command has no worker port; -p takes a plugin's name here", ctx)


def _words(value: object) -> tuple[str, ...]:
    return tuple(value) if isinstance(value, (tuple, list)) else ()


class RoleCommand(click.Command):
    """A command that also has the flags which the schemas of the selected plugins ask for."""

    def __init__(
        self, *args: Any, needs: Sequence[str] = (), defaults: Mapping[str, object] | None = None, **kwargs: Any
    ):
        kwargs.setdefault("context_settings", {"help_option_names": ["-h", "--help"]})
        super().__init__(*args, **kwargs)
        self.needs = tuple(needs)
        self.defaults = dict(defaults or {})

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        """Return our parameters and those found by `parse_args`."""
        return [*super().get_params(ctx), *ctx.meta.get(_PARAMETERS_KEY, [])]

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse. A flag that we do not know makes us ask the plugins that the other flags select."""
        known = {flag for parameter in self.get_params(ctx) for flag in (*parameter.opts, *parameter.secondary_opts)}
        flags = [word.split("=", 1)[0] for word in _before_separator(args) if word.startswith("--") and len(word) > 2]
        if any(flag not in known for flag in flags):
            ctx.meta[_PARAMETERS_KEY] = self._plugin_parameters(ctx, args, known)
        elif "--help" in flags:
            with contextlib.suppress(EverfaasError):  # help never fails for a setting that is wrong
                ctx.meta[_PARAMETERS_KEY] = self._plugin_parameters(ctx, args, known)
        return super().parse_args(ctx, args)

    def _plugin_parameters(self, ctx: click.Context, args: list[str], known: set[str]) -> list[click.Parameter]:
        from everfaas_core.cli.selection import offers_needed, open_registry
        from everfaas_core.config.layers import load_settings

        parser = self.make_parser(ctx)
        parser.ignore_unknown_options = True
        values, rest, _ = parser.parse_args(list(args))
        flags = {name: value for name, value in values.items() if name in KEYS or name == "config"}
        flags.pop("insecure", None)  # a switch: its parsed value is not text, and it selects nothing
        _spread_p(ctx, values.get(WORKER_PORT_OR_PLUGIN) or (), flags)
        settings = load_settings(flags, defaults=self.defaults)
        registry = open_registry(settings)
        transport = _first_of(rest, registry)
        parameters: list[click.Parameter] = []
        for offer in offers_needed(registry, settings, self.needs, transport):
            parameters.extend(_schema_parameters(offer.name, offer, known))
        return parameters


def _before_separator(args: Sequence[str]) -> Sequence[str]:
    return args[: args.index("--")] if "--" in args else args


def _first_of(words: Sequence[str], registry: Registry) -> str | None:
    """Find a worker's MODE among what a parse that ignores unknown flags has left over."""
    names = registry.catalog.names("transport")
    return next((word for word in words if word in names), None)


def _schema_parameters(name: str, offer: Any, known: set[str]) -> list[click.Parameter]:
    if offer.provider.options is None:
        return []
    from marshmallow import fields

    from everfaas_core.config.options import option_flag, schema_fields

    parameters: list[click.Parameter] = []
    for key, field in schema_fields(offer.provider.options).items():
        flag = option_flag(name, key)
        if flag in known:
            raise PluginError(f"{offer} has an option '{key}' whose flag {flag} is taken", hint="rename the option")
        known.add(flag)
        parameters.append(
            click.Option(
                [flag, _PLUGIN_PARAMETER + flag.strip("-").replace("-", "_")],
                multiple=isinstance(field, fields.List),
                metavar=type(field).__name__.upper(),
                help=str(field.metadata.get("description", "")) or f"An option of {name}.",
            )
        )
    return parameters
