"""The command lines of the documents, taken apart and checked without being run."""

from __future__ import annotations

import shlex
import tomllib
from collections.abc import Iterator, Sequence

import click

from everfaas_core.cli.group import COMMANDS, everfaas

from .markdown import ROOT, Block

SCRIPTS = {"app.py": "api", "run_dispatcher.py": "dispatcher", "run_worker.py": "worker"}
FOREIGN = {"seq", "ssh", "curl", "mypy", "ruff", "lint-imports"}  # their flags are not ours to know
SEPARATORS = {"&&", "|", ";"}


class WrongCommand(AssertionError):
    """A document shows a command that would not work."""


def commands(block: Block) -> Iterator[list[str]]:
    """Yield each single command of a block as words; comments are gone, `a && b` are two."""
    for line in block.text.replace("\\\n", " ").splitlines():
        words: list[str] = []
        for word in shlex.split(line, comments=True):
            if word in SEPARATORS:
                yield words
                words = []
            else:
                words.append(word)
        if words:
            yield words


def check(words: Sequence[str]) -> None:
    """Raise WrongCommand unless this is a command that we know, with flags and files that exist."""
    match words:
        case ["everfaas", name, *arguments] if name in COMMANDS:
            _check_ours(name, arguments)
        case ["python", script, *arguments] if script in SCRIPTS:
            _check_ours(SCRIPTS[script], arguments)
        case ["xargs", *arguments] if arguments:
            check(arguments)
        case ["python", "-m", module]:
            _check_file(module.replace(".", "/") + ".py")
        case ["python", script, *_]:
            _check_file(script)
        case ["python3", "-m", "venv", _]:
            pass
        case [".", activate] if activate.endswith("/bin/activate"):
            pass
        case ["pip", "install", *arguments]:
            _check_pip(arguments)
        case ["pytest", *arguments]:
            for argument in arguments:
                if "/" in argument:
                    _check_file(argument)
        case [".ci/run", *arguments] if arguments in ([], ["worktree"]):
            _check_file(".ci/run")
        case [name, *_] if name in FOREIGN:
            pass
        case _:
            raise WrongCommand(f"nobody knows the command {shlex.join(words)}")


def _check_ours(name: str, arguments: Sequence[str]) -> None:
    context = click.Context(everfaas)
    command = everfaas.get_command(context, name)
    assert command is not None
    try:
        command.make_parser(click.Context(command, info_name=name)).parse_args(list(arguments))
    except click.UsageError as error:
        raise WrongCommand(f"everfaas {name} {shlex.join(arguments)}: {error.format_message()}") from None


def _check_file(path: str) -> None:
    if not (ROOT / path).exists():
        raise WrongCommand(f"there is no {path}")


def _check_pip(arguments: Sequence[str]) -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for argument in arguments:
        if argument.startswith(".["):
            missing = set(argument[2:-1].split(",")) - set(extras)
            if missing:
                raise WrongCommand(f"there are no extras {missing}")
        elif argument not in (".", "-e", "-q", "requests", "dill"):
            raise WrongCommand(f"pip install {argument}?")
