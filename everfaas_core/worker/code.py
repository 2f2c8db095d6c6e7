"""Loading in the slot: functions and the arguments of calls, and saying in plain words why one does not load.

A function that `dill` pickled from a client's script refers to that script's `__main__` as its globals. Each such
payload gets a `__main__` of its own here, which holds the functions and classes that came with it under their names:
so a recursive function finds itself, and functions of different clients do not see each other.
"""

from __future__ import annotations

import builtins
import importlib
import io
import pickle
import traceback
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from types import ModuleType
from typing import Any, Final

import dill

from everfaas_core.model.ids import FunctionId
from everfaas_core.shipping.envelope import unseal
from everfaas_core.shipping.opening import open_packed
from everfaas_core.shipping.rebuild import SHIPPED, Scene, minor_version
from everfaas_core.shipping.trouble import ForeignCode
from everfaas_core.wire.messages import FunctionItem
from everfaas_core.worker.slot_state import FUNCTIONS_MAX

MAIN: Final = "__main__"
ARGUMENTS: Final = "the arguments"
PLAIN_BYTES_MAX: Final = 1024  # payloads below this that name no global are loaded the short way
PLAIN_HEADS: Final = (b"\x80\x04", b"\x80\x05")  # protocols in which STACK_GLOBAL is the way to name one
SHAPE: Final = "a call's payload has to be a pair of positional and keyword arguments, such as ((1, 2), {'x': 3})"


class NotLoadable(Exception):
    """Code or arguments do not load. `str()` is the reason and the remedy, `detail` a traceback or None."""

    def __init__(self, reason: str, detail: str | None = None) -> None:
        super().__init__(reason)
        self.detail = detail


def blank_main() -> ModuleType:
    """Return an empty `__main__`."""
    module = ModuleType(MAIN)
    module.__dict__["__builtins__"] = builtins
    return module


class Loader(dill.Unpickler):  # type: ignore[misc] # dill has no types
    """Loads one payload. `main` stands in for the client's `__main__`, and is None until the payload refers to it."""

    def __init__(self, payload: bytes) -> None:
        # ignore: an instance's class is not to be looked up in this process's __main__
        super().__init__(io.BytesIO(payload), ignore=True)
        self.main: ModuleType | None = None

    def find_class(self, module: str, name: str) -> Any:
        """Resolve a global of the payload; called by the unpickler."""
        if (module, name) == ("__builtin__", MAIN):
            return self._own_main().__dict__
        if module == MAIN:  # by name only: never found in the __main__ of another payload
            return getattr(self._own_main(), name)
        found = super().find_class(module, name)
        if module == "dill._dill" and name in ("_create_function", "_create_type"):
            return self._named(found)
        return found

    def _own_main(self) -> ModuleType:
        if self.main is None:
            self.main = blank_main()
        return self.main

    def _named(self, create: Callable[..., Any]) -> Callable[..., Any]:
        """Wrap a constructor so that what it makes is found in `main` under its own name, if it was at top level."""

        def create_and_name(*args: Any, **kwargs: Any) -> Any:
            made = create(*args, **kwargs)
            if isinstance(made, type):
                top_level = made.__dict__.get("__module__") == MAIN and made.__qualname__ == made.__name__
            else:
                own = self.main is not None and made.__globals__ is self.main.__dict__
                top_level = own and made.__code__.co_qualname == made.__code__.co_name and made.__name__.isidentifier()
            if top_level:
                self._own_main().__dict__.setdefault(made.__name__, made)
            return made

        return create_and_name


class LoadedFunction:
    """A function and the `__main__` that it lives in, which is empty for a function of a module.

    `scene`: for one that came by value from a client of ours, what came with it.
    """

    def __init__(self, call: Callable[..., Any], main: ModuleType, scene: Scene | None = None) -> None:
        self.call = call
        self.main = main
        self.scene = scene


class CodeShelf:
    """The functions that this slot holds, loaded at first use; at most FUNCTIONS_MAX, those used last."""

    def __init__(self) -> None:
        self._shelf: OrderedDict[FunctionId, FunctionItem | LoadedFunction] = OrderedDict()

    def put(self, item: FunctionItem) -> None:
        """Take code in."""
        self._shelf[item.function_id] = item
        self._shelf.move_to_end(item.function_id)
        if len(self._shelf) > FUNCTIONS_MAX:
            self._shelf.popitem(last=False)

    def get(self, function_id: FunctionId) -> LoadedFunction | None:
        """Return a function, or None if its code is not here. Raises NotLoadable (and tries again at the next call)."""
        entry = self._shelf.get(function_id)
        if entry is None:
            return None
        self._shelf.move_to_end(function_id)
        if isinstance(entry, FunctionItem):
            entry = self._shelf[function_id] = load_function(entry)
        return entry


def load_function(item: FunctionItem) -> LoadedFunction:
    """Load a function's code. Raises NotLoadable."""
    envelope = unseal(item.payload)
    here = minor_version()
    if envelope is None and item.python is not None and item.python != here:
        raise NotLoadable(
            f"function {item.name!r} was pickled by Python {item.python}, and this worker runs {here}: bytecode of "
            f"another version can crash the interpreter, so it was not loaded. Register the function from Python "
            f"{here}, or start a worker with Python {item.python}"
        )
    function, context = _load(item.payload, f"function {item.name!r}")
    if not callable(function):
        raise NotLoadable(f"the payload of function {item.name!r} is {_article(function)}, which can't be called")
    if isinstance(context, Scene):
        return LoadedFunction(function, context.own_main(), context)
    return LoadedFunction(function, context or blank_main())


def load_call(payload: bytes, function: LoadedFunction | None = None) -> tuple[Sequence[Any], Mapping[Any, Any]]:
    """Load the arguments of a call of this function. Raises NotLoadable."""
    call, context = _load(payload, ARGUMENTS, None if function is None else function.scene)
    if function is not None and function.scene is None and isinstance(context, Scene):
        function.main.__dict__.setdefault(SHIPPED, context.modules)  # so results are written for a client of ours
    if not isinstance(call, (tuple, list)) or len(call) != 2:
        raise NotLoadable(f"{SHAPE}; this one is {_article(call)}")
    args, kwargs = call
    if not isinstance(args, (tuple, list)):
        raise NotLoadable(f"{SHAPE}; here the positional arguments are {_article(args)} and not a tuple")
    if not isinstance(kwargs, dict):
        raise NotLoadable(f"{SHAPE}; here the keyword arguments are {_article(kwargs)} and not a dict")
    return args, kwargs


def _article(value: object) -> str:
    name = type(value).__name__
    size = f" of {len(value)}" if isinstance(value, (tuple, list)) else ""
    return f"{'an' if name[0] in 'aeiouAEIOU' else 'a'} {name}{size}"


def _load(payload: bytes, what: str, scene: Scene | None = None) -> tuple[Any, ModuleType | Scene | None]:
    try:
        return _load_once(payload, scene)
    except ModuleNotFoundError:
        importlib.invalidate_caches()  # the file may be newer than what the import system knows of its directory
    except BaseException as error:  # noqa: BLE001 - a payload can raise anything, SystemExit included
        raise _not_loadable(error, what) from None
    try:
        return _load_once(payload, scene)
    except BaseException as error:  # noqa: BLE001 - as above
        raise _not_loadable(error, what) from None


def _load_once(payload: bytes, scene: Scene | None) -> tuple[Any, ModuleType | Scene | None]:
    if len(payload) <= PLAIN_BYTES_MAX and payload[:2] in PLAIN_HEADS and pickle.STACK_GLOBAL not in payload:
        return pickle.loads(payload), None  # noqa: S301 - it names nothing, and a slot loads whatever clients send
    envelope = unseal(payload)
    if envelope is not None:
        return open_packed(envelope, scene)
    loader = Loader(payload)
    loaded = loader.load()
    return loaded, loader.main


def _not_loadable(error: BaseException, what: str) -> NotLoadable:
    detail = "".join(traceback.format_exception(error))
    if isinstance(error, ForeignCode):
        return NotLoadable(
            f"{what} can't be loaded: {error}. Start a worker with the client's version of Python, or run the client "
            f"with {minor_version()}"
        )
    if isinstance(error, ModuleNotFoundError) and error.name:
        return NotLoadable(
            f"{what} need{'' if what == ARGUMENTS else 's'} the module {error.name!r}, which this worker can't import: "
            f"start the worker in the directory that holds it, name that directory with --path DIR or EVERFAAS_PATH, "
            f"or install it there",
            detail,
        )
    said = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    if isinstance(error, AttributeError) and isinstance(error.obj, ModuleType):
        module = error.obj
        if module.__name__ == MAIN:
            return NotLoadable(
                f"{what} refers to {error.name!r} of the client's own script by name only: "
                f"pickle it with dill.dumps, which sends the code as well ({said})",
                detail,
            )
        where = getattr(module, "__file__", None) or "built in"
        return NotLoadable(
            f"{what} needs {error.name!r} of the module {module.__name__!r}, which the worker's copy ({where}) "
            f"does not have: restart the worker with the same version of the module as the client's ({said})",
            detail,
        )
    return NotLoadable(f"{what} did not load: {said}", detail)
