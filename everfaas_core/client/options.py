"""What a call may ask for beside its function and arguments: checked here, before anything is sent."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any, Final, TypedDict


class CallOptions(TypedDict, total=False):
    """Options of calls, as `Client.options`, `Executor` and `@function` take them. Durations are seconds."""

    timeout_s: float  # longest run of one attempt
    deadline_s: float  # from the submit: by then it must have ended
    delay_s: float  # do not start before
    priority: int  # 0 … 9, 9 is the most urgent
    max_attempts: int  # that failures of the system may use up
    retry_backoff_s: float  # before the second attempt; doubles with each further one
    retry_on: tuple[str, ...]  # exceptions that are tried again, too
    result_ttl_s: float  # how long the ended task is kept
    idempotency_key: str  # the same key is the same task; in a map with each call's number, and its group by default
    group: str  # to find the tasks again: Client.attach(group)
    tags: tuple[str, ...]
    name: str  # what the function is called in lists


NAMES: Final = frozenset(CallOptions.__annotations__)
PLURAL: Final = frozenset({"retry_on", "tags"})


def checked(options: Mapping[str, Any]) -> CallOptions:
    """Return the options that are not None. Raises TypeError that names the one that does not exist, or has no sense.

    Numbers and lengths are checked by the API, which says what is allowed.
    """
    result: dict[str, Any] = {}
    for name, value in options.items():
        if name not in NAMES:
            near = difflib.get_close_matches(name, NAMES, n=1)
            wish = f"did you mean {near[0]}?" if near else f"there are {', '.join(sorted(NAMES))}"
            raise TypeError(f"there is no option {name!r}: {wish}")
        if value is None:
            continue
        if name in PLURAL:
            if isinstance(value, str) or not all(isinstance(one, str) for one in value):
                raise TypeError(f"{name} is a sequence of texts, such as ({value!r},)")
            value = tuple(value)
        result[name] = value
    return result  # type: ignore[return-value]  # its names are those of CallOptions


def item_fields(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a task that these options set."""
    return {name: value for name, value in options.items() if name != "name"}
