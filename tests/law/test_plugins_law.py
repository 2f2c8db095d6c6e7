"""Plugins: documented hooks, names that agree, metadata that tells the truth."""

from __future__ import annotations

import inspect
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

import everfaas_core.hookspecs as hookspecs
from everfaas_core.model.ids import FunctionId, WorkerId
from everfaas_core.ports import WorkerView
from everfaas_core.registry import KINDS, Catalog, Registry
from everfaas_core.registry.loading import HOOKS
from tests.law.fake import installed, make_distribution

ROOT = Path(__file__).parents[2]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
ENTRY_POINTS: dict[str, dict[str, str]] = PYPROJECT["project"]["entry-points"]
DOCS = (ROOT / "docs/plugins.md").read_text()
FOLDERS = sorted(p.parent.name for p in (ROOT / "plugins").glob("[!_]*/__init__.py"))


def signature_of(hook: str) -> str:
    specification = getattr(hookspecs.Specs, hook)
    parameters = [str(p) for p in inspect.signature(specification).parameters.values()][1:]
    return f"{hook}({', '.join(parameters)}) -> {inspect.signature(specification).return_annotation}"


@pytest.mark.parametrize("hook", sorted(HOOKS))
def test_every_hook_is_documented_with_its_exact_signature(hook: str) -> None:
    assert f"### `{signature_of(hook)}`" in DOCS
    text = inspect.getdoc(getattr(hookspecs.Specs, hook)) or ""
    assert "Called " in text, "the docstring says when it is called"
    assert "@hookimpl" in text, "the docstring has an example"


def test_no_other_hook_is_documented() -> None:
    assert set(re.findall(r"^### `(everfaas_\w+)", DOCS, re.MULTILINE)) == set(HOOKS)


def test_every_entry_point_group_is_documented() -> None:
    for group in ("everfaas", *KINDS.values()):
        assert f"| `{group}` |" in DOCS


def test_the_documented_api_version_is_ours() -> None:
    assert f"(now {hookspecs.API_VERSION})" in DOCS


def test_folder_name_is_entry_point_name_and_module_name() -> None:
    plugins = ENTRY_POINTS["everfaas"]
    assert sorted(name.replace("-", "_") for name in plugins) == FOLDERS
    for name, value in plugins.items():
        assert value == f"everfaas_plugins.{name.replace('-', '_')}"


def test_the_metadata_points_at_plugins_only() -> None:
    for kind, group in KINDS.items():
        assert set(ENTRY_POINTS.get(group, {}).values()) <= set(ENTRY_POINTS["everfaas"].values()), kind


def test_what_is_installed_is_what_pyproject_says() -> None:
    """An editable install keeps the entry points of the day it was made: `pip install -e .` refreshes them."""
    catalog = Catalog.installed()
    ours = [plugin for plugin in catalog.plugins if plugin.distribution == "everfaas"]
    assert {plugin.name: plugin.value for plugin in ours} == ENTRY_POINTS["everfaas"]
    for kind, group in KINDS.items():
        names = {n for plugin in ours for n in catalog.offers_of(plugin).get(kind, ())}
        assert names == set(ENTRY_POINTS.get(group, {})), group


@pytest.mark.parametrize(
    ("kind", "name"), [(kind, name) for kind, group in KINDS.items() for name in ENTRY_POINTS.get(group, {})]
)
def test_metadata_and_hooks_agree(kind: str, name: str) -> None:
    registry = Registry(Catalog.installed())
    offer: Any = getattr(registry, kind)(name)
    assert offer.kind == kind
    assert offer.plugin.value == ENTRY_POINTS[KINDS[kind]][name]
    assert offer.provider.summary
    if kind != "store":  # one store may serve several schemes
        assert offer.name == name


@pytest.mark.parametrize("plugin", sorted(ENTRY_POINTS["everfaas"]))
def test_no_plugin_offers_more_than_its_metadata_says(plugin: str) -> None:
    catalog = Catalog.installed()
    registry = Registry(catalog, extra=[plugin])
    offered = {(kind, name) for kind, name in registry._offers if kind != "store"}
    declared = catalog.offers_of(catalog.plugin(plugin))
    assert offered == {(kind, name) for kind, names in declared.items() if kind != "store" for name in names}


@pytest.mark.parametrize("mode", sorted(ENTRY_POINTS["everfaas.modes"]))
def test_the_strategy_that_a_mode_prefers_is_installed(mode: str) -> None:
    registry = Registry(Catalog.installed())
    offer = registry.mode(mode)
    registry.build_strategy(registry.strategy(offer.provider.strategy), {})
    assert offer.provider.runs_slots != registry.offers("transport", mode), "slots of its own, or workers"


def test_the_example_in_the_docs_works(tmp_path: Path) -> None:
    blocks = {text.split("\n", 1)[0]: text for text in re.findall(r"```\w+\n(.*?)```", DOCS, re.DOTALL)}
    project = tomllib.loads(blocks["# pyproject.toml"])["project"]
    make_distribution(
        tmp_path,
        distribution=project["name"],
        version=project["version"],
        module="everfaas_seniority",
        source=blocks["# everfaas_seniority.py"],
        entry_points=project["entry-points"],
    )
    with installed(tmp_path) as catalog:
        registry = Registry(catalog)
        strategy = registry.build_strategy(registry.strategy("seniority"), {"newest_first": False})
        for name in ("a", "b"):
            strategy.update(WorkerView(WorkerId(name), 1, 1, 0))
        assert strategy.pick(FunctionId("f")) == "a"
        strategy.remove(WorkerId("a"))
        assert strategy.pick(FunctionId("f")) == "b"
