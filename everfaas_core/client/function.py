"""`@function`: a function that can also be called on the fleet."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Generic, ParamSpec, TypeVar, Unpack, cast, overload

from everfaas_core.client.client import Client
from everfaas_core.client.futures import Future
from everfaas_core.client.options import CallOptions, checked

P = ParamSpec("P")
T = TypeVar("T")


class Function(Generic[P, T]):
    """A function as it was, and `submit` and `map`, which call it on the fleet. Made by `@function`."""

    def __init__(self, call: Callable[P, T], client: Client | None, options: CallOptions) -> None:
        functools.update_wrapper(self, call)
        self.__qualname__: str = getattr(call, "__qualname__", type(call).__qualname__)
        self.__wrapped__ = call
        self.everfaas_options = options
        self._client = client

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> T:
        """Call it here and now."""
        return self.__wrapped__(*args, **kwargs)

    def __get__(self, instance: object, owner: type | None = None) -> Any:
        """Be a method of the class that it was defined in: bound, it is called here."""
        return self if instance is None else self.__wrapped__.__get__(instance, owner)

    def __reduce__(self) -> str:
        """Be found under its name, as functions are."""
        return self.__qualname__

    def __repr__(self) -> str:
        return f"<everfaas function {self.__qualname__}>"

    def submit(self, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Call it on the fleet; return the future of what it returns. See `Client.submit`."""
        return self._on_fleet().submit(cast("Callable[P, T]", self), *args, **kwargs)

    def map(self, *iterables: Iterable[Any], **how: Any) -> Iterator[T]:
        """Call it on the fleet for each item. `how`: as for `Client.map`."""
        return self._on_fleet().map(cast("Callable[..., T]", self), *iterables, **how)

    def options(self, **options: Unpack[CallOptions]) -> Function[P, T]:
        """Return this function with further options."""
        return Function(
            self.__wrapped__, self._client, cast("CallOptions", {**self.everfaas_options, **checked(options)})
        )

    def _on_fleet(self) -> Client:
        return self._client or default_client(os.getpid())


@overload
def function(call: Callable[P, T], /) -> Function[P, T]: ...
@overload
def function(
    *, client: Client | None = None, **options: Unpack[CallOptions]
) -> Callable[[Callable[P, T]], Function[P, T]]: ...
def function(call: Callable[..., Any] | None = None, /, *, client: Client | None = None, **options: Any) -> Any:
    """Decorate a function so that it can be called on the fleet, too.

        @function(timeout_s=30, max_attempts=3)
        def thumb(x): return x * x

        thumb(3)                      # here
        thumb.submit(3).result()      # there
        list(thumb.map(range(9)))

    Without `client` it uses one of this process, made at the first call, of the API at EVERFAAS_URL. Raises TypeError
    for an option that does not exist.
    """
    known = checked(options)
    if call is not None:
        return Function(call, client, known)
    return lambda call: Function(call, client, known)


@functools.cache
def default_client(pid: int) -> Client:
    """Return the client of this process that functions without one of their own share."""
    return Client()
