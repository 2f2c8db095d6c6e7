"""A fake distribution on disk: a dist-info folder and a module, found by importlib.metadata like any installed one."""

from __future__ import annotations

import importlib
import sys
import textwrap
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from everfaas_core.registry import Catalog

HEAD = """
from everfaas_core.hookspecs import (
    Mode, SourceProvider, StoreProvider, StrategyProvider, Transport, hookimpl,
)
EVERFAAS_API_VERSION = 1
"""

GOOD_STRATEGY = (
    HEAD
    + """
class First:
    def update(self, worker): pass
    def loaded(self, worker_id, function_id): pass
    def remove(self, worker_id): pass
    def pick(self, function_id): return None

@hookimpl
def everfaas_strategies():
    return [StrategyProvider(name="NAME", summary="takes the first", factory=lambda options: First())]
"""
)


def make_distribution(
    folder: Path,
    *,
    distribution: str,
    module: str,
    source: str,
    version: str = "1.2.3",
    entry_points: Mapping[str, Mapping[str, str]],
) -> None:
    """Write a distribution into `folder`, which has to be on `sys.path` (see `installed`)."""
    (folder / f"{module}.py").write_text(textwrap.dedent(source))
    info = folder / f"{distribution.replace('-', '_')}-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n")
    lines: list[str] = []
    for group, entries in entry_points.items():
        lines.append(f"[{group}]")
        lines.extend(f"{name} = {value}" for name, value in entries.items())
    (info / "entry_points.txt").write_text("\n".join(lines) + "\n")


@contextmanager
def installed(folder: Path) -> Iterator[Catalog]:
    """Put `folder` on `sys.path`, and yield what is installed then."""
    before = set(sys.modules)
    sys.path.insert(0, str(folder))
    importlib.invalidate_caches()
    try:
        yield Catalog.installed()
    finally:
        sys.path.remove(str(folder))
        importlib.invalidate_caches()
        for name in set(sys.modules) - before:
            if str(getattr(sys.modules[name], "__file__", "")).startswith(str(folder)):
                del sys.modules[name]
