"""The Lua scripts. Each runs atomically in the server, and has the prelude in front."""

from __future__ import annotations

import hashlib
from importlib import resources
from typing import Final

from msgspec import Struct

_NAMES: Final = (
    "adopt",
    "cancel",
    "claim",
    "drain",
    "finish",
    "fleet",
    "functions",
    "group",
    "lease",
    "list",
    "log",
    "output",
    "put_function",
    "records",
    "requeue",
    "resign",
    "results",
    "retry",
    "start",
    "submit",
    "sweep",
)


class Script(Struct, frozen=True):
    """One script: the name of its file, its text, and the digest that the server knows it by."""

    name: str
    text: str
    sha: str


def load_scripts() -> dict[str, Script]:
    """Read all scripts of this package, by name."""
    folder = resources.files(__package__)
    prelude = folder.joinpath("prelude.lua").read_text(encoding="utf-8")
    scripts = {}
    for name in _NAMES:
        text = folder.joinpath(f"{name}.lua").read_text(encoding="utf-8")
        flags, text = text.split("\n", 1) if text.startswith("#!") else ("", text)
        text = f"{flags}\n{prelude}{text}" if flags else prelude + text
        digest = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()  # what EVALSHA goes by
        scripts[name] = Script(name, text, digest)
    return scripts
