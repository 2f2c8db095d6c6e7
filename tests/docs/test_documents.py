"""What the documents state as facts is true: links, tables, the tree, the layers, the screen, the diagrams."""

from __future__ import annotations

import configparser
import io
import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import click
import pytest

from everfaas_core.cli.group import SECTIONS, everfaas
from everfaas_core.cli.screen import Screen
from everfaas_core.config import KEYS, Settings
from everfaas_core.model.states import Cause
from everfaas_core.registry import Catalog

from .diagrams import DOCUMENT as ARCHITECTURE
from .diagrams import diagrams, refreshed
from .markdown import DOCUMENTS, ROOT, anchors, blocks, first_column, links

README = ROOT / "README.md"
DECISIONS = ROOT / "docs" / "decisions"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(document: Path) -> None:
    for target in links(document):
        if target.startswith(("http://", "https://", "mailto:")):
            continue
        path, _, anchor = target.partition("#")
        found = (document.parent / path) if path else document
        assert found.exists(), f"{document.name} links to {target}"
        if anchor:
            assert anchor in anchors(found), f"{document.name} links to {target}"


def test_every_document_is_linked_from_somewhere() -> None:
    reached = {
        (document.parent / target.partition("#")[0]).resolve() for document in DOCUMENTS for target in links(document)
    }
    assert [path for path in DOCUMENTS if path != README and path.resolve() not in reached] == []


@pytest.mark.parametrize(("kind", "heading"), [("mode", "mode"), ("strategy", "strategy")])
def test_the_readme_lists_what_is_built_in(kind: str, heading: str) -> None:
    catalog = Catalog.installed()
    ours = {
        name
        for plugin in catalog.plugins
        if plugin.distribution == "everfaas"
        for name in catalog.offers_of(plugin).get(kind, ())
    }
    assert set(first_column(README, heading)) == ours


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_the_screen_is_the_one_that_up_shows() -> None:
    terminal = Terminal()
    screen = Screen(Settings(), data="/home/ada/.local/state/everfaas", needs_workers=False, stream=terminal)
    screen.ready("http://127.0.0.1:8000", "")
    shown = re.sub(r"\x1b\[[0-9;]*m", "", terminal.getvalue())
    lines = [line.rstrip() for line in shown.splitlines()]
    assert next(blocks(README, "text")).text.splitlines() == lines


def test_diagrams_match_the_tables_of_the_code() -> None:
    text = ARCHITECTURE.read_text()
    assert re.findall(r"<!-- diagram: ([\w-]+) -->", text) == list(diagrams())
    assert refreshed(text) == text, "run: python -m tests.docs.diagrams"


def test_every_cause_is_in_the_table() -> None:
    named = {name for cell in first_column(ARCHITECTURE, "cause") for name in re.findall(r"\w+", cell)}
    assert named == {cause.value for cause in Cause}


def test_the_layers_are_those_of_setup_cfg() -> None:
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg")
    rows = parser["importlinter:contract:layers"]["layers"].strip().splitlines()
    expected = " → ".join(row.strip().replace("everfaas_core.", "") for row in rows)
    assert expected in [block.text.strip() for block in blocks(ARCHITECTURE, "text")]


def test_the_rooms_are_those_of_the_tree() -> None:
    (tree,) = (block.text for block in blocks(ARCHITECTURE, "text") if "everfaas_core/\n" in block.text)
    core, plugins = tree.split("everfaas_core/\n")[1].split("plugins/")
    named = set(re.findall(r"^  (\w+(?:/|\.py))", core, re.MULTILINE))
    packages = {f"{init.parent.name}/" for init in (ROOT / "everfaas_core").glob("*/__init__.py")}
    assert {name for name in named if name.endswith("/")} == packages
    assert all((ROOT / "everfaas_core" / name).exists() for name in named)
    folders = {init.parent.name for init in (ROOT / "plugins").glob("*/__init__.py")}
    assert set(re.findall(r"(\w+)/", plugins.split("\ntests/")[0])) == folders
    for name in ("app.py", "run_dispatcher.py", "run_worker.py", "tests", "docs", "examples", "bench", ".ci/run"):
        assert name in tree
        assert (ROOT / name).exists()


def test_every_folder_of_tests_is_described() -> None:
    described = first_column(ROOT / "docs" / "testing.md", "folder")
    assert {f"tests/{init.parent.name}" for init in (ROOT / "tests").glob("*/__init__.py")} <= set(described)
    assert [folder for folder in described if not (ROOT / folder).is_dir()] == []


def test_decisions_are_numbered_listed_and_complete() -> None:
    records = sorted(DECISIONS.glob("0*.md"))
    assert [path.name[:4] for path in records] == [f"{number:04}" for number in range(1, len(records) + 1)]
    assert [path.name for path in records] == [name for name in links(DECISIONS / "README.md") if name[0] == "0"]
    for path in records:
        headings = re.findall(r"^## (.+)$", path.read_text(), re.MULTILINE)
        assert headings == ["Context", "Decision", "What was measured", "Consequences"], path.name


def test_the_picture_is_readable_in_light_and_dark() -> None:
    path = ROOT / "docs" / "architecture.svg"
    root = ElementTree.parse(path).getroot()
    assert root.find("{http://www.w3.org/2000/svg}title") is not None
    assert "prefers-color-scheme: dark" in path.read_text()
    assert "http" not in re.sub(r'xmlns="[^"]*"', "", path.read_text()), "loads nothing from elsewhere"


def test_tests_that_documents_name_exist() -> None:
    text = (ROOT / "docs" / "reliability.md").read_text()
    named = re.findall(r"`([\w/]+\.py)::(\w+)`", text)
    assert len(named) > 40
    for path, name in named:
        folder = ROOT / "tests" if "/" in path else ROOT / "everfaas_core" / "testing"
        assert f"def {name}(" in (folder / path).read_text(), f"{path}::{name}"


CLIENT_COMMANDS = [name for heading in ("Run things", "Look at things", "Change things") for name in SECTIONS[heading]]


@pytest.mark.parametrize("name", [*CLIENT_COMMANDS, "doctor", "config", "completion"])
def test_the_command_line_is_documented_with_all_flags(name: str) -> None:
    command = everfaas.get_command(click.Context(everfaas), name)
    assert command is not None
    text = (ROOT / "docs" / "cli.md").read_text()
    assert f"`{name}`" in text
    settings = {key.option for key in KEYS.values()} | {"-p", "--json", "--config"}
    flags = {
        flag
        for parameter in command.params
        if isinstance(parameter, click.Option) and not parameter.hidden
        for flag in parameter.opts
        if flag.startswith("--")
    }
    assert [flag for flag in sorted(flags - settings) if f"`{flag}" not in text] == []


def test_exit_statuses_are_those_of_the_code() -> None:
    from everfaas_core import cli

    documented = {int(word) for word in first_column(ROOT / "docs" / "cli.md", "status")}
    ours = {value for name, value in vars(cli).items() if name.startswith("EXIT_")}
    assert documented == ({0} | ours) - {cli.EXIT_REFUSED}
