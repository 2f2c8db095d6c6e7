"""The pickler that sends by value what the worker can't import: functions, classes, modules of the user's own.

It extends cloudpickle's in three ways: what is the user's own is decided by `Origins` for each object and not by a
registry; a function's bytecode travels together with its source; and functions live in private modules, made in the
scene of their payload, which share globals as they did at home.
"""

from __future__ import annotations

import dataclasses
import enum
import functools
import io
import sys
import typing
import weakref
from collections.abc import Callable, Collection, Iterable, Mapping
from types import BuiltinFunctionType, CellType, FunctionType, ModuleType
from typing import Any, Final

import cloudpickle
from cloudpickle import cloudpickle as inner

from everfaas_core.shipping import classes, rebuild
from everfaas_core.shipping.identity import Sets, Sorted, class_id
from everfaas_core.shipping.origin import Origins
from everfaas_core.shipping.reading import Book, Facts, annotations_of, names_in
from everfaas_core.shipping.source import LibraryFile, Place, Unit
from everfaas_core.shipping.using import Uses
from everfaas_core.shipping.watching import Watch

PROTOCOL: Final = 5  # read by every Python that everfaas runs on
OF_A_MODULE: Final = ("__name__", "__package__", "__file__", "__path__")
FIELD_ARGUMENTS: Final = ("default", "default_factory", "init", "repr", "hash", "compare", "kw_only")
SENTINELS: Final = ("MISSING", "KW_ONLY", "_HAS_DEFAULT_FACTORY")
LRU_CACHE: Final = type(functools.lru_cache(maxsize=1)(lambda: None))


class Home:
    """A module that travels, or the globals of functions that are in none. Pickles as the private module made of it."""

    def __init__(self, namespace: dict[str, Any], known: bool) -> None:
        self.namespace = namespace
        self.known = known


class Traces:
    """What packing came across."""

    def __init__(self) -> None:
        self.by_value = False  # anything that plain pickle could not send
        self.classes: set[str] = set()  # ids of the classes that travel
        self.warnings: dict[str, None] = {}
        self.watch = Watch()


class ValuePickler(cloudpickle.Pickler):  # type: ignore[misc] # cloudpickle has no types
    """Packs one stream. `known`: ids of classes that are there already where it is opened."""

    def __init__(
        self, file: io.BytesIO, origins: Origins, book: Book, known: Collection[str] = (), sets: Sets | None = None
    ) -> None:
        super().__init__(file, protocol=PROTOCOL)
        self._sets = sets
        self.traces = Traces()
        self._origins = origins
        self._book = book
        self._homes: dict[int, Home] = {}
        self._in_functions: set[int] = set()  # ids of cells and modules whose contents a function's state fills in
        self._modules_whole: set[int] = set()
        self._known = known
        self._dull: set[type] = set()  # types whose instances pickle by themselves

    # ── what is asked for each object that is not plain data ─────────────────────────────────────────────────────────

    def reducer_override(self, obj: Any) -> Any:
        """Say how to pickle an object; NotImplemented leaves it to cloudpickle and pickle. Called by the pickler."""
        kind = type(obj)
        if kind in self._dull:
            return NotImplemented
        if kind is FunctionType:
            return self._function(obj)
        handler = _HANDLERS.get(kind)
        if handler is not None:
            return handler(self, obj)
        if issubclass(kind, type):
            return self._class(obj)
        if issubclass(kind, ModuleType):
            return self._module(obj)
        module = kind.__module__
        if type(module) is str and module.startswith("everfaas_core.") and hasattr(obj, "__wrapped__"):
            return rebuild.same, (obj.__wrapped__,)  # what @function made: in the slot, the function itself
        if kind is not BuiltinFunctionType and not issubclass(kind, enum.Enum) and module != "dataclasses":
            self.traces.watch.steady = False  # an instance can change
        self._dull.add(kind)
        return NotImplemented

    def travels(self, obj: Any) -> bool:
        """Tell whether a function or class goes by value: it can't be found by its name, or is the user's own."""
        name = getattr(obj, "__module__", None)
        if not isinstance(name, str) or self._origins.by_value(name):
            return True
        found: Any = sys.modules.get(name)
        for part in getattr(obj, "__qualname__", "").split("."):
            found = getattr(found, part, None)
        return found is not obj

    # ── functions ────────────────────────────────────────────────────────────────────────────────────────────────────

    def _function(self, function: FunctionType) -> Any:
        if not self.travels(function):
            return NotImplemented
        self.traces.by_value = True
        namespace = function.__globals__
        facts = self._book.facts(function.__code__, namespace)
        cells = dict(zip(facts.code.co_freevars, function.__closure__ or (), strict=True))
        self._in_functions.update(id(cell) for cell in cells.values())
        self.traces.watch.function(function, look=not _generated(facts))
        self.traces.watch.names(namespace, facts.globals)
        uses = Uses(self._origins, self.traces.watch, self.traces.warnings)
        uses.find(facts, namespace, _named_contents(cells))
        self._in_functions.update(id(module) for module, _ in uses.modules)
        arguments = (_Coded(facts), self._home(namespace), cells, uses.imports)
        state = self._state(function, facts, cells, uses.modules)
        return rebuild.function, arguments, state, None, None, rebuild.fill_function

    def _state(
        self,
        function: FunctionType,
        facts: Facts,
        cells: Mapping[str, CellType],
        modules: Iterable[tuple[ModuleType, Mapping[str, Any]]],
    ) -> tuple[Any, ...]:
        namespace = function.__globals__
        annotations = annotations_of(function)
        variables = {name: namespace[name] for name in facts.globals if name in namespace}
        for name in names_in(annotations):  # so that calls need not bring the classes of their arguments
            value = namespace.get(name)
            if isinstance(value, type) and self.travels(value):
                variables[name] = value
                self.traces.watch.names(namespace, [name])
        held = [variables.values(), (content for _, content in _contents(cells))]
        submodules = inner._find_imported_submodules(facts.code, [one for values in held for one in values])
        return (
            (function.__name__, function.__qualname__, function.__module__, function.__doc__),
            function.__defaults__,
            function.__kwdefaults__,
            annotations,
            # a copy: the pickler's memory of it must not make the next packing differ
            dict(function.__dict__),
            self._ordered(variables),
            _contents(cells),
            tuple(modules),
            # importing `a` does not import `a.b`; loading this does
            [one for one in submodules if not self._origins.by_value(one.__name__)],
        )

    def _ordered(self, variables: dict[str, Any]) -> dict[str, Any]:
        return variables if self._sets is None else self._sets.ordered(variables)

    # ── modules ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def _home(self, namespace: dict[str, Any]) -> Home:
        home = self._homes.get(id(namespace))
        if home is None:
            module = sys.modules.get(namespace.get("__name__", ""))
            home = Home(namespace, module is not None and module.__dict__ is namespace)
            self._homes[id(namespace)] = home
        return home

    def _reduce_home(self, home: Home) -> Any:
        own = {name: home.namespace[name] for name in OF_A_MODULE if name in home.namespace}
        if "__path__" in own:
            own["__path__"] = []  # nothing is to be found there
        return rebuild.home, (rebuild.SCENE, own.get("__name__", rebuild.MAIN), own, home.known)

    def _module(self, module: ModuleType) -> Any:
        if not self._origins.by_value(module.__name__):
            return NotImplemented
        self.traces.by_value = True
        home = self._home(module.__dict__)
        if id(module) in self._in_functions or id(module) in self._modules_whole:
            return rebuild.same, (home,)
        self._modules_whole.add(id(module))
        self.traces.watch.steady = False
        return rebuild.same, (home,), self._portable(module), None, None, rebuild.fill_module

    def _portable(self, module: ModuleType) -> dict[str, Any]:
        """Return what of a module can travel, for one that is used as a value."""
        left: dict[str, Any] = {}
        for name, value in list(vars(module).items()):
            if name.startswith("__") and name.endswith("__"):
                continue
            trial = ValuePickler(io.BytesIO(), self._origins, self._book)
            trial._modules_whole = self._modules_whole
            try:
                trial.dump(value)
            except Exception:  # noqa: BLE001 - whatever does not pickle stays behind
                self.traces.warnings[f"{name!r} of the module {module.__name__!r} does not travel"] = None
            else:
                left[name] = value
        return left

    # ── the rest ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def _class(self, cls: type) -> Any:
        if not self.travels(cls):
            return NotImplemented
        track = class_id(cls)  # first, or cloudpickle would make one at random
        reduced = inner._class_reduce(cls)
        if reduced is NotImplemented:
            reduced = inner._dynamic_class_reduce(cls)
        if len(reduced) < 6:  # a type that has a name of its own for pickle, such as NoneType
            return reduced
        self.traces.by_value = True
        make, arguments, (attributes, slots), *_ = reduced
        if "__dataclass_params__" in attributes:
            attributes.pop("__replace__", None)
        if track in self._known:
            return classes.known_class, (rebuild.SCENE, track, cls.__qualname__)
        self.traces.classes.add(track)
        self.traces.watch.class_(cls)
        # The last two are the id, and what cloudpickle may need one day; the fourth is what the class is born with.
        arguments = [*arguments[:-2], None, arguments[-1]]
        if "__slots__" in attributes and make is inner._make_skeleton_class and "_fields" not in attributes:
            arguments[3] = {**arguments[3], "__slots__": attributes["__slots__"]}
        arguments = (rebuild.SCENE, track, make, tuple(arguments))
        return (
            classes.skeleton,
            arguments,
            (self._ordered(attributes), slots, rebuild.SCENE),
            None,
            None,
            classes.fill_class,
        )

    def _cell(self, cell: CellType) -> Any:
        if id(cell) in self._in_functions:
            return rebuild.cell, ()
        contents = [content for _, content in _contents({"": cell})]
        return (rebuild.cell, (), contents[0], None, None, rebuild.fill_cell) if contents else (rebuild.cell, ())

    def _code(self, coded: _Coded) -> Any:
        facts = coded.facts
        names = (facts.code.co_name, facts.code.co_freevars)
        source, where = (facts.place.unit, facts.place[1:]) if isinstance(facts.place, Place) else (facts.place, ())
        return rebuild.code, (rebuild.SCENE, facts.bytecode, names, source, where)

    def _unit(self, unit: Unit) -> Any:
        return rebuild.unit, (unit.filename, unit.line, unit.text, unit.futures)

    def _library_file(self, file: LibraryFile) -> Any:
        return rebuild.library_file, (file.path,)

    def _cached_property(self, cached: Any) -> Any:
        return rebuild.cached_property, (cached.func, cached.attrname)

    def _sorted(self, items: Sorted) -> Any:
        return items.__reduce__()

    def _weak(self, weak: Any) -> Any:
        return rebuild.weak, (type(weak), dict(weak.items()))

    def _cached(self, cached: Any) -> Any:
        if not self.travels(cached):
            return NotImplemented
        self.traces.watch.names(vars(cached), vars(cached))
        made_with_it = ("__wrapped__", "cache_parameters")
        own = {name: value for name, value in vars(cached).items() if name not in made_with_it}
        return rebuild.cached, (cached.__wrapped__, cached.cache_parameters()), own

    def _variable(self, variable: Any) -> Any:
        if not self.travels_by_name(variable):
            return NotImplemented
        return inner._make_typevar, inner._decompose_typevar(variable)

    def travels_by_name(self, obj: Any) -> bool:
        """As `travels`, for what has a name and no qualified name."""
        name = getattr(obj, "__module__", None)
        return not isinstance(name, str) or self._origins.by_value(name)

    def _field(self, field: Any) -> Any:
        arguments = {
            name: value for name in FIELD_ARGUMENTS if (value := getattr(field, name)) is not dataclasses.MISSING
        }
        arguments["metadata"] = dict(field.metadata) or None
        return classes.field, (arguments, field.name, field.type), (None, {"_field_type": field._field_type})

    def _parameters(self, parameters: Any) -> Any:
        flags = {name: getattr(parameters, name) for name in classes.DATACLASS_FLAGS if hasattr(parameters, name)}
        return classes.parameters, (flags,)

    def _scene(self, _scene: Any) -> str:
        return "SCENE"

    def _sentinel(self, sentinel: Any) -> str:
        """One of a kind, found by its name: what is compared with it by `is` must get the same there."""
        return next(name for name in SENTINELS if getattr(dataclasses, name) is sentinel)


class _Coded:
    """Pickles as a code."""

    def __init__(self, facts: Facts) -> None:
        self.facts = facts


def _contents(cells: Mapping[str, CellType]) -> tuple[tuple[CellType, Any], ...]:
    return tuple((cells[name], content) for name, content in _named_contents(cells))


def _named_contents(cells: Mapping[str, CellType]) -> Iterable[tuple[str, Any]]:
    for name, cell in cells.items():
        try:
            yield name, cell.cell_contents
        except ValueError:  # empty
            continue


def _generated(facts: Facts) -> bool:
    """Tell whether a dataclass was given this function; what it closes over is never changed."""
    unit = facts.place.unit if isinstance(facts.place, Place) else None
    wraps_repr = isinstance(unit, LibraryFile) and unit.path in ("dataclasses.py", "reprlib.py")
    return wraps_repr or facts.code.co_qualname.startswith("__create_fn__.")


_HANDLERS: Final[dict[type, Callable[[ValuePickler, Any], Any]]] = {
    Home: ValuePickler._reduce_home,
    _Coded: ValuePickler._code,
    Unit: ValuePickler._unit,
    LibraryFile: ValuePickler._library_file,
    CellType: ValuePickler._cell,
    Sorted: ValuePickler._sorted,
    functools.cached_property: ValuePickler._cached_property,
    weakref.WeakKeyDictionary: ValuePickler._weak,
    weakref.WeakValueDictionary: ValuePickler._weak,
    LRU_CACHE: ValuePickler._cached,
    typing.TypeVar: ValuePickler._variable,
    dataclasses.Field: ValuePickler._field,
    **{type(getattr(dataclasses, name)): ValuePickler._sentinel for name in SENTINELS},
    dataclasses._DataclassParams: ValuePickler._parameters,  # type: ignore[attr-defined] # private, and in each class
    type(rebuild.SCENE): ValuePickler._scene,
}
