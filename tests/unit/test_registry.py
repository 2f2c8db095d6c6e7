"""The registry against distributions that succeed, are blocked, fail to import, clash, or do not fit."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from everfaas_core.model.errors import ConfigError, PluginError
from everfaas_core.ports import Link, Strategy
from everfaas_core.registry import Catalog, Registry, check_fit, split_selection
from tests.law.fake import GOOD_STRATEGY, HEAD, installed, make_distribution

STRATEGIES = "everfaas.strategies"


def fake(folder: Path, source: str, name: str = "first", **more: Any) -> None:
    """Make a distribution `everfaas-first` whose plugin `first` is the module `everfaas_first`."""
    module = more.pop("module", f"everfaas_{name}")
    distribution = more.pop("distribution", f"everfaas-{name}")
    groups = more.pop("entry_points", {"everfaas": {name: module}})
    make_distribution(folder, distribution=distribution, module=module, source=source, entry_points=groups, **more)


def error_of(folder: Path, source: str) -> str:
    """Load the plugin `first` with this source, and return the error's text."""
    fake(folder, source)
    with installed(folder) as catalog, pytest.raises(PluginError) as caught:
        Registry(catalog).strategy("first")
    assert "everfaas-first 1.2.3" in str(caught.value), "the culprit has to be named"
    return str(caught.value)


# ── success ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_plugin_of_another_distribution_is_found_loaded_and_built(tmp_path: Path) -> None:
    fake(
        tmp_path,
        GOOD_STRATEGY.replace("NAME", "first-come"),
        entry_points={"everfaas": {"first": "everfaas_first"}, STRATEGIES: {"first-come": "everfaas_first"}},
    )
    with installed(tmp_path) as catalog:
        assert "first-come" in catalog.names("strategy")
        assert catalog.offers_of(catalog.plugin("first")) == {"strategy": ["first-come"]}
        assert "everfaas_first" not in sys.modules, "listing imports nothing"
        registry = Registry(catalog)
        offer = registry.strategy("first-come")
        assert "everfaas_first" in sys.modules
        assert (offer.plugin.distribution, offer.plugin.version) == ("everfaas-first", "1.2.3")
        assert offer.plugin.origin == str(tmp_path)
        assert registry.build_strategy(offer, {}).pick("f") is None  # type: ignore[arg-type]


def test_a_plugin_that_declares_no_kind_is_found_by_its_own_name(tmp_path: Path) -> None:
    fake(tmp_path, GOOD_STRATEGY.replace("NAME", "first"))
    with installed(tmp_path) as catalog:
        assert catalog.undeclared() == ["first"]
        assert Registry(catalog).strategy("first").name == "first"
        with pytest.raises(PluginError, match="offers no mode 'first'"):
            Registry(catalog).mode("first")


def test_an_entry_point_may_name_an_object(tmp_path: Path) -> None:
    source = GOOD_STRATEGY.replace("NAME", "first").replace(
        "@hookimpl\ndef everfaas_strategies():\n    return",
        "class Plugin:\n    @hookimpl\n    def everfaas_strategies(self):\n        return",
    )
    fake(tmp_path, source + "\nplugin = Plugin()\n", entry_points={"everfaas": {"first": "everfaas_first:plugin"}})
    with installed(tmp_path) as catalog:
        assert Registry(catalog).strategy("first").name == "first"


def test_only_the_selected_plugin_is_imported() -> None:
    code = (
        "import sys; from everfaas_core.registry import *; r = Registry(Catalog.installed());"
        "before = [m for m in sys.modules if m.startswith('everfaas_plugins')]; r.strategy('round-robin');"
        "print(before, sorted(m for m in sys.modules if m.startswith('everfaas_plugins')))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[] ['everfaas_plugins', 'everfaas_plugins.round_robin']"


def test_extra_plugins_are_loaded_at_once(tmp_path: Path) -> None:
    fake(tmp_path, GOOD_STRATEGY.replace("NAME", "first"))
    with installed(tmp_path) as catalog:
        Registry(catalog, extra=["first"])
        assert "everfaas_first" in sys.modules


# ── selection ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_selection_words() -> None:
    assert split_selection(["a", "no:b", "c"]) == (("a", "c"), ("b",))


def test_selecting_a_blocked_plugin_is_an_error(tmp_path: Path) -> None:
    fake(tmp_path, GOOD_STRATEGY.replace("NAME", "first"))
    with installed(tmp_path) as catalog:
        for select in (
            lambda: Registry(catalog, blocked=["first"]).strategy("first"),
            lambda: Registry(catalog, blocked=["first"]).check("strategy", "first"),
            lambda: Registry(catalog, blocked=["first"], extra=["first"]),
        ):
            with pytest.raises(PluginError, match=r"everfaas-first 1\.2\.3 is blocked by '-p no:first'"):
                select()
        assert "everfaas_first" not in sys.modules
        assert Registry(catalog, blocked=["first"]).strategy("round-robin").name == "round-robin"


def test_blocking_what_is_not_there_is_an_error() -> None:
    with pytest.raises(PluginError, match=r"unknown plugin 'redsi' \(did you mean redis\?"):
        Registry(Catalog.installed(), blocked=["redsi"])


def test_unknown_names_list_what_is_installed() -> None:
    registry = Registry(Catalog.installed())
    with pytest.raises(PluginError) as caught:
        registry.mode("puul")
    assert str(caught.value) == "unknown mode 'puul' (did you mean pull? installed modes: local, pull, push)"
    with pytest.raises(PluginError, match="installed store schemes: memory, redis, rediss, unix"):
        registry.store("mongodb://x")
    with pytest.raises(PluginError, match="no task sources are installed"):
        registry.source("cron")


def test_no_plugins_at_all_names_the_remedy() -> None:
    with pytest.raises(PluginError, match="pip install"):
        Registry(Catalog([])).mode("local")


# ── faults of plugins ────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_module_that_raises(tmp_path: Path) -> None:
    text = error_of(tmp_path, "raise RuntimeError('no GPU')")
    assert "RuntimeError: no GPU" in text
    assert "reinstall" in text


def test_a_module_that_lacks_a_dependency(tmp_path: Path) -> None:
    assert "is the module 'numpyy' installed?" in error_of(tmp_path, "import numpyy")


def test_a_module_that_exits(tmp_path: Path) -> None:
    assert "SystemExit: 7" in error_of(tmp_path, "raise SystemExit(7)")


def test_another_api_version(tmp_path: Path) -> None:
    text = error_of(tmp_path, GOOD_STRATEGY.replace("VERSION = 1", "VERSION = 99"))
    assert "plugin API version 99; this EverythingFaaS has version 1" in text


def test_no_api_version(tmp_path: Path) -> None:
    assert "states no EVERFAAS_API_VERSION" in error_of(tmp_path, GOOD_STRATEGY.replace("EVERFAAS_API_VERSION", "X"))


def test_an_unknown_hook(tmp_path: Path) -> None:
    text = error_of(tmp_path, GOOD_STRATEGY + "\n@hookimpl\ndef everfaas_strategy():\n    return []\n")
    assert "unknown hook, everfaas_strategy" in text
    assert "did you mean everfaas_strategies?" in text


def test_an_unmarked_unknown_hook(tmp_path: Path) -> None:
    assert "unknown hook" in error_of(tmp_path, GOOD_STRATEGY + "\ndef everfaas_oops():\n    return []\n")


def test_a_hook_without_its_mark(tmp_path: Path) -> None:
    assert "write @hookimpl above it" in error_of(tmp_path, GOOD_STRATEGY.replace("@hookimpl\n", ""))


def test_a_hook_with_another_signature(tmp_path: Path) -> None:
    text = error_of(tmp_path, GOOD_STRATEGY.replace("def everfaas_strategies()", "def everfaas_strategies(config)"))
    assert "does not fit the hooks" in text
    assert "config" in text


def test_a_wrapper(tmp_path: Path) -> None:
    source = HEAD + "\n@hookimpl(wrapper=True)\ndef everfaas_modes():\n    return (yield)\n"
    assert "as a wrapper" in error_of(tmp_path, source)


def test_no_hook_at_all(tmp_path: Path) -> None:
    assert "implements no hook" in error_of(tmp_path, "EVERFAAS_API_VERSION = 1")


def test_a_hook_that_raises(tmp_path: Path) -> None:
    text = error_of(tmp_path, HEAD + "\n@hookimpl\ndef everfaas_modes():\n    return 1 / 0\n")
    assert "everfaas_modes of plugin 'first'" in text
    assert "ZeroDivisionError" in text


@pytest.mark.parametrize(
    ("returned", "said"),
    [
        ("None", "TypeError"),
        ("['round-robin']", "returned str where a StrategyProvider belongs"),
        ("[StrategyProvider(name='', summary='', factory=print)]", "its name is not a text"),
        ("[StrategyProvider(name='first', summary='', factory=3)]", "its factory is not callable"),
        ("[StrategyProvider(name='first', summary='', factory=print, options=dict)]", "not a marshmallow Schema"),
    ],
)
def test_what_is_no_provider(tmp_path: Path, returned: str, said: str) -> None:
    assert said in error_of(tmp_path, HEAD + f"\n@hookimpl\ndef everfaas_strategies():\n    return {returned}\n")


def test_metadata_that_disagrees_with_the_hooks(tmp_path: Path) -> None:
    fake(
        tmp_path,
        GOOD_STRATEGY.replace("NAME", "other"),
        entry_points={"everfaas": {"first": "everfaas_first"}, STRATEGIES: {"first": "everfaas_first"}},
    )
    with installed(tmp_path) as catalog, pytest.raises(PluginError, match="offers no strategy 'first'"):
        Registry(catalog).strategy("first")


def test_metadata_that_points_at_no_plugin(tmp_path: Path) -> None:
    fake(tmp_path, "", entry_points={STRATEGIES: {"first": "everfaas_lost"}})
    with installed(tmp_path) as catalog, pytest.raises(PluginError, match="not one of its plugins"):
        Registry(catalog).strategy("first")


# ── clashes ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_two_distributions_claim_one_plugin_name(tmp_path: Path) -> None:
    source = GOOD_STRATEGY.replace("NAME", "first")
    fake(tmp_path, source)
    fake(tmp_path, source, distribution="rival", module="rival_first", version="9.0")
    with installed(tmp_path) as catalog:
        assert list(catalog.clashes()) == ["first"]
        with pytest.raises(PluginError) as caught:
            Registry(catalog).load("first")
        assert "everfaas-first 1.2.3 (everfaas_first) and rival 9.0 (rival_first)" in str(caught.value)
        assert Registry(catalog).strategy("round-robin"), "those who do not select it are not hurt"


def test_two_distributions_declare_one_mode(tmp_path: Path) -> None:
    fake(
        tmp_path,
        GOOD_STRATEGY,
        entry_points={"everfaas": {"first": "everfaas_first"}, "everfaas.modes": {"pull": "everfaas_first"}},
    )
    with (
        installed(tmp_path) as catalog,
        pytest.raises(PluginError, match="two plugins claim the mode 'pull'") as caught,
    ):
        Registry(catalog).mode("pull")
    assert "everfaas-first 1.2.3" in str(caught.value)
    assert "everfaas_plugins.pull" in str(caught.value)


def test_two_loaded_plugins_offer_one_name(tmp_path: Path) -> None:
    fake(tmp_path, GOOD_STRATEGY.replace("NAME", "round-robin"))
    with installed(tmp_path) as catalog, pytest.raises(PluginError, match="strategy 'round-robin'") as caught:
        Registry(catalog, extra=["first"]).strategy("round-robin")
    assert "everfaas-first 1.2.3" in str(caught.value)
    assert "everfaas_plugins.round_robin" in str(caught.value)


# ── objects that do not fit ──────────────────────────────────────────────────────────────────────────────────────────


def test_an_object_that_does_not_fit_its_port(tmp_path: Path) -> None:
    source = GOOD_STRATEGY.replace("NAME", "first").replace("def pick(self, function_id)", "def pick(self)")
    fake(tmp_path, source.replace("def loaded(self, worker_id, function_id): pass", "remove = 3"))
    with installed(tmp_path) as catalog:
        registry = Registry(catalog)
        with pytest.raises(PluginError) as caught:
            registry.build_strategy(registry.strategy("first"), {})
    text = str(caught.value)
    assert "the factory of the strategy 'first' of plugin 'first' of everfaas-first 1.2.3 made a First" in text
    assert "which is no Strategy" in text
    assert "loaded is missing" in text
    assert "pick() can't be called as pick(function_id)" in text


def test_a_factory_that_raises(tmp_path: Path) -> None:
    fake(tmp_path, GOOD_STRATEGY.replace("NAME", "first").replace("First())", "1 / 0)"))
    with installed(tmp_path) as catalog:
        registry = Registry(catalog)
        with pytest.raises(PluginError, match=r"everfaas-first 1\.2\.3 raised ZeroDivisionError"):
            registry.build_strategy(registry.strategy("first"), {})


def test_a_factory_may_raise_our_errors(tmp_path: Path) -> None:
    source = GOOD_STRATEGY.replace("NAME", "first").replace("First())", "refuse())")
    source += "\ndef refuse():\n    from everfaas_core.model.errors import ConfigError\n    raise ConfigError('no')\n"
    fake(tmp_path, source)
    with installed(tmp_path) as catalog:
        registry = Registry(catalog)
        with pytest.raises(ConfigError, match="no"):
            registry.build_strategy(registry.strategy("first"), {})


class Wanting:
    """Fits no Link: an attribute is missing and a method is none."""

    bound = True
    address = ""
    open = "yes"

    def receive(self, now: float, ready_fds: object) -> list[object]:
        return []

    def send(self, *args: object) -> None: ...
    def fence(self, *args: object) -> None: ...
    def next_timer(self) -> None: ...
    def close(self) -> None: ...


def test_fit_names_each_problem() -> None:
    assert check_fit(Wanting(), Link) == ["credit is missing", "open is not callable"]


def test_fit_sees_properties_and_instance_attributes_without_reading_properties() -> None:
    class Lazy(Wanting):
        def __init__(self) -> None:
            self.credit = "granted"

        @property
        def address(self) -> str:  # type: ignore[override]
            raise RuntimeError("not open yet")

        def open(self, selector: object) -> None: ...  # type: ignore[override]

    assert check_fit(Lazy(), Link) == []


def test_fit_of_nothing() -> None:
    assert "pick is missing" in check_fit(None, Strategy)
