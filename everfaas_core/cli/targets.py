"""`FILE.py::FUNCTION` and `package.module::FUNCTION`: find the function, and read the arguments that were typed."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import click

from everfaas_core.cli.shown import brief
from everfaas_core.model.errors import ConfigError

EXAMPLE: Final = "for example: everfaas run examples/pi.py::estimate 1000, or package.module::function"


class NotFound(ConfigError):
    """The command line names no function that can be run. The user's to mend: exit status 2."""

    code = "no_such_target"


def find_function(target: str) -> Any:
    """Import what stands before `::`, and return what is called so in it. Raises NotFound."""
    place, separator, name = target.rpartition("::")
    if not separator or not place or not name:
        raise NotFound(f"'{target}' does not name a function", hint=EXAMPLE)
    module = _import_file(place) if _is_path(place) else _import_module(place)
    found: Any = module
    for part in name.split("."):
        try:
            found = getattr(found, part)
        except AttributeError:
            raise NotFound(f"{place} has no '{name}'", hint=_others(module, name)) from None
    if not callable(found):
        raise NotFound(f"{target} is no function but a {type(found).__name__}", hint=_others(module, name))
    return found


def _is_path(place: str) -> bool:
    return place.endswith(".py") or os.sep in place or os.path.isfile(place)


def _import_file(place: str) -> ModuleType:
    """Import a file as `python FILE` would, without running it as a script; a package's module as part of it."""
    path = Path(place).resolve()
    if not path.is_file():
        raise NotFound(f"there is no file {place}", hint=EXAMPLE)
    root, name = path.parent, path.stem
    while (root / "__init__.py").is_file():
        root, name = root.parent, f"{root.name}.{name}"
    sys.path.insert(0, str(root))
    if "." in name:
        return _import_module(name, place)
    if name in sys.modules or name in sys.stdlib_module_names or not name.isidentifier():
        name = f"everfaas_target_{''.join(c if c.isalnum() else '_' for c in name)}"  # its own name is taken
    spec = importlib.util.spec_from_file_location(name, path)
    loader = spec.loader if spec else None
    if spec is None or loader is None:
        raise NotFound(f"{place} is no Python file", hint=EXAMPLE)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # before it runs: so it finds itself, as in any import

    def load() -> ModuleType:
        loader.exec_module(module)
        return module

    return _running(load, place)


def _import_module(name: str, place: str = "") -> ModuleType:
    if not place:
        sys.path.insert(0, os.getcwd())
    if importlib.util.find_spec(name.partition(".")[0]) is None:
        raise NotFound(f"there is no module '{name}' here", hint=EXAMPLE)
    return _running(lambda: importlib.import_module(name), place or name)


def _running(call: Callable[[], ModuleType], place: str) -> ModuleType:
    """Run the user's module; what is wrong in it is theirs, and shown as Python shows it."""
    try:
        return call()
    except Exception as error:
        import traceback

        frames = traceback.extract_tb(error.__traceback__)
        theirs = [frame for frame in frames if not frame.filename.startswith(("<frozen", os.path.dirname(__file__)))]
        text = "".join(traceback.format_list(theirs)) + "".join(traceback.format_exception_only(error))
        raise NotFound(f"{place} can't be imported:\n{text.rstrip()}", hint=f"mend it: {brief(text)}") from error


def _others(module: ModuleType, wanted: str) -> str:
    import difflib

    names = [name for name, value in vars(module).items() if callable(value) and not name.startswith("_")]
    own = [name for name in names if getattr(getattr(module, name), "__module__", None) == module.__name__]
    near = difflib.get_close_matches(wanted, own, n=3)
    if near:
        return f"did you mean {' or '.join(near)}?"
    return f"it has: {', '.join(own[:20])}" if own else "it defines no functions"


def literal(word: str) -> Any:
    """Return a word as Python reads it, if it is a literal (`3`, `[1, 2]`, `"x"`, `None`), else the word itself."""
    try:
        return ast.literal_eval(word.strip())
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return word


def keywords(words: Sequence[str]) -> dict[str, Any]:
    """Return `k=v` words as keyword arguments. Raises UsageError for one that is none."""
    found: dict[str, Any] = {}
    for word in words:
        name, separator, value = word.partition("=")
        if not separator or not name.isidentifier():
            raise click.UsageError(f"--kw {word}: write it as NAME=VALUE.")
        found[name] = literal(value)
    return found


class TargetCommand(click.Command):
    """A command whose arguments may be negative numbers: no flag begins with a digit or a dot."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse, with numbers out of the parser's sight."""
        hidden = ["\0" + word if word[:1] == "-" and word[1:2] in "0123456789." and word[1:] else word for word in args]
        rest = super().parse_args(ctx, hidden)
        for name, value in ctx.params.items():
            if isinstance(value, str):
                ctx.params[name] = value.lstrip("\0")
            elif isinstance(value, tuple):
                ctx.params[name] = tuple(one.lstrip("\0") if isinstance(one, str) else one for one in value)
        return rest
