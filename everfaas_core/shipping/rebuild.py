"""What the streams of `ValuePickler` call when they are loaded: it makes modules, functions and classes again.

Everything of one payload is made in one `Scene`. A stream names it as the global `SCENE` of this module, and the opener
hands it its own: so payloads do not see each other's code, whatever their modules are called.
"""

from __future__ import annotations

import builtins
import functools
import pickle
import sys
import weakref
from collections.abc import Callable, Mapping, Sequence
from types import CellType, CodeType, FunctionType, ModuleType
from typing import Any, Final

from everfaas_core.shipping.source import LibraryFile, Place, Unit
from everfaas_core.shipping.trouble import ForeignCode

MAIN: Final = "__main__"
SHIPPED: Final = "__shipped__"
"""The global under which a module made here keeps the modules that came with it, by name."""


class Modules(dict[str, ModuleType]):
    """The modules of a scene by name, and copies of classes that results have needed (`answers`)."""

    def __init__(self) -> None:
        super().__init__()
        self.copies: weakref.WeakKeyDictionary[type, bytes] = weakref.WeakKeyDictionary()


class Scene:
    """What one payload has brought: its `__main__`, its modules, and what could not be made."""

    def __init__(self, python: str, function: Scene | None = None) -> None:
        """`python`: the minor version that packed it. `function`: for a call, the scene of what is called."""
        self.python = python
        self.native = python == minor_version()
        self.main: ModuleType | None = None
        self.classes: dict[str, type] = {} if function is None else {**function.classes}  # by their ids at the client
        self.borrowed = frozenset(id(one) for one in self.classes.values())  # those that came with the function
        self.modules = Modules()
        self.refused: dict[int, tuple[CodeType, str]] = {}  # stand-ins of codes that could not be made, and why

    def own_main(self) -> ModuleType:
        """Return the `__main__` of this scene, which may be empty."""
        return self.main or home(self, MAIN, {}, True)

    def refuse(self, name: str, freevars: tuple[str, ...], reason: str) -> CodeType:
        """Return a code that stands in for one that can't be made."""
        namespace: dict[str, Any] = {}
        exec("def stand_in(*args, **kwargs): raise SystemError('code of another Python')", namespace)  # noqa: S102 - ours
        code: CodeType = namespace["stand_in"].__code__
        code = code.replace(co_name=name)
        self.refused[id(code)] = code, reason
        return code

    def check(self) -> None:
        """Raise ForeignCode if something is missing that nothing has replaced."""
        reasons = [f"{code.co_name!r}: {reason}" for code, reason in self.refused.values()]
        if reasons:
            raise ForeignCode("; ".join(reasons))


class _NoScene:
    """Stands for the scene in a stream."""


SCENE: Final = _NoScene()


def minor_version() -> str:
    """Return this Python's minor version, such as "3.11"."""
    return f"{sys.version_info.major}.{sys.version_info.minor}"


# ── modules ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def home(scene: Scene, name: str, attributes: Mapping[str, Any], known: bool) -> ModuleType:
    """Make a module that is empty but for its own names. `known`: it is found by its name in this scene."""
    module = ModuleType(name)
    module.__dict__.update(attributes)
    module.__dict__["__builtins__"] = builtins
    module.__dict__[SHIPPED] = scene.modules
    if known and name == MAIN:
        scene.main = module
    if known:
        scene.modules[name] = module
    return module


def same(thing: Any) -> Any:
    """Return it: two things of the client that are one here."""
    return thing


def fill_module(module: ModuleType, attributes: Mapping[str, Any]) -> None:
    """Set what a module holds."""
    module.__dict__.update(attributes)


def _import(
    name: str,
    globals: Mapping[str, Any] | None = None,  # noqa: A002 - as the interpreter calls it
    locals: Mapping[str, Any] | None = None,  # noqa: A002
    fromlist: Sequence[str] | None = (),
    level: int = 0,
) -> Any:
    """Import for functions whose import statements name modules that came with them."""
    shipped = (globals or {}).get(SHIPPED) or {}
    full = name
    if level and globals is not None:
        parent = (globals.get("__package__") or "").rsplit(".", level - 1)[0]
        full = f"{parent}.{name}" if name else parent
    if full in shipped:
        return shipped[full if fromlist or level else full.partition(".")[0]]
    return builtins.__import__(name, globals, locals, fromlist or (), level)


IMPORTING: Final = {**vars(builtins), "__import__": _import}
"""The builtins of such functions."""

# ── functions ────────────────────────────────────────────────────────────────────────────────────────────────────────


def unit(filename: str, line: int, text: str, futures: int) -> Unit:
    """Take in a piece of source."""
    made = Unit(filename, line, text, futures)
    made.remember()
    return made


def library_file(path: str) -> LibraryFile:
    """Name a file of this Python's standard library."""
    return LibraryFile(path)


def code(
    scene: Scene,
    bytecode: bytes,
    names: tuple[str, tuple[str, ...]],
    source: Unit | LibraryFile | str,
    where: tuple[Any, ...],
) -> CodeType:
    """Make a code: from bytecode if it is of this minor version, else from source."""
    name, freevars = names
    if scene.native:
        return pickle.loads(bytecode)  # type: ignore[no-any-return] # noqa: S301 - the user's own code, in the slot
    if isinstance(source, str):
        return scene.refuse(name, freevars, source)
    try:
        made = Place(source, *where).compile()
    except ForeignCode as error:
        return scene.refuse(name, freevars, str(error))
    if not set(made.co_freevars) <= set(freevars):
        return scene.refuse(name, freevars, "its source needs more variables here than it has")
    return made


def cell() -> CellType:
    """Make an empty cell; functions that shared one share it again."""
    return CellType()


def fill_cell(made: CellType, content: Any) -> None:
    """Set what a cell holds."""
    made.cell_contents = content


def function(made: CodeType, where: ModuleType, cells: Mapping[str, CellType], imports: bool) -> Callable[..., Any]:
    """Make a function without defaults, in its module. `imports`: its body imports what came with it."""
    if imports:
        where.__dict__["__builtins__"] = IMPORTING
    closure = tuple(cells[name] for name in made.co_freevars)
    return FunctionType(made, where.__dict__, made.co_name, None, closure)


def fill_function(made: FunctionType, state: tuple[Any, ...]) -> None:
    """Set everything else of a function."""
    names, defaults, kwdefaults, annotations, attributes, variables, cells, modules, _ = state
    made.__name__, made.__qualname__, made.__module__, made.__doc__ = names
    made.__defaults__ = defaults
    made.__kwdefaults__ = kwdefaults
    made.__annotations__ = annotations
    made.__dict__.update(attributes)
    made.__globals__.update(variables)
    for one, content in cells:
        one.cell_contents = content
    for module, held in modules:
        module.__dict__.update(held)


def cached(wrapped: Callable[..., Any], parameters: Mapping[str, Any]) -> Callable[..., Any]:
    """Make a function with functools.lru_cache again, its cache empty."""
    made: Callable[..., Any] = functools.lru_cache(**parameters)(wrapped)
    return made


def cached_property(function: Callable[..., Any], attribute: str) -> Any:
    """Make a functools.cached_property again, with a lock of its own where it has one."""
    made: Any = functools.cached_property(function)
    made.attrname = attribute
    return made


def weak(kind: type, items: Mapping[Any, Any]) -> Any:
    """Make a dictionary with weak keys or values; nothing but this payload may hold what is in it."""
    return kind(items)
