"""Several calls in one task: what `chunksize` of a map makes of them. Both sides import this."""

from __future__ import annotations

import itertools
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any


class Raised:
    """Stands in a chunk's results for what a call raised."""

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def __reduce__(self) -> tuple[Any, ...]:
        return Raised, (self.error,)


class Chunked:
    """A function that takes many calls and returns the result of each; runs in the slot."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function
        self.__name__ = getattr(function, "__name__", type(function).__name__)

    def __call__(self, calls: Sequence[Sequence[Any]]) -> list[Any]:
        """Call the function with each of the positional arguments. What one raises does not keep the others back."""
        results: list[Any] = []
        for args in calls:
            try:
                results.append(self.function(*args))
            except Exception as error:  # noqa: BLE001 - the call's outcome
                text = "".join(traceback.format_exception(error.with_traceback(_below(error))))
                error.add_note(f"Remote traceback:\n{text}")
                error.__traceback__ = None
                results.append(Raised(error))
        return results


def chunks(calls: Iterator[tuple[Any, ...]], size: int) -> Iterator[list[tuple[Any, ...]]]:
    """Split calls into lists of `size`; the last one may be shorter."""
    while chunk := list(itertools.islice(calls, size)):
        yield chunk


def unpacked(values: Iterable[Any]) -> Iterator[Any]:
    """Give the results of a chunk's calls; raise what one raised."""
    for value in values:
        if isinstance(value, Raised):
            raise value.error
        yield value


def _below(error: BaseException) -> Any:
    """Leave our own frame out of the traceback."""
    return error.__traceback__.tb_next if error.__traceback__ is not None else None
