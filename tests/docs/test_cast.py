"""The recording of the first five minutes: what is typed in it works today, and the picture was drawn from it."""

from __future__ import annotations

import ast
import hashlib
import importlib
import json
import re
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from .markdown import ROOT, Block, links
from .shell import check, commands

HERE = ROOT / "docs" / "cast"
CAST = HERE / "first-minutes.cast"
SVG = HERE / "first-minutes.svg"
TEXT = HERE / "first-minutes.txt"
SIZE_MAX_BYTES = 300_000
TOOLS = {"cat", "seq", "tail"}
ADA = "/tmp/ada/"


def recorded() -> list[Any]:
    return [json.loads(line) for line in CAST.read_text().splitlines()]


@cache
def typed() -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return what was typed: lines for the shell, and lines for Python."""
    shell: list[str] = []
    python: list[str] = []
    line, lines = "", shell
    for key in "".join(text for _, kind, text in recorded()[1:] if kind == "i"):
        if key == "\r":
            lines.append(line)
            if lines is shell and line == "python":
                lines = python
            line = ""
        elif key == "\x04":
            lines = shell
        elif key >= " ":
            line += key
    return tuple(shell), tuple(python)


def shown() -> str:
    return "".join(text for _, kind, text in recorded()[1:] if kind == "o")


def test_it_is_an_asciicast() -> None:
    head, *events = recorded()
    assert head["version"] == 2
    assert head["idle_time_limit"] > 0
    assert {kind for _, kind, _ in events} == {"o", "i", "m"}
    times = [at_s for at_s, _, _ in events]
    assert times == sorted(times)


def test_what_the_product_promises_for_the_first_minutes_is_in_it() -> None:
    shell, python = typed()
    wanted = ["pip install", "everfaas up", "everfaas run", "everfaas map", "everfaas ls", "everfaas status"]
    assert [start for start in wanted if not any(line.startswith(start) for line in shell)] == []
    assert any("client.submit(" in line for line in python)
    assert any("client.map(" in line for line in python)
    for said in ("ready", "Remote traceback", "stopped"):
        assert said in TEXT.read_text()


@pytest.mark.parametrize("line", typed()[0])
def test_a_command_that_is_typed_exists(line: str) -> None:
    found = list(commands(Block(CAST, 1, "bash", line, None)))
    assert found
    for words in found:
        if words != ["python"] and words[0] not in TOOLS:
            check(words)
        for word in words:
            if "::" in word:
                file, function = word.split("::")
                tree = ast.parse((HERE / "files" / file).read_text())
                assert function in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
    assert f"$ {line}\n" in TEXT.read_text()


def test_what_is_typed_to_python_is_python() -> None:
    _, lines = typed()
    assert lines
    for node in ast.walk(ast.parse("\n".join(lines))):
        if isinstance(node, ast.ImportFrom):
            assert node.module
            module = importlib.import_module(node.module)
            assert [alias.name for alias in node.names if not hasattr(module, alias.name)] == []


def test_nothing_of_the_machine_is_told() -> None:
    for text in (shown(), TEXT.read_text(), SVG.read_text()):
        bare = re.sub(r"\x1b\[[0-9;?>]*[a-zA-Z]|https?://[^\s\"<]*", "", text)
        paths = re.findall(r"(?<![\w.\-/<])/(?:[\w.-]+/)+[\w.-]*", bare)
        assert [path for path in paths if not path.startswith(ADA)] == []
        addresses = set(re.findall(r"\b\d+\.\d+\.\d+\.\d+\b", text))
        assert addresses == {"127.0.0.1"}
        assert re.findall(r"\w@\w", bare) == []


def test_the_picture_was_drawn_from_the_recording() -> None:
    digest = hashlib.sha256(CAST.read_bytes()).hexdigest()
    assert digest in SVG.read_text(), "run: python docs/cast/record.py"


def test_the_picture_moves_on_a_page_without_scripts() -> None:
    text = SVG.read_text()
    root = ElementTree.fromstring(text)
    assert SVG.stat().st_size < SIZE_MAX_BYTES
    assert root.find("{http://www.w3.org/2000/svg}title") is not None
    assert {element.tag.rpartition("}")[2] for element in root.iter()} <= {
        *("svg", "title", "style", "defs", "g", "use", "rect", "circle", "text"),
    }
    assert "prefers-reduced-motion:reduce" in text
    assert "infinite" in text
    style = root.findtext("{http://www.w3.org/2000/svg}style") or ""
    assert not re.search(r"url\(|@import|@font-face", style), "loads nothing from elsewhere"
    assert {use.get("href", "")[:1] for use in root.iter("{http://www.w3.org/2000/svg}use")} <= {"#"}


def test_the_readme_shows_it_and_links_its_text() -> None:
    shown = links(ROOT / "README.md")
    assert "docs/cast/first-minutes.svg" in shown
    assert "docs/cast/first-minutes.txt" in shown


# ── the drawing itself; pyte comes with the extra `docs`, which .ci/run installs ─────────────────────────────────────


def drawn(cast: Path) -> str:
    words = [sys.executable, str(HERE / "draw.py"), str(cast)]
    return subprocess.run(words, check=True, capture_output=True, text=True, encoding="utf-8", timeout=60).stdout


def test_the_picture_is_what_it_would_be_drawn_as_now() -> None:
    pytest.importorskip("pyte", reason="pyte is not installed: pip install '.[docs]'")
    assert drawn(CAST) == SVG.read_text(encoding="utf-8"), "run: python docs/cast/draw.py"


def test_colours_wide_characters_and_what_is_still(tmp_path: Path) -> None:
    pytest.importorskip("pyte", reason="pyte is not installed: pip install '.[docs]'")
    cast = tmp_path / "small.cast"
    head = {"version": 2, "width": 20, "height": 3, "idle_time_limit": 1.0, "title": "a < b"}
    events = [
        [0.1, "o", "\x1b[1;31mred\x1b[0m \x1b[2mdim\x1b[22m 日本<&\r\n"],
        [9.0, "o", "\x1b[48;5;240mbar\x1b[0m ━━━"],
        [9.1, "m", "still"],
        [9.3, "o", "\x1b[2J\x1b[Hgone"],
    ]
    cast.write_text("".join(json.dumps(line) + "\n" for line in [head, *events]))
    text = drawn(cast)
    root = ElementTree.fromstring(text)
    space = "{http://www.w3.org/2000/svg}"
    style = root.findtext(f"{space}style") or ""
    rules = dict(re.findall(r"\.(s\d+)\{([^}]*)\}", style))
    found = {element.text: element for element in root.iter(f"{space}text")}
    assert "font-weight:bold" in rules[found["red"].get("class", "")]
    assert "opacity" in rules[found["dim"].get("class", "")]
    assert found["日"].get("textLength") == found["本"].get("textLength") == "16.8", "two cells each"
    assert {"<&", "bar", "━━━", "gone"} <= set(found)
    assert any(rect.get("fill") == "#585858" for rect in root.iter(f"{space}rect"))
    # The pause of nine seconds is played as one, and four more at the end: the second row changes at 1.1 of 5.4 s.
    assert "5.40s" in style
    assert "20.37%" in style
    still = [group.get("transform") for group in root.iter(f"{space}g") if "animation-name" in group.get("style", "")]
    assert still == ["translate(0 -18)", "translate(0 -18)"], "at the mark, not at the end"
