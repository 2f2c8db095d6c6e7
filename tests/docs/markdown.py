"""Just enough of Markdown to test it: fenced blocks, links, headings, tables."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = [
    ROOT / "README.md",
    ROOT / "SECURITY.md",
    ROOT / "examples" / "README.md",
    *sorted((ROOT / "docs").rglob("*.md")),
]

FENCE = re.compile(r"^```(?P<language>\w*)\n(?P<text>.*?)^```$", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"!?\[[^\]]*\]\((?P<target>[^)\s]+)\)")
HEADING = re.compile(r"^#+ +(.+)$", re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """A fenced block; `output` is the text block right behind it, if there is one."""

    document: Path
    line: int
    language: str
    text: str
    output: str | None

    def __str__(self) -> str:
        return f"{self.document.relative_to(ROOT)}:{self.line}"


def blocks(document: Path, *languages: str) -> Iterator[Block]:
    """Yield the fenced blocks of a document in these languages."""
    text = document.read_text()
    found = list(FENCE.finditer(text))
    for match, following in zip_longest(found, found[1:]):
        if match["language"] not in languages:
            continue
        output = None
        if (
            following is not None
            and following["language"] in ("", "text")
            and not text[match.end() : following.start()].strip()
        ):
            output = following["text"]
        yield Block(document, text.count("\n", 0, match.start()) + 1, match["language"], match["text"], output)


def prose(document: Path) -> str:
    """Return a document without its fenced blocks."""
    return FENCE.sub("", document.read_text())


def links(document: Path) -> list[str]:
    """Return the targets of all links and pictures."""
    return [match["target"] for match in LINK.finditer(prose(document))]


def anchors(document: Path) -> set[str]:
    """Return the anchors that headings make, as GitHub names them."""
    return {
        re.sub(r"[^\w\- ]", "", heading.replace("`", "").lower()).replace(" ", "-")
        for heading in HEADING.findall(prose(document))
    }


def first_column(document: Path, heading: str) -> list[str]:
    """Return the first column of the table whose first heading is this, without backticks."""
    lines = document.read_text().splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith(f"| {heading} |"))
    rows = []
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            break
        rows.append(line.split("|")[1].strip().strip("`"))
    return rows
