"""What streams call to make classes again, as `rebuild` does with functions and modules.

A class of another Python keeps what was written for it, and gets anew what dataclasses and named tuples generate.
"""

from __future__ import annotations

import collections
import dataclasses
import sys
from collections.abc import Callable, Mapping
from types import MemberDescriptorType, ModuleType
from typing import Any, Final

from cloudpickle import cloudpickle

from everfaas_core.shipping.rebuild import Scene

DATACLASS_FLAGS: Final = (
    "init", "repr", "eq", "order", "unsafe_hash", "frozen", "match_args", "kw_only", "slots", "weakref_slot",
)  # fmt: skip


def field(arguments: Mapping[str, Any], name: str, kind: Any) -> Any:
    """Make a field of a dataclass. What `arguments` leaves out is MISSING."""
    made: Any = dataclasses.field(**arguments)
    made.name, made.type = name, kind
    return made


def parameters(flags: Mapping[str, bool]) -> Any:
    """Make what a dataclass keeps of its options, as far as this Python knows them."""
    made: Any = dataclasses._DataclassParams.__new__(dataclasses._DataclassParams)  # type: ignore[attr-defined] # private
    for name in {*flags} & {*getattr(made, "__slots__", DATACLASS_FLAGS)}:
        setattr(made, name, flags[name])
    return made


def skeleton(scene: Scene, track: str, make: Callable[..., type], arguments: tuple[Any, ...]) -> type:
    """Make a class that holds nothing yet; or return the function's own, if it brought the same."""
    made = scene.classes.get(track)
    if made is None:
        made = scene.classes[track] = make(*arguments)
        cloudpickle._DYNAMIC_CLASS_TRACKER_BY_CLASS[made] = track  # so that results can say which it is
    return made


def known_class(scene: Scene, track: str, name: str) -> type:
    """Return a class that came with the function. Raises LookupError if the call belongs to another function."""
    made = scene.classes.get(track)
    if made is None:
        raise LookupError(f"the class {name!r} should have come with the function that is called, and has not")
    return made


def fill_class(made: type, state: tuple[Any, Any, Scene]) -> None:
    """Set what a class holds. What was generated for another Python is generated anew."""
    attributes, slots, scene = state
    if id(made) in scene.borrowed:
        return None
    if "__dataclass_params__" in attributes and hasattr(dataclasses, "_replace"):
        attributes.setdefault("__replace__", dataclasses._replace)  # left behind by the pickler, for it is new in 3.13
    if not scene.native and scene.refused:
        attributes = _without_refused(scene, attributes)
        if "__dataclass_params__" in attributes:
            return _fill_dataclass(scene, made, attributes, slots)
        if "_fields" in attributes and made.__bases__ == (tuple,):
            defaults = (attributes.get("_field_defaults") or {}).values()
            generated = vars(collections.namedtuple(made.__name__, attributes["_fields"], defaults=defaults))
            for name in ("__new__", "_make", "_replace", "__replace__", "__repr__", "_asdict", "__getnewargs__"):
                if name not in attributes and name in generated:
                    attributes[name] = generated[name]
    cloudpickle._class_setstate(made, (attributes, slots))
    return None


def _fill_dataclass(scene: Scene, made: type, attributes: dict[str, Any], slots: Any) -> None:
    parameters, fields = attributes.pop("__dataclass_params__"), attributes.pop("__dataclass_fields__")
    attributes.pop("__match_args__", None)
    cloudpickle._class_setstate(made, (attributes, slots))
    own = attributes.get("__annotations__", {})
    slots_of_it = {name: vars(made)[name] for name in own if type(vars(made).get(name)) is MemberDescriptorType}
    for name, one in fields.items():
        if name in own:
            setattr(made, name, one)
    flags = {name: getattr(parameters, name) for name in DATACLASS_FLAGS if hasattr(parameters, name)}
    flags.pop("slots", None)  # they are there already
    flags.pop("weakref_slot", None)
    before = sys.modules.get(made.__module__)
    sys.modules[made.__module__] = scene.modules.get(made.__module__) or ModuleType(made.__module__)
    try:  # it looks for the class's module there
        dataclasses.dataclass(**flags)(made)
    finally:
        if before is None:
            del sys.modules[made.__module__]
        else:
            sys.modules[made.__module__] = before
    for name, descriptor in slots_of_it.items():  # dataclass has put defaults in their place
        setattr(made, name, descriptor)


def _without_refused(scene: Scene, attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out functions that code generators made; what they are of is known, and they are made again."""
    left: dict[str, Any] = {}
    generated = "__dataclass_params__" in attributes or "_fields" in attributes
    for name, value in attributes.items():
        codes = _codes_of(value) & scene.refused.keys() if generated else None
        if codes and name.startswith(("__", "_make", "_replace", "_asdict")):
            for code in codes:
                scene.refused.pop(code, None)
        else:
            left[name] = value
    return left


def _codes_of(value: Any) -> set[int]:
    """Return the ids of an attribute's code, and of what it wraps (a dataclass's `__repr__` is wrapped)."""
    found: set[int] = set()
    one = getattr(value, "__func__", value)
    while one is not None:
        found.add(id(getattr(one, "__code__", None)))
        one = getattr(one, "__wrapped__", None)
    return found
