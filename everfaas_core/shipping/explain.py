"""Finding the object that does not travel, and the way to it, for a message that helps."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from types import CodeType, FunctionType, MethodType, ModuleType
from typing import Any, Final, NamedTuple

from everfaas_core.shipping.reading import annotations_of
from everfaas_core.shipping.trouble import NotShippable

DEPTH_MAX: Final = 12  # steps from what was packed to the culprit
ITEMS_MAX: Final = 1000  # items of one container that are tried
SHOWN_MAX: Final = 80

REMEDIES: Final[tuple[tuple[tuple[str, ...], str], ...]] = (
    (("_thread.", "threading.", "multiprocessing.", "asyncio."), "make it inside the function, where it runs"),
    (("socket.", "ssl.", "sqlite3.", "psycopg", "pymysql", "redis.", "requests.", "urllib3."),
     "connect inside the function"),
    (("_io.",), "open it inside the function, or pass its contents"),
    (("everfaas_core.",), "make a client of its own inside the function"),
    (("generator", "builtins.generator", "coroutine"), "pass a list, or generate inside the function"),
    (("_weakref", "weakref"), "refer to the object itself"),
)  # fmt: skip
DEFAULT_REMEDY: Final = "make it inside the function, or pass plain data from which it can be made there"

Packs = Callable[[Any], Exception | None]


class Call(NamedTuple):
    """The arguments of a call."""

    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]


def explain(thing: Any, what: str, error: Exception, packs: Packs) -> NotShippable:
    """Return the error for a thing that did not pack. `packs` tries one object."""
    where: list[str] = []
    culprit, why = thing, error
    seen: set[int] = set()
    for _ in range(DEPTH_MAX):
        seen.add(id(culprit))
        step = next(_failing(culprit, packs, seen), None)
        if step is None:
            break
        label, culprit, why = step
        where.append(label)
    kind = _kind(type(culprit))
    text = f"{_way(where, what)} is {_article(kind)}, which does not travel: {_brief(why)}"
    return NotShippable(text, hint=_remedy(kind))


def _way(where: list[str], what: str) -> str:
    """Put labels into words, the innermost first. Those that name their function or class stand for themselves."""
    said = ""
    through: list[str] = []
    for label in reversed(where):
        if not said:
            said = label
        elif _stands_alone(said) or through:
            through.append(label)
        else:
            said += f" of {label}"
    if not where or not _stands_alone(where[0]):
        if through:
            through.append(what)
        else:
            said = f"{said} of {what}" if said else what
    return f"{said} (reached through {', in '.join(through)})" if through else said


def _stands_alone(label: str) -> bool:
    return " of function " in label or " of class " in label or label.startswith("argument ")


def _failing(thing: Any, packs: Packs, seen: set[int]) -> Iterator[tuple[str, Any, Exception]]:
    for label, child in children(thing):
        if id(child) not in seen and (why := packs(child)) is not None:
            yield label, child, why


def children(thing: Any) -> Iterator[tuple[str, Any]]:
    """Yield what an object is pickled with, each with the words for where it hangs."""
    if isinstance(thing, FunctionType):
        yield from _of_function(thing)
    elif isinstance(thing, Call):
        yield from ((f"argument {index}", value) for index, value in enumerate(thing.args))
        yield from ((f"argument {name!r}", value) for name, value in thing.kwargs.items())
    elif isinstance(thing, MethodType):
        yield "the object", thing.__self__
        yield "the function", thing.__func__
    elif isinstance(thing, dict):
        for key, value in list(thing.items())[:ITEMS_MAX]:
            yield f"item {_shown(key)}", value
    elif isinstance(thing, (list, tuple, set, frozenset)):
        for index, value in enumerate(list(thing)[:ITEMS_MAX]):
            yield f"item {index}", value
    elif isinstance(thing, type):
        for name, value in list(vars(thing).items()):
            if name not in ("__dict__", "__weakref__", "__module__", "__doc__"):
                yield f"attribute {name!r} of class {thing.__qualname__!r}", getattr(value, "__func__", value)
    elif isinstance(thing, ModuleType):
        return
    else:
        yield from _of_instance(thing)


def _of_function(function: FunctionType) -> Iterator[tuple[str, Any]]:
    name = f"function {function.__name__!r} ({os.path.basename(function.__code__.co_filename)} line {_line(function)})"
    for variable, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            yield f"closure variable {variable!r} of {name}", cell.cell_contents
        except ValueError:  # empty
            continue
    for variable in _globals(function.__code__):
        if variable in function.__globals__:
            yield f"global {variable!r} of {name}", function.__globals__[variable]
    for index, value in enumerate(function.__defaults__ or ()):
        yield f"default {index} of {name}", value
    for key, value in (function.__kwdefaults__ or {}).items():
        yield f"default of {key!r} of {name}", value
    for key, value in function.__dict__.items():
        yield f"attribute {key!r} of {name}", value
    for key, value in annotations_of(function).items():
        yield f"annotation {key!r} of {name}", value


def _of_instance(thing: Any) -> Iterator[tuple[str, Any]]:
    kind = type(thing)
    if hasattr(thing, "__wrapped__"):
        yield "the function", thing.__wrapped__
    if hasattr(thing, "func") and hasattr(thing, "keywords"):  # functools.partial
        yield "the function", thing.func
        yield "the arguments", (thing.args, thing.keywords)
    for name, value in list(getattr(thing, "__dict__", {}).items()):
        yield f"attribute {name!r} of {_article(_kind(kind))}", value
    for name in getattr(kind, "__slots__", ()):
        if isinstance(name, str) and hasattr(thing, name):
            yield f"attribute {name!r} of {_article(_kind(kind))}", getattr(thing, name)
    yield f"the class {kind.__qualname__!r}", kind


def _globals(code: CodeType) -> dict[str, None]:
    found = dict.fromkeys(code.co_names)
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            found.update(_globals(constant))
    return found


def _line(function: FunctionType) -> int:
    return function.__code__.co_firstlineno


def _kind(kind: type) -> str:
    return (
        kind.__qualname__ if kind.__module__ in ("builtins", "__main__") else f"{kind.__module__}.{kind.__qualname__}"
    )


def _article(kind: str) -> str:
    return f"{'an' if kind[0] in 'aeiouAEIOU' else 'a'} {kind}"


def _remedy(kind: str) -> str:
    return next((remedy for starts, remedy in REMEDIES if kind.startswith(starts)), DEFAULT_REMEDY)


def _brief(error: Exception) -> str:
    said = str(error)
    return f"{type(error).__name__}: {said[:300]}" if said else type(error).__name__


def _shown(value: Any) -> str:
    shown = repr(value)
    return shown if len(shown) <= SHOWN_MAX else f"{shown[:SHOWN_MAX]}…"
