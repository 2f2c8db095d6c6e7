"""Does an object fit a port? Checked once, when a plugin's factory has returned it."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any, Final

_MISSING: Final = object()


def port_members(port: type) -> Iterator[tuple[str, Any]]:
    """Yield the public members of a Protocol: name, and its function, property, or None for a plain attribute."""
    seen: set[str] = set()
    for base in port.__mro__:
        if not getattr(base, "_is_protocol", False) or base.__module__ == "typing":
            continue
        declared = {**dict.fromkeys(inspect.get_annotations(base)), **base.__dict__}
        for name, value in declared.items():
            if not name.startswith("_") and name not in seen:
                seen.add(name)
                yield name, value


def check_fit(candidate: object, port: type) -> list[str]:
    """Return what keeps `candidate` from fitting `port`: missing members, wrong signatures. Empty: it fits."""
    problems: list[str] = []
    for name, declared in sorted(port_members(port), key=lambda member: member[0]):
        if inspect.getattr_static(candidate, name, _MISSING) is _MISSING and not hasattr(candidate, name):
            problems.append(f"{name} is missing")
        elif inspect.isfunction(declared):
            problem = _method_problem(candidate, name, declared)
            if problem:
                problems.append(problem)
    return problems


def _method_problem(candidate: object, name: str, declared: Any) -> str | None:
    method = getattr(candidate, name)
    if not callable(method):
        return f"{name} is not callable"
    wanted = inspect.signature(declared)
    parameters = list(wanted.parameters.values())[1:]  # without self
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    keywords = {p.name: None for p in parameters if p.kind is p.KEYWORD_ONLY}
    try:
        signature = inspect.signature(method)
    except (TypeError, ValueError):
        return None  # written in C: nothing to compare with
    try:
        signature.bind(*[None] * len(positional), **keywords)
    except TypeError:
        shown = ", ".join(str(p).split(":")[0].split("=")[0] for p in parameters)
        return f"{name}{signature} can't be called as {name}({shown})"
    return None
