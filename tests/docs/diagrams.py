"""State diagrams from the code's transition tables. `python -m tests.docs.diagrams` writes them into the document."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from everfaas_core.dispatch.entries import PHASES
from everfaas_core.model.states import TERMINAL, TRANSITIONS
from everfaas_core.worker import slot_state

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "architecture.md"
BLOCK = re.compile(r"(<!-- diagram: (?P<name>[\w-]+) -->\n```mermaid\n)(?P<text>.*?)(```\n)", re.DOTALL)


def name_of(state: object) -> str:
    """Return a state as the diagram shows it: [*] is "not held"."""
    return "[*]" if state is None else str(getattr(state, "name", state))


def mermaid(table: Mapping[object, Iterable[object]], *, first: object = None, last: Iterable[object] = ()) -> str:
    """Return the diagram of a table. `first` is entered from outside; `last` are left for good."""
    lines = ["stateDiagram-v2"]
    if first is not None:
        lines.append(f"    [*] --> {name_of(first)}")
    for state, followers in table.items():
        lines += [f"    {name_of(state)} --> {follower}" for follower in sorted(map(name_of, followers))]
    lines += [f"    {name} --> [*]" for name in sorted(map(name_of, last))]
    return "\n".join(lines) + "\n"


def diagrams() -> dict[str, str]:
    """Return all diagrams by name."""
    return {
        "task": mermaid(dict(TRANSITIONS), first=next(iter(TRANSITIONS)), last=TERMINAL),
        "claim": mermaid(dict(PHASES)),
        "slot": mermaid(dict(slot_state.TRANSITIONS), first=slot_state.Phase.DOWN),
    }


def refreshed(document: str) -> str:
    """Return the document with the diagrams as they are now."""
    now = diagrams()
    return BLOCK.sub(lambda match: match[1] + now[match["name"]] + match[4], document)


if __name__ == "__main__":
    DOCUMENT.write_text(refreshed(DOCUMENT.read_text()))
