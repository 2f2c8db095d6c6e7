"""Read the layers of configuration and merge them: defaults < file < environment < flags."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from everfaas_core.config.keys import KEYS, Key
from everfaas_core.config.settings import LIVENESS_BEATS, PluginValues, Settings
from everfaas_core.model.errors import ConfigError

PREFIX: Final = "EVERFAAS_"
FILE_NAME: Final = "everfaas.toml"

_OTHER_VARIABLES: Final = frozenset({"EVERFAAS_CONFIG", "EVERFAAS_TOKEN"})  # not settings of a role

Layer = dict[str, tuple[object, str]]  # key → (value, where it came from)


def load_settings(
    flags: Mapping[str, object],
    *,
    environ: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    defaults: Mapping[str, object] | None = None,
    plugin_flags: Mapping[str, Any] | None = None,
) -> Settings:
    """Merge all layers into Settings.

    `flags` maps keys to what was given on the command line, `config` (a file's path) among them; `defaults` are this
    command's own, where they differ. Raises ConfigError that names the key, its origin and what is allowed.
    """
    environ = os.environ if environ is None else environ
    cwd = Path.cwd() if cwd is None else cwd
    file = _find_file(flags.get("config"), environ, cwd)
    from_file, sections = _read_file(file) if file else ({}, {})
    from_environ, others = _read_environ(environ)
    from_flags: Layer = {name: (value, KEYS[name].option) for name, value in flags.items() if name != "config"}
    layers = [
        {name: (value, "default") for name, value in (defaults or {}).items()},
        from_file,
        from_environ,
        from_flags,
    ]
    values: dict[str, Any] = {}
    origins = dict.fromkeys(KEYS, "default")
    for layer in layers:
        for name, (value, origin) in layer.items():
            values[name] = _parse(KEYS[name], value, origin)
            origins[name] = origin
    _make_absolute(values, origins, cwd, file)
    if "liveness" not in values:
        values["liveness"] = LIVENESS_BEATS * values.get("heartbeat", Settings().heartbeat_s)
        origins["liveness"] = f"{LIVENESS_BEATS} heartbeats"
    settings = Settings(
        **{KEYS[name].attribute: value for name, value in values.items()},
        sources=origins,
        config_file=str(file) if file else None,
        plugin_values=PluginValues(
            file=str(file) if file else "", sections=sections, environ=others, flags=plugin_flags or {}
        ),
        warnings=tuple(_slips(others)),
    )
    _check_together(settings)
    return settings


def settings_environ(settings: Settings) -> dict[str, str]:
    """Return the environment that makes `load_settings` give a child the same settings, whatever its own flags add.

    Values travel by environment and not by flags because a store's URL may hold a password, which `ps` would show.
    """
    variables: dict[str, str] = {}
    for key in KEYS.values():
        if key.name == "url":  # of clients; what a task's own client is to call, the environment says
            continue
        value = getattr(settings, key.attribute)
        if value is None and key.name == "task_deadline":
            value = "none"
        if isinstance(value, tuple):
            value = key.separator.join(value)
        if isinstance(value, bool):
            value = "1" if value else "0"
        if value is not None and value != "":
            variables[key.variable] = str(value)
    for flag, value in settings.plugin_values.flags.items():
        name = flag.removeprefix("--").replace("-", "_").upper()
        variables[PREFIX + name] = ",".join(value) if isinstance(value, (tuple, list)) else str(value)
    if settings.config_file:
        variables["EVERFAAS_CONFIG"] = settings.config_file
    return variables


def load_url(
    flag: str | None, config: str | None = None, *, environ: Mapping[str, str] | None = None, cwd: Path | None = None
) -> tuple[str, str]:
    """Return the address of the API that a client is to call, and where it came from: flag > environment > file.

    Of the other keys, which are the servers', it looks at none. Raises ConfigError.
    """
    key = KEYS["url"]
    environ = os.environ if environ is None else environ
    file = _find_file(config, environ, Path.cwd() if cwd is None else cwd)
    layers = [_read_file(file)[0] if file else {}, _read_environ(environ)[0]]
    value: object
    value, origin = Settings().url, "default"
    for layer in layers:
        value, origin = layer.get("url", (value, origin))
    if flag is not None:
        value, origin = flag, key.option
    return _parse(key, value, origin), origin


# ── the file ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def _find_file(flag: object, environ: Mapping[str, str], cwd: Path) -> Path | None:
    for named, origin in ((flag, "--config"), (environ.get("EVERFAAS_CONFIG"), "EVERFAAS_CONFIG")):
        if named:
            path = cwd / Path(str(named)).expanduser()
            if not path.is_file():
                raise ConfigError(f"the config file {path} from {origin} does not exist")
            return path
    home = environ.get("XDG_CONFIG_HOME") or (environ.get("HOME", "") and f"{environ['HOME']}/.config")
    standard = [cwd / FILE_NAME, *([Path(home) / "everfaas" / "config.toml"] if home else [])]
    return next((path for path in standard if path.is_file()), None)


def _read_file(path: Path) -> tuple[Layer, dict[str, dict[str, Any]]]:
    import tomllib

    try:
        with path.open("rb") as stream:
            content = tomllib.load(stream)
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"the config file {path} can't be read: {error}") from error
    sections = content.pop("plugin", {})
    if not isinstance(sections, dict) or not all(isinstance(table, dict) for table in sections.values()):
        raise ConfigError(f"'plugin' in {path} is not a table of tables", hint="write [plugin.NAME] above its options")
    for name in content:
        if name not in KEYS:
            raise _unknown_key(name, path)
    return {name: (value, str(path)) for name, value in content.items()}, sections


def _unknown_key(name: str, path: Path) -> ConfigError:
    near = _near(name, KEYS)
    hint = f"did you mean {near}? " if near else ""
    return ConfigError(f"unknown key '{name}' in {path}", hint=f"{hint}keys: {', '.join(sorted(KEYS))}, [plugin.NAME]")


# ── the environment ──────────────────────────────────────────────────────────────────────────────────────────────────


def _read_environ(environ: Mapping[str, str]) -> tuple[Layer, dict[str, str]]:
    """Split our variables into keys and others (for plugins, clients). An empty variable counts as not set."""
    layer: Layer = {}
    others: dict[str, str] = {}
    by_variable = {key.variable: key for key in KEYS.values()}
    for variable, value in environ.items():
        if not variable.startswith(PREFIX) or not value:
            continue
        key = by_variable.get(variable)
        if key is None:
            others[variable] = value
        else:
            split = [part for part in value.split(key.separator) if part.strip()] if key.repeat else value
            layer[key.name] = (split, variable)
    return layer, others


def _slips(others: Iterable[str]) -> Iterable[str]:
    for variable in others:
        if variable not in _OTHER_VARIABLES:
            near = _near(variable, [key.variable for key in KEYS.values()], cutoff=0.9)
            if near:
                yield f"{variable} is not a setting; did you mean {near}?"


def _near(name: str, known: Iterable[str], cutoff: float = 0.6) -> str | None:
    import difflib

    return next(iter(difflib.get_close_matches(name, list(known), n=1, cutoff=cutoff)), None)


# ── values ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def _parse(key: Key, value: object, origin: str) -> Any:
    try:
        if not key.repeat:
            return key.parse(value)
        if isinstance(value, str) or not isinstance(value, (list, tuple)):
            raise ValueError
        return tuple(key.parse(part) for part in value)
    except (ValueError, OverflowError):
        kind = "a list, each: " if key.repeat else ""
        raise _bad(key, value, origin, kind + key.allowed) from None


def _bad(key: Key, value: object, origin: str, allowed: str) -> ConfigError:
    place = "" if origin == key.option else f" from {origin}"
    return ConfigError(f"{key.option} can't be {value!r}{place}", hint=f"allowed: {allowed}")


def _make_absolute(values: dict[str, Any], origins: Mapping[str, str], cwd: Path, file: Path | None) -> None:
    """Folders are relative to where they were written: the file's folder, or the current one."""

    def absolute(name: str, given: str) -> str:
        base = file.parent if file is not None and origins[name] == str(file) else cwd
        return os.path.abspath(base / Path(given).expanduser())

    if "data" in values:
        values["data"] = absolute("data", values["data"])
    folders = [str(cwd)]
    for given in values.get("path", ()):
        folder = absolute("path", given)
        if not os.path.isdir(folder):
            raise _bad(KEYS["path"], given, origins["path"], f"an existing folder; there is no {folder}")
        if folder not in folders:
            folders.append(folder)
    values["path"] = tuple(folders)


def _check_together(settings: Settings) -> None:
    if settings.liveness_s < 2 * settings.heartbeat_s:
        raise _bad(
            KEYS["liveness"],
            settings.liveness_s,
            settings.sources["liveness"],
            f"at least two heartbeats, {2 * settings.heartbeat_s:g} s; one late heartbeat must not lose a worker",
        )
