"""Serializing in the slot: results, and exceptions with their remote traceback.

Whatever leaves here loads in a client that has only `dill`. `pickle` comes first, because it is a hundred times faster
for small results; what it can't do, or would do by referring to a `__main__` that the client does not share, is done by
`dill`, which sends code along.
"""

from __future__ import annotations

import builtins
import contextlib
import io
import os
import pickle
import traceback
from collections.abc import Iterator
from types import ModuleType, TracebackType
from typing import Final

import dill

from everfaas_core.model.failure import failure_payload
from everfaas_core.model.states import Cause
from everfaas_core.shipping.answers import AnswerPickler, main_of, mark
from everfaas_core.shipping.copies import unimported
from everfaas_core.shipping.rebuild import SHIPPED, minor_version
from everfaas_core.worker.code import MAIN, Loader

RESULT_BYTES_MAX: Final = 256 * 1024 * 1024
TRACEBACK_CHARS_MAX: Final = 64 * 1024
CHAIN_MAX: Final = 8
"""Causes and contexts of an exception that travel as objects; the traceback's text has all of them."""

CLASSES_MAX: Final = 16  # of an exception's bases, for retry policies
PICKLE_PROTOCOL: Final = 5  # read by every Python from 3.8 on
_PLAIN: Final = frozenset({bytes, bytearray, str, int, float, bool, type(None)})
"""What refers to no module; to look through a large one for a name takes longer than to serialize it."""

_OURS: Final = os.path.dirname(__file__) + os.sep


class NotSerializable(Exception):
    """`str()` is the reason in plain words."""


def dump(value: object, main: ModuleType) -> bytes:
    """Serialize what a function returned. `main` is the function's `__main__`. Raises NotSerializable."""
    try:
        data = _dumps(value, main)
    except BaseException as error:  # noqa: BLE001 - user code runs in here (__reduce__) and can raise anything
        raise NotSerializable(
            f"the function returned {_name(type(value))}, which can't be serialized: {_brief(error)}"
        ) from None
    if len(data) > RESULT_BYTES_MAX:
        raise NotSerializable(
            f"the function returned {_name(type(value))} of {len(data)} bytes; results may have {RESULT_BYTES_MAX}: "
            f"return less, or write it where the client can read it and return the place"
        )
    return data


def _dumps(value: object, main: ModuleType) -> bytes:
    if type(value) in _PLAIN:
        return pickle.dumps(value, protocol=PICKLE_PROTOCOL)
    shipped = main_of(main)
    try:
        if shipped:
            return _answer(value, main)  # plain pickle would import the modules of its classes, if they are here, too
        data = pickle.dumps(value, protocol=PICKLE_PROTOCOL)
        if MAIN.encode() not in data:
            return data
    except Exception:  # noqa: BLE001, S110 - whatever pickle can't do, dill may
        pass
    return mark(minor_version()) + _dill(value, main)


def _answer(value: object, main: ModuleType) -> bytes:
    """Serialize a result of a function that came by value from a client of ours."""
    buffer = io.BytesIO()
    AnswerPickler(buffer, main, lambda obj: _dill(obj, main)).dump(value)
    return buffer.getvalue()


def _dill(value: object, main: ModuleType) -> bytes:
    shipped = main.__dict__.get(SHIPPED, ())
    buffer = io.BytesIO()
    pickler = dill.Pickler(buffer, recurse=main_of(main))
    pickler._main = main  # globals of the function's own __main__ become the client's __main__ again
    with unimported(shipped):
        pickler.dump(value)
    return buffer.getvalue()


def dump_raised(error: BaseException, main: ModuleType) -> tuple[bytes, str]:
    """Serialize what a function raised; return the payload and the traceback as text.

    The payload is the exception itself, with the traceback as a note, if a client can rebuild it; else a WorkerFailure
    with its type, message and traceback.
    """
    text = _traceback_text(error, main)
    note = f"Remote traceback:\n{text}"
    problem = ""
    for chain_max, notes in ((CHAIN_MAX, [note]), (0, [note]), (0, [])):
        try:
            with _dressed(error, notes, chain_max):
                data = _dumps(error, main)
        except BaseException as why:  # noqa: BLE001 - user code runs in here
            problem = f"it can't be serialized ({_brief(why)})"
            continue
        if len(data) > RESULT_BYTES_MAX:
            problem = f"it has {len(data)} bytes, and {RESULT_BYTES_MAX} are allowed"
            continue
        problem = _rebuild_problem(data, error)
        if not problem:
            return data, text
    message = (
        f"the function raised {_brief(error)}. The exception itself could not be sent, because {problem}.\n"
        f"Remote traceback:\n{text}"
    )
    return failure_payload(Cause.RAISED, message), text


def class_names(error: BaseException) -> tuple[str, ...]:
    """Return by which names a retry policy may list this exception: its class and bases, short and with module."""
    names: list[str] = []
    for one in type(error).__mro__[:CLASSES_MAX]:
        if one is not object and one is not BaseException:
            names += (one.__qualname__, f"{one.__module__}.{one.__qualname__}")
    return tuple(names)


def _rebuild_problem(data: bytes, error: BaseException) -> str:
    """Return why a client could not rebuild the exception, or ""."""
    try:
        rebuilt = Loader(data).load()
    except BaseException as why:  # noqa: BLE001 - user code runs in here
        return f"its payload does not load again ({_brief(why)})"
    if type(rebuilt).__qualname__ != type(error).__qualname__:
        return f"it would load as {_name(type(rebuilt))}"
    return ""


@contextlib.contextmanager
def _dressed(error: BaseException, notes: list[str], chain_max: int) -> Iterator[None]:
    """Let the exception carry notes and its causes while it is serialized.

    Exceptions pickle their `__dict__`, and loading sets each item as an attribute: so a `__cause__` in there becomes
    the real one on the other side. Undone afterwards, for the exception may be a long-lived object of the user's.
    """
    undo: list[tuple[BaseException, dict[str, object]]] = []
    try:
        link: BaseException | None = error
        for _ in range(chain_max):
            if link is None or any(link is seen for seen, _ in undo):
                break
            undo.append((link, dict(link.__dict__)))
            following = link.__cause__ or (None if link.__suppress_context__ else link.__context__)
            if following is not None:
                link.__dict__["__cause__" if link.__cause__ else "__context__"] = following
            link = following
        if not undo:
            undo.append((error, dict(error.__dict__)))
        if notes:
            error.__dict__["__notes__"] = [*getattr(error, "__notes__", ()), *notes]
        yield
    finally:
        for dressed, before in undo:
            dressed.__dict__.clear()
            dressed.__dict__.update(before)


def _traceback_text(error: BaseException, main: ModuleType) -> str:
    try:
        _hint_at_globals(error, main)
        shown = traceback.TracebackException(type(error), error, _users_frames(error.__traceback__))
        text = "".join(shown.format())
    except BaseException as why:  # noqa: BLE001 - exceptions of users can fail to describe themselves; memory can be out
        text = f"{_name(type(error))} (its traceback can't be shown: {type(why).__name__})"
    if len(text) > TRACEBACK_CHARS_MAX:
        half = TRACEBACK_CHARS_MAX // 2
        text = f"{text[:half]}\n… {len(text) - 2 * half} characters left out …\n{text[-half:]}"
    return text


def _users_frames(frames: TracebackType | None) -> TracebackType | None:
    """Leave out the frames of ours that called the function."""
    while frames is not None and frames.tb_frame.f_code.co_filename.startswith(_OURS):
        frames = frames.tb_next
    return frames


def _hint_at_globals(error: BaseException, main: ModuleType) -> None:
    """Explain a NameError for a global that stayed behind in the client's script."""
    if type(error) is not NameError or not error.name or hasattr(builtins, error.name):
        return
    last = error.__traceback__
    while last is not None and last.tb_next is not None:
        last = last.tb_next
    if last is None:
        return
    if SHIPPED in last.tb_frame.f_globals:
        error.add_note(f"{error.name!r} was not defined yet when the function was submitted")
    elif last.tb_frame.f_globals is main.__dict__:
        error.add_note(
            f"{error.name!r} is a global of the client's script and did not travel with the function: pickle it with "
            f"dill.dumps(function, recurse=True), or import or define it inside the function"
        )


def _name(kind: type) -> str:
    return kind.__qualname__ if kind.__module__ in ("builtins", MAIN) else f"{kind.__module__}.{kind.__qualname__}"


def _brief(error: BaseException) -> str:
    try:
        said = str(error)
    except BaseException:  # noqa: BLE001 - a user's __str__
        said = ""
    return f"{_name(type(error))}: {said[:1000]}" if said else _name(type(error))
