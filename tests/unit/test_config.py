"""Layers, their order, and what is said about values that are wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from marshmallow import Schema, fields, validate

from everfaas_core.config import (
    KEYS,
    PluginValues,
    Settings,
    is_loopback,
    load_settings,
    load_url,
    plugin_options,
    require_loopback,
    settings_environ,
)
from everfaas_core.config.options import check_sections, option_flag, option_variable
from everfaas_core.model.errors import ConfigError, InsecureError


def load(tmp_path: Path, flags: dict[str, object] | None = None, **more: Any) -> Settings:
    """Load settings in an empty folder with an empty environment."""
    more.setdefault("environ", {})
    return load_settings(flags or {}, cwd=tmp_path, **more)


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


# ── order ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_defaults(tmp_path: Path) -> None:
    settings = load(tmp_path)
    assert (settings.mode, settings.slots, settings.host, settings.port) == ("local", 4, "127.0.0.1", 8000)
    assert settings.store == "redis://127.0.0.1:6379/0"
    assert (settings.heartbeat_s, settings.liveness_s, settings.lease_s) == (0.5, 2.5, 3.0)
    assert settings.path == (str(tmp_path),)
    assert settings.sources["slots"] == "default"
    assert not settings.insecure


def test_each_layer_beats_the_one_below_and_is_remembered(tmp_path: Path) -> None:
    file = write(tmp_path / "everfaas.toml", "slots = 5\nport = 5\nheartbeat = 5\nlease = 30\n")
    settings = load(
        tmp_path,
        {"slots": "7"},
        environ={"EVERFAAS_SLOTS": "6", "EVERFAAS_PORT": "6"},
        defaults={"slots": 4, "store": "embedded"},
    )
    assert (settings.slots, settings.port, settings.heartbeat_s, settings.store) == (7, 6, 5.0, "embedded")
    assert settings.sources["slots"] == "--slots"
    assert settings.sources["port"] == "EVERFAAS_PORT"
    assert settings.sources["heartbeat"] == str(file)
    assert settings.sources["store"] == "default"
    assert settings.config_file == str(file)


def test_which_file_is_read(tmp_path: Path) -> None:
    home = tmp_path / "home"
    cwd = tmp_path / "work"
    cwd.mkdir()
    environ = {"HOME": str(home)}
    write(home / ".config/everfaas/config.toml", "slots = 11")
    assert load(cwd, environ=environ).slots == 11
    write(tmp_path / "xdg/everfaas/config.toml", "slots = 12")
    assert load(cwd, environ={**environ, "XDG_CONFIG_HOME": str(tmp_path / "xdg")}).slots == 12
    write(cwd / "everfaas.toml", "slots = 13")
    assert load(cwd, environ=environ).slots == 13
    write(tmp_path / "named.toml", "slots = 14")
    assert load(cwd, environ={**environ, "EVERFAAS_CONFIG": "../named.toml"}).slots == 14
    write(cwd / "flag.toml", "slots = 15")
    assert load(cwd, {"config": "flag.toml"}, environ={"EVERFAAS_CONFIG": "../named.toml"}).slots == 15


def test_a_named_file_must_exist(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"missing\.toml from --config does not exist"):
        load(tmp_path, {"config": "missing.toml"})
    with pytest.raises(ConfigError, match="from EVERFAAS_CONFIG"):
        load(tmp_path, environ={"EVERFAAS_CONFIG": "missing.toml"})


def test_an_empty_variable_is_not_set(tmp_path: Path) -> None:
    assert load(tmp_path, environ={"EVERFAAS_SLOTS": ""}).slots == 4


def test_every_key_can_be_set_by_file_environment_and_flag(tmp_path: Path) -> None:
    folder = tmp_path / "modules"
    folder.mkdir()
    samples = {
        "host": "::1",
        "worker_host": "localhost",
        "store": "unix:///tmp/x.sock",
        "path": [str(folder)],
        "fsync": "always",
        "log_format": "json",
        "log_level": "debug",
        "insecure": True,
        "source": ["a", "b"],
        "plugins": ["a", "no:b"],
        "allow_host": ["faas.example", "10.0.0.1"],
        "body_bytes_max": 4096,
        "mode": "pull",
        "heartbeat": 0.25,
        "strategy": "round-robin",
        "data": str(folder),
        "url": "https://faas.example/x",
    }
    import json

    for name, key in KEYS.items():
        sample = samples.get(name, 9)
        as_text = key.separator.join(sample) if isinstance(sample, list) else str(sample)
        cwd = tmp_path / f"cwd_{name}"
        cwd.mkdir()
        by_flag = load(cwd, {name: sample if isinstance(sample, (list, bool)) else as_text})
        by_environ = load(cwd, environ={key.variable: as_text})
        write(cwd / "everfaas.toml", f"{name} = {json.dumps(sample)}")
        by_file = load(cwd)
        values = {getattr(settings, key.attribute) for settings in (by_flag, by_environ, by_file)}
        assert len(values) == 1, name
        assert values != {getattr(Settings(), key.attribute)}, name
        assert by_flag.sources[name] == key.option


# ── wrong values ─────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("slots", "0"),
        ("slots", "four"),
        ("slots", "1025"),
        ("slots", True),
        ("slots", 2.5),
        ("workers", "-1"),
        ("port", "65536"),
        ("heartbeat", "0"),
        ("heartbeat", "nan"),
        ("heartbeat", "inf"),
        ("task_deadline", "-2"),
        ("task_deadline", "soon"),
        ("max_attempts", "0"),
        ("host", "http://127.0.0.1"),
        ("host", ""),
        ("store", "localhost:6379"),
        ("store", "redis"[:0]),
        ("fsync", "never"),
        ("log_format", "xml"),
        ("insecure", "perhaps"),
        ("path", ["/no/such/folder"]),
        ("path", "/"),
        ("body_bytes_max", "10"),
    ],
)
def test_a_wrong_value_names_key_origin_and_what_is_allowed(tmp_path: Path, name: str, value: object) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, {name: value})
    assert KEYS[name].option in caught.value.message
    assert caught.value.hint is not None
    assert "allowed: " in caught.value.hint


def test_the_origin_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--slots can't be 'many' from EVERFAAS_SLOTS"):
        load(tmp_path, environ={"EVERFAAS_SLOTS": "many"})
    file = write(tmp_path / "everfaas.toml", "slots = 'many'")
    with pytest.raises(ConfigError, match=str(file)):
        load(tmp_path)


def test_an_unknown_key_in_the_file(tmp_path: Path) -> None:
    write(tmp_path / "everfaas.toml", "slot = 4")
    with pytest.raises(ConfigError, match=r"unknown key 'slot' in .*did you mean slots\?"):
        load(tmp_path)


def test_a_file_that_is_no_toml(tmp_path: Path) -> None:
    write(tmp_path / "everfaas.toml", "slots 4")
    with pytest.raises(ConfigError, match="can't be read"):
        load(tmp_path)


def test_plugin_must_be_tables(tmp_path: Path) -> None:
    write(tmp_path / "everfaas.toml", "plugin = 3")
    with pytest.raises(ConfigError, match="table of tables"):
        load(tmp_path)


def test_values_that_do_not_go_together(tmp_path: Path) -> None:
    assert load(tmp_path, {"heartbeat": "0.25"}).liveness_s == 1.25
    with pytest.raises(ConfigError, match=r"--liveness can't be 0\.6"):
        load(tmp_path, {"liveness": "0.6"})
    with pytest.raises(ConfigError, match="--liveness can't be 3"):
        load(tmp_path, {"heartbeat": "2", "liveness": "3"})


def test_a_misspelt_variable_is_warned_of(tmp_path: Path) -> None:
    settings = load(tmp_path, environ={"EVERFAAS_SLOT": "9", "EVERFAAS_URL": "http://x", "OTHER": "1"})
    assert settings.warnings == ("EVERFAAS_SLOT is not a setting; did you mean EVERFAAS_SLOTS?",)


def test_task_deadline_can_be_taken_back(tmp_path: Path) -> None:
    assert load(tmp_path, {"task_deadline": "none"}, environ={"EVERFAAS_TASK_DEADLINE": "2"}).task_deadline_s is None


@given(
    name=st.sampled_from(sorted(KEYS)), value=st.one_of(st.text(), st.integers(), st.floats(), st.none(), st.binary())
)
def test_any_value_is_taken_or_refused_in_words(name: str, value: object) -> None:
    key = KEYS[name]
    try:
        load_settings({name: [value] if key.repeat else value}, environ={}, cwd=Path("/"))
    except ConfigError as error:
        assert error.hint  # noqa: PT017 - either outcome is right


# ── folders ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_folders_are_relative_to_where_they_were_written(tmp_path: Path) -> None:
    (tmp_path / "conf/lib").mkdir(parents=True)
    (tmp_path / "work/lib").mkdir(parents=True)
    file = write(tmp_path / "conf/c.toml", "path = ['lib']\ndata = 'state'")
    cwd = tmp_path / "work"
    by_file = load(cwd, {"config": str(file)})
    assert by_file.path == (str(cwd), str(tmp_path / "conf/lib"))
    assert by_file.data == str(tmp_path / "conf/state")
    assert load(cwd, environ={"EVERFAAS_PATH": f"lib:{tmp_path}"}).path == (str(cwd), str(cwd / "lib"), str(tmp_path))
    assert load(cwd, {"path": (".", "lib", "lib")}).path == (str(cwd), str(cwd / "lib"))


def test_children_get_the_same_settings_by_environment(tmp_path: Path) -> None:
    (tmp_path / "lib").mkdir()
    file = write(tmp_path / "everfaas.toml", "slots = 3\n[plugin.pull]\nwindow = 4\n")
    settings = load(
        tmp_path,
        {"path": ("lib",), "insecure": True, "store": "redis://:secret@h:1/0", "plugins": ("a", "no:b"), "lease": "7"},
        environ={"EVERFAAS_TASK_DEADLINE": "2.5"},
        plugin_flags={"--pull-window": "5", "--pull-tag": ("x", "y")},
    )
    environ = settings_environ(settings)
    again = load_settings({}, environ=environ, cwd=tmp_path)
    for key in KEYS.values():
        assert getattr(again, key.attribute) == getattr(settings, key.attribute), key.name
    assert again.config_file == str(file)
    assert again.plugin_values.environ["EVERFAAS_PULL_WINDOW"] == "5"
    assert again.plugin_values.environ["EVERFAAS_PULL_TAG"] == "x,y"


# ── plugin options ───────────────────────────────────────────────────────────────────────────────────────────────────


class PullOptions(Schema):
    window = fields.Integer(load_default=2, validate=validate.Range(1, 9))
    eager = fields.Boolean(load_default=False)
    tags = fields.List(fields.String(), load_default=list)


class WorkerOptions(Schema):
    retry_s = fields.Float(load_default=1.0)


def test_option_names() -> None:
    assert option_flag("least-loaded", "half_life") == "--least-loaded-half-life"
    assert option_variable("least-loaded", "half_life") == "EVERFAAS_LEAST_LOADED_HALF_LIFE"


def test_plugin_options_have_the_same_layers() -> None:
    values = PluginValues(
        file="f.toml",
        sections={"pull": {"window": 3, "eager": True, "tags": ["a"]}},
        environ={"EVERFAAS_PULL_WINDOW": "4", "EVERFAAS_PULL_TAGS": "b, c", "EVERFAAS_URL": "http://x"},
        flags={"--pull-window": "5"},
    )
    assert plugin_options("pull", PullOptions, values) == {"window": 5, "eager": True, "tags": ["b", "c"]}
    assert plugin_options("pull", PullOptions, PluginValues()) == {"window": 2, "eager": False, "tags": []}
    assert plugin_options("push", None, values) == {}


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (PluginValues(file="f.toml", sections={"pull": {"windw": 3}}), r"no option 'windw' \(from \[plugin.pull\] in"),
        (PluginValues(environ={"EVERFAAS_PULL_WINDW": "3"}), r"no option 'windw' \(from EVERFAAS_PULL_WINDW\)"),
        (
            PluginValues(environ={"EVERFAAS_PULL_WINDOW": "x"}),
            r"can't be 'x' \(from EVERFAAS_PULL_WINDOW\): Not a valid",
        ),
        (PluginValues(flags={"--pull-window": "10"}), r"can't be '10' \(from --pull-window\)"),
    ],
)
def test_wrong_plugin_options(values: PluginValues, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        plugin_options("pull", PullOptions, values)


def test_an_unknown_option_lists_the_known() -> None:
    with pytest.raises(ConfigError, match="its options: eager, tags, window"):
        plugin_options("pull", PullOptions, PluginValues(environ={"EVERFAAS_PULL_X": "3"}))
    with pytest.raises(ConfigError, match="it has no options"):
        plugin_options("pull", None, PluginValues(environ={"EVERFAAS_PULL_X": "3"}))


def test_a_required_option_that_is_missing_names_flag_and_variable() -> None:
    class Needy(Schema):
        queue = fields.String(required=True)

    with pytest.raises(ConfigError, match="Set --sqs-queue or EVERFAAS_SQS_QUEUE"):
        plugin_options("sqs", Needy, PluginValues())


def test_options_of_a_sibling_are_known_and_left_out() -> None:
    values = PluginValues(sections={"pull": {"retry_s": 3, "window": 4}})
    assert plugin_options("pull", PullOptions, values, siblings=[WorkerOptions, None])["window"] == 4
    assert plugin_options("pull", WorkerOptions, values, siblings=[PullOptions]) == {"retry_s": 3.0}


def test_a_longer_name_keeps_its_variables() -> None:
    values = PluginValues(environ={"EVERFAAS_LEAST_LOADED_X": "1"})
    assert plugin_options("least", None, values, installed=["least", "least-loaded"]) == {}


def test_a_section_of_nothing_installed() -> None:
    check_sections(PluginValues(sections={"pull": {}}), ["pull"])
    with pytest.raises(ConfigError, match=r"\[plugin.pul\]"):
        check_sections(PluginValues(sections={"pul": {}}), ["pull"])


# ── loopback (SECURITY 1) ────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.9.1", "localhost", "LocalHost.", "::1", "::ffff:127.0.0.1"])
def test_loopback_needs_no_permission(host: str) -> None:
    assert is_loopback(host)
    assert require_loopback("the API", host, flag="--host", insecure=False) is None


@pytest.mark.parametrize(
    "host", ["0.0.0.0", "::", "10.0.0.1", "example.org", "*", "", "fe80::1%eth0", "::ffff:8.8.8.8"]
)
def test_anything_else_is_refused_until_it_is_trusted(host: str) -> None:
    with pytest.raises(InsecureError, match="--insecure"):
        require_loopback("the API", host, flag="--host", insecure=False)
    warning = require_loopback("the API", host, flag="--host", insecure=True)
    assert warning is not None
    assert "without authentication" in warning


# ── the address that clients call ────────────────────────────────────────────────────────────────────────────────────


def test_the_url_of_clients_is_a_setting_like_any_other_and_the_others_are_not_looked_at(tmp_path: Path) -> None:
    environ = {"HOME": str(tmp_path), "EVERFAAS_SLOTS": "many"}
    assert load_url(None, environ=environ, cwd=tmp_path) == ("http://127.0.0.1:8000", "default")
    write(tmp_path / "everfaas.toml", 'url = "http://file:1/"\npath = ["nowhere"]')
    assert load_url(None, environ=environ, cwd=tmp_path) == ("http://file:1", str(tmp_path / "everfaas.toml"))
    environ["EVERFAAS_URL"] = "http://environ:2"
    assert load_url(None, environ=environ, cwd=tmp_path) == ("http://environ:2", "EVERFAAS_URL")
    assert load_url("https://flag:3/x", environ=environ, cwd=tmp_path) == ("https://flag:3/x", "--url")
    write(tmp_path / "other.toml", 'url = "http://other:4"')
    del environ["EVERFAAS_URL"]
    assert load_url(None, "other.toml", environ=environ, cwd=tmp_path)[0] == "http://other:4"


@pytest.mark.parametrize("wrong", ["", "x", "ftp://x", "http://", "http://x:y", "http://x:0", "http://x?a=b"])
def test_what_is_no_address_of_an_api(tmp_path: Path, wrong: str) -> None:
    with pytest.raises(ConfigError, match="--url can't be"):
        load_url(wrong, environ={}, cwd=tmp_path)
