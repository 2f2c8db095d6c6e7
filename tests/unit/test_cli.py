"""The command line as a user types it: what it prints, and what it exits with."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from everfaas_core.cli.group import COMMANDS
from everfaas_core.version import __version__
from tests.law.fake import GOOD_STRATEGY, HEAD, make_distribution

ROOT = Path(__file__).parents[2]
SCRIPTS = {"api": "app.py", "dispatcher": "run_dispatcher.py", "worker": "run_worker.py"}


def run(
    words: Sequence[str], cwd: Path, *, script: str | None = None, environ: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run `everfaas …` (or a script of the repository) to its end."""
    program = [str(ROOT / script)] if script else ["-m", "everfaas_core.cli"]
    clean = {name: value for name, value in os.environ.items() if not name.startswith("EVERFAAS_")}
    return subprocess.run(
        [sys.executable, *program, *words],
        cwd=cwd,
        env={**clean, "HOME": str(cwd), "XDG_CONFIG_HOME": str(cwd), **(environ or {})},
        capture_output=True,
        text=True,
        timeout=60,
        stdin=subprocess.DEVNULL,
    )


def error_of(words: Sequence[str], cwd: Path, *, environ: Mapping[str, str] | None = None) -> str:
    """Run a command that must be refused: status 2, nothing on stdout, no traceback. Returns what it said."""
    done = run(words, cwd, environ=environ)
    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr


# ── help, version, names ─────────────────────────────────────────────────────────────────────────────────────────────


def test_help_lists_the_commands_and_imports_none_of_them(tmp_path: Path) -> None:
    done = run(["--help"], tmp_path)
    assert done.returncode == 0
    for command in COMMANDS:
        assert f"\n  {command} " in done.stdout
    for heading in ("Run things:", "Look at things:", "Change things:", "Run the system:", "Check and set up:"):
        assert f"\n{heading}\n" in done.stdout
    code = (
        "import sys; from everfaas_core.cli import main; main(['--help']);"
        "heavy = {'flask', 'redis', 'zmq', 'rich', 'marshmallow', 'dill', 'msgspec', 'pluggy', 'waitress'};"
        "sys.exit(str(heavy & set(sys.modules)) if heavy & set(sys.modules) else 0)"
    )
    imports = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert imports.returncode == 0, imports.stderr


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_has_help(tmp_path: Path, command: str) -> None:
    done = run([command, "--help"], tmp_path)
    assert done.returncode == 0
    assert done.stdout.startswith(f"Usage: everfaas {command}")
    if command in SCRIPTS:
        script = run(["--help"], tmp_path, script=SCRIPTS[command])
        assert script.stdout.startswith(f"Usage: {SCRIPTS[command]} [OPTIONS]")


def test_version(tmp_path: Path) -> None:
    assert run(["--version"], tmp_path).stdout == f"everfaas {__version__}\n"


def test_an_unknown_command_suggests_near_names(tmp_path: Path) -> None:
    assert "Did you mean worker or workers" in error_of(["wroker"], tmp_path)
    assert "Commands: run, map" in error_of(["zzz"], tmp_path)


# ── refusals ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("dispatcher -m nope", "unknown mode 'nope'\nHint: installed modes: local, pull, push"),
        ("up -m nope", "installed modes: local, pull, push"),
        ("worker nope 4 tcp://localhost:5555", "unknown worker mode 'nope'\nHint: installed worker modes: pull, push"),
        ("worker local 4 tcp://localhost:5555", "mode 'local' has no workers"),
        ("worker pull four tcp://localhost:5555", "'four' is not a whole number from 1 to 1024"),
        ("worker pull 0 tcp://localhost:5555", "'0' is not a whole number from 1 to 1024"),
        (
            "worker pull 4 localhost",
            "'localhost' is not the URL of a dispatcher\nHint: for example tcp://localhost:5555",
        ),
        ("worker pull 4 tcp://localhost:port", "'tcp://localhost:port'"),
        ("worker pull 4", "Missing argument 'URL'"),
        ("dispatcher -w many", "--slots can't be 'many'"),
        ("dispatcher -p 70000", "--worker-port can't be '70000'"),
        ("dispatcher --strategy nope", "unknown strategy 'nope'"),
        ("up --strategy nope", "unknown strategy 'nope'"),
        ("dispatcher --source nope", "unknown task source 'nope'"),
        ("dispatcher --store nope://x", "unknown store 'nope'"),
        ("dispatcher --store embedded", "run `everfaas store` in another terminal"),
        ("api --store memory", "lives inside one process"),
        ("up --store memory -m pull", "mode 'pull' needs workers beside it"),
        ("api -p 5555", "this command has no worker port"),
        ("api -p nope", "unknown plugin 'nope'"),
        ("dispatcher -m local -p no:local", "blocked by '-p no:local'"),
        ("up -m local -p no:local", "blocked by '-p no:local'"),
        ("up --config missing.toml", "missing.toml from --config does not exist"),
        ("up --no-such-flag", "No such option '--no-such-flag'"),
        ("api --host 0.0.0.0", "--insecure"),
        ("up --host 0.0.0.0", "--insecure"),
        ("dispatcher -m pull --worker-host 0.0.0.0", "--insecure"),
        ("dispatcher -m push --host 0.0.0.0", "--insecure"),
        ("up -m pull --worker-host 10.0.0.1", "--insecure"),
    ],
)
def test_what_is_wrong_is_said_and_exits_with_2(tmp_path: Path, words: str, said: str) -> None:
    assert said in error_of(words.split(), tmp_path)


def test_a_wrong_variable_is_named(tmp_path: Path) -> None:
    said = error_of(["dispatcher"], tmp_path, environ={"EVERFAAS_SLOTS": "many"})
    assert "can't be 'many' from EVERFAAS_SLOTS" in said


def test_scripts_refuse_as_the_commands_do(tmp_path: Path) -> None:
    for script, words, said in (
        ("app.py", ["--port", "x"], "--port can't be 'x'"),
        ("run_dispatcher.py", ["-m", "nope"], "installed modes: local, pull, push"),
        ("run_worker.py", ["nope", "4", "tcp://localhost:5555"], "installed worker modes: pull, push"),
    ):
        done = run(words, tmp_path, script=script)
        assert done.returncode == 2
        assert said in done.stderr


# ── plugins ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_plugins_lists_by_metadata(tmp_path: Path) -> None:
    make_distribution(
        tmp_path,
        distribution="everfaas-broken",
        module="everfaas_broken",
        source="raise RuntimeError('imported!')",
        entry_points={"everfaas": {"broken": "everfaas_broken"}, "everfaas.modes": {"broken": "everfaas_broken"}},
    )
    environ = {"PYTHONPATH": str(tmp_path)}
    lines = run(["plugins"], tmp_path, environ=environ).stdout.splitlines()
    assert "broken\tmode broken\teverfaas-broken\t1.2.3\teverfaas_broken" in lines
    listed = {one["name"]: one for one in json.loads(run(["plugins", "--json"], tmp_path, environ=environ).stdout)}
    assert listed["pull"]["offers"] == {"mode": ["pull"], "transport": ["pull"]}
    assert listed["redis"]["offers"] == {"store": ["redis", "rediss", "unix"]}
    assert listed["broken"]["origin"] == str(tmp_path)
    assert "imported!" in error_of(["dispatcher", "-m", "broken"], tmp_path, environ=environ)


def test_plugins_warns_of_a_clash(tmp_path: Path) -> None:
    make_distribution(
        tmp_path, distribution="rival", module="rival", source="", entry_points={"everfaas": {"pull": "rival"}}
    )
    done = run(["plugins"], tmp_path, environ={"PYTHONPATH": str(tmp_path)})
    assert done.returncode == 0
    assert "rival 1.2.3" in done.stderr
    said = error_of(["dispatcher", "-m", "pull"], tmp_path, environ={"PYTHONPATH": str(tmp_path)})
    assert "two plugins claim the plugin name 'pull'" in said


OPTIONS = HEAD + (
    """
from marshmallow import Schema, fields, validate

class Options(Schema):
    size = fields.Integer(load_default=1, validate=validate.Range(1, 9), metadata={"description": "How big."})

class Never:
    def update(self, worker): pass
    def loaded(self, worker_id, function_id): pass
    def remove(self, worker_id): pass
    def pick(self, function_id): return None

def make(options):
    from everfaas_core.model.errors import ConfigError
    raise ConfigError(f"made with {options['size']}")

@hookimpl
def everfaas_strategies():
    return [StrategyProvider(name="fussy", summary="says its options", factory=make, options=Options)]
"""
)


def fussy(folder: Path) -> dict[str, str]:
    make_distribution(
        folder,
        distribution="everfaas-fussy",
        module="everfaas_fussy",
        source=OPTIONS,
        entry_points={"everfaas": {"fussy": "everfaas_fussy"}, "everfaas.strategies": {"fussy": "everfaas_fussy"}},
    )
    return {"PYTHONPATH": str(folder)}


def test_a_plugins_schema_becomes_flags_variables_and_keys(tmp_path: Path) -> None:
    environ = fussy(tmp_path)
    start = ["dispatcher", "--strategy", "fussy"]
    assert "made with 1" in error_of(start, tmp_path, environ=environ)
    (tmp_path / "everfaas.toml").write_text("[plugin.fussy]\nsize = 2\n")
    assert "made with 2" in error_of(start, tmp_path, environ=environ)
    environ["EVERFAAS_FUSSY_SIZE"] = "3"
    assert "made with 3" in error_of(start, tmp_path, environ=environ)
    assert "made with 4" in error_of([*start, "--fussy-size", "4"], tmp_path, environ=environ)
    assert "made with 5" in error_of(["dispatcher", "--fussy-size=5", "--strategy=fussy"], tmp_path, environ=environ)
    assert "'size' can't be '10' (from --fussy-size)" in error_of(
        [*start, "--fussy-size", "10"], tmp_path, environ=environ
    )
    assert "No such option '--fussy-sise'" in error_of([*start, "--fussy-sise", "1"], tmp_path, environ=environ)
    assert "How big." in run([*start, "--help"], tmp_path, environ=environ).stdout
    assert "No such option '--fussy-size'" in error_of(["dispatcher", "--fussy-size", "4"], tmp_path, environ=environ)


def test_an_unknown_section_is_refused(tmp_path: Path) -> None:
    (tmp_path / "everfaas.toml").write_text("[plugin.fusy]\nsize = 2\n")
    assert "[plugin.fusy]" in error_of(["dispatcher"], tmp_path)


def test_a_plugin_may_bring_a_command(tmp_path: Path) -> None:
    make_distribution(
        tmp_path,
        distribution="everfaas-greet",
        module="everfaas_greet",
        source=HEAD
        + """
import click

@click.command("greet")
@click.argument("who")
def greet(who):
    click.echo(f"hello {who}")

@hookimpl
def everfaas_commands():
    return [greet]
""",
        entry_points={"everfaas": {"greet": "everfaas_greet"}},
    )
    assert run(["greet", "you"], tmp_path, environ={"PYTHONPATH": str(tmp_path)}).stdout == "hello you\n"


def test_a_plugin_without_a_command_is_no_command(tmp_path: Path) -> None:
    make_distribution(
        tmp_path,
        distribution="everfaas-first",
        module="everfaas_first",
        source=GOOD_STRATEGY,
        entry_points={"everfaas": {"first": "everfaas_first"}},
    )
    assert "No such command 'first'" in error_of(["first"], tmp_path, environ={"PYTHONPATH": str(tmp_path)})


def test_scripts_say_what_is_missing_when_nothing_is_installed(tmp_path: Path) -> None:
    """A clone without `pip install .`: the core is importable, the metadata is not there."""
    code = (
        "import importlib.metadata as m, sys; m.entry_points = lambda **k: m.EntryPoints();"
        "from everfaas_core.cli import main; sys.exit(main(['-m', 'local'], command='dispatcher'))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2
    assert "pip install ." in done.stderr
