"""A plugin's own options: its schema says which there are; file, environment and flags say what they are."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from everfaas_core.config.layers import PREFIX
from everfaas_core.config.settings import PluginValues
from everfaas_core.model.errors import ConfigError

if TYPE_CHECKING:
    import marshmallow

    Schema = type[marshmallow.Schema]


def option_flag(name: str, key: str) -> str:
    """Return the flag of an option: mode `pull`, field `window` → `--pull-window`."""
    return f"--{name}-{key}".replace("_", "-")


def option_variable(name: str, key: str) -> str:
    """Return the environment variable of an option: EVERFAAS_PULL_WINDOW."""
    return PREFIX + f"{name}_{key}".replace("-", "_").upper()


def schema_fields(schema: Schema) -> Mapping[str, marshmallow.fields.Field[Any]]:
    """Return what can be set: key → field."""
    return {field.data_key or name: field for name, field in schema().load_fields.items()}


def plugin_options(
    name: str,
    schema: Schema | None,
    values: PluginValues,
    *,
    siblings: Iterable[Schema | None] = (),
    installed: Sequence[str] = (),
) -> dict[str, Any]:
    """Validate the options of one provider.

    `siblings` are the schemas of the same plugin's other providers under that name (a mode and its transport): their
    keys are known and left out. `installed` are all names that options may belong to, so that EVERFAAS_LEAST_LOADED_X
    is not taken for `loaded_x` of a provider `least`. Raises ConfigError for an unknown key or a bad value.
    """
    fields = schema_fields(schema) if schema else {}
    known = set(fields).union(*(schema_fields(other) for other in siblings if other is not None))
    given = _given(name, known, values, installed)
    for key, (_, origin) in given.items():
        if key not in known:
            hint = f"its options: {', '.join(sorted(known))}" if known else "it has no options"
            raise ConfigError(f"'{name}' has no option '{key}' (from {origin})", hint=hint)
    if schema is None:
        return {}
    mine = {key: _split(fields[key], value) for key, (value, _) in given.items() if key in fields}
    import marshmallow

    try:
        loaded: dict[str, Any] = schema().load(mine)
    except marshmallow.ValidationError as error:
        raise _invalid(name, error, given) from error
    return loaded


def _given(
    name: str, known: Iterable[str], values: PluginValues, installed: Sequence[str]
) -> dict[str, tuple[Any, str]]:
    """Collect what was said about `name`, the strongest layer last: key → (value, origin)."""
    given: dict[str, tuple[Any, str]] = {}
    for key, value in values.sections.get(name, {}).items():
        given[key] = (value, f"[plugin.{name}] in {values.file}")
    by_variable = {option_variable(name, key): key for key in known}
    prefix = option_variable(name, "")
    longer = [p for other in installed if len(p := option_variable(other, "")) > len(prefix)]
    for variable, value in values.environ.items():
        if variable.startswith(prefix) and not any(variable.startswith(other) for other in longer):
            given[by_variable.get(variable, variable.removeprefix(prefix).lower())] = (value, variable)
    by_flag = {option_flag(name, key): key for key in known}
    for flag, value in values.flags.items():
        if flag in by_flag:
            given[by_flag[flag]] = (value, flag)
    return given


def _split(field: marshmallow.fields.Field[Any], value: Any) -> Any:
    """Turn "a,b" into a list where the schema wants one."""
    import marshmallow

    if isinstance(field, marshmallow.fields.List) and isinstance(value, str):
        return [part.strip() for part in value.split(",") if part.strip()]
    return value


def _invalid(name: str, error: marshmallow.ValidationError, given: Mapping[str, tuple[Any, str]]) -> ConfigError:
    problems = []
    for key, messages in sorted(error.messages_dict.items()):
        said = " ".join(messages) if isinstance(messages, list) else str(messages)
        if key in given:
            value, origin = given[key]
            problems.append(f"'{key}' can't be {value!r} (from {origin}): {said}")
        else:
            problems.append(f"'{key}': {said} Set {option_flag(name, key)} or {option_variable(name, key)}.")
    return ConfigError(f"options of '{name}': {' '.join(problems)}")


def check_sections(values: PluginValues, installed: Iterable[str]) -> None:
    """Refuse a [plugin.NAME] of which nothing installed knows. Raises ConfigError."""
    names = sorted(set(installed))
    for name in values.sections:
        if name not in names:
            raise ConfigError(f"[plugin.{name}] in {values.file} is of no installed plugin", hint=", ".join(names))
