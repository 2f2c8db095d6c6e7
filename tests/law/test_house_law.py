"""The house: who may import whom, how long a module may be, what it may be called, and what is packaged."""

from __future__ import annotations

import ast
import configparser
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from everfaas_core.cli.group import COMMANDS, everfaas
from everfaas_core.config import KEYS, Settings

ROOT = Path(__file__).parents[2]
PACKAGES = {"everfaas_core": ROOT / "everfaas_core", "everfaas_plugins": ROOT / "plugins"}
MODULES = sorted(path for folder in PACKAGES.values() for path in folder.rglob("*.py"))
LINES_MAX = 400
VAGUE = {"utils", "util", "helpers", "helper", "common", "misc"}

PURE = (
    "model", "dispatch", "wire", "worker/machine.py", "worker/events.py", "worker/actions.py", "worker/slot_state.py",
    "worker/pipes.py",
)  # fmt: skip
PURE_STANDARD = {
    "__future__", "collections", "dataclasses", "enum", "functools", "hashlib", "heapq", "hmac", "itertools", "math",
    "bisect", "operator", "pickle", "re", "string", "struct", "types", "typing", "uuid", "contextlib", "abc", "zlib",
}  # fmt: skip


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def imports_of(path: Path) -> Iterator[str]:
    """Yield the full names of the modules that a file imports."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield node.module or ""


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_a_module_is_read_in_one_sitting(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= LINES_MAX


def test_no_module_has_a_vague_name() -> None:
    assert not [name_of(path) for path in MODULES if VAGUE & {path.stem, *path.relative_to(ROOT).parts}]


@pytest.mark.parametrize(
    "path",
    [
        path
        for part in PURE
        for path in (
            [ROOT / "everfaas_core" / part] if part.endswith(".py") else (ROOT / "everfaas_core" / part).rglob("*.py")
        )
    ],
    ids=name_of,
)
def test_pure_modules_import_no_clock_socket_thread_or_random(path: Path) -> None:
    for module in imports_of(path):
        root = module.split(".")[0]
        assert root in PURE_STANDARD | {"msgspec", "everfaas_core"}, f"{name_of(path)} imports {module}"


@pytest.mark.parametrize("path", [p for p in MODULES if p.is_relative_to(ROOT / "everfaas_core")], ids=name_of)
def test_the_core_never_imports_a_plugin(path: Path) -> None:
    assert not [module for module in imports_of(path) if module.startswith("everfaas_plugins")]


FACE = (
    "everfaas_core.model", "everfaas_core.wire", "everfaas_core.ports", "everfaas_core.hookspecs",
    "everfaas_core.dispatch.events", "everfaas_core.dispatch.strategy", "everfaas_core.dispatch.load",
)  # fmt: skip


@pytest.mark.parametrize("path", [p for p in MODULES if p.is_relative_to(ROOT / "plugins")], ids=name_of)
def test_plugins_import_only_the_public_face_and_are_relative_inside(path: Path) -> None:
    for module in imports_of(path):
        assert not module.startswith("everfaas_plugins"), "inside plugins, imports are relative"
        if module.startswith("everfaas_core"):
            assert module.startswith(FACE), f"{name_of(path)} imports {module}"


def test_import_linter_contracts_hold() -> None:
    linter = shutil.which("lint-imports", path=str(Path(sys.executable).parent))
    if linter is None:
        pytest.skip("import-linter is not installed (pip install '.[lint]')")
    done = subprocess.run([linter, "--config", "setup.cfg", "--no-cache"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_architecture_law_is_in_setup_cfg() -> None:
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg")
    layers = parser["importlinter:contract:layers"]["layers"].split()
    order = ["cli", "api", "runtime", "config", "registry", "hookspecs", "ports", "wire", "model"]
    assert [layers.index(f"everfaas_core.{name}") for name in order] == sorted(
        layers.index(f"everfaas_core.{name}") for name in order
    )


def test_every_package_is_packaged() -> None:
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    found = [
        ".".join([name, *init.parent.relative_to(folder).parts])
        for name, folder in PACKAGES.items()
        for init in folder.rglob("__init__.py")
    ]
    assert sorted(listed) == sorted(found)


# ── the command line and its documents ───────────────────────────────────────────────────────────────────────────────


def flags_of(command: str) -> set[str]:
    import click

    found = everfaas.get_command(click.Context(everfaas), command)
    assert found is not None
    return {flag for parameter in found.params for flag in parameter.opts}


ALL_FLAGS = {flag for command in COMMANDS for flag in flags_of(command)}


@pytest.mark.parametrize("document", ["README.md", "docs/configuration.md"])
def test_flags_that_documents_mention_exist(document: str) -> None:
    known = ALL_FLAGS | {"--help", "--version", "--break-system-packages", "--plugin"}
    mentioned = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", (ROOT / document).read_text()))
    assert mentioned - known == set()


@pytest.mark.parametrize("name", sorted(KEYS))
def test_every_key_is_documented_with_flag_variable_and_default(name: str) -> None:
    key = KEYS[name]
    rows = [
        line for line in (ROOT / "docs/configuration.md").read_text().splitlines() if line.startswith(f"| `{name}` |")
    ]
    assert len(rows) == 1
    _, _, flags, variable, default, _, _ = rows[0].split("|")
    assert key.option in flags
    assert f"`{key.variable}`" in variable
    if name not in ("data", "strategy", "liveness"):  # their defaults are words
        assert default.strip().strip("`") == as_written(getattr(Settings(), key.attribute))


def as_written(value: object) -> str:
    """Return a default as the document shows it."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:g}"
    return {(): "", None: "none"}.get(value) if value in ((), None) else str(value)  # type: ignore[return-value]


@pytest.mark.parametrize("name", sorted(set(KEYS) - {"store_port", "url"}))
def test_every_key_is_a_flag_of_up(name: str) -> None:
    assert KEYS[name].option in flags_of("up")


@pytest.mark.parametrize(
    ("script", "command"), [("app.py", "api"), ("run_dispatcher.py", "dispatcher"), ("run_worker.py", "worker")]
)
def test_the_classic_scripts_are_thin(script: str, command: str) -> None:
    text = (ROOT / script).read_text()
    assert len(text.splitlines()) <= 10
    assert f'command="{command}"' in text
