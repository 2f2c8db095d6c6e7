"""The one place where a role waits."""

from __future__ import annotations

import contextlib
import selectors
from typing import Final

_WAIT_MAX_S: Final = 60.0


class Poller:
    """Implements `ports.Selector` on the platform's best selector (epoll, kqueue)."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()

    def register(self, fd: int, *, write: bool = False) -> None:
        """Wake `wait` when `fd` is readable, with `write` also when it is writable."""
        interest = selectors.EVENT_READ | (selectors.EVENT_WRITE if write else 0)
        try:
            self._selector.register(fd, interest)
        except KeyError:
            self._selector.modify(fd, interest)

    def unregister(self, fd: int) -> None:
        """Stop watching `fd`; unknown and closed ones are ignored."""
        with contextlib.suppress(KeyError, ValueError, OSError):
            self._selector.unregister(fd)

    def wait(self, timeout_s: float | None) -> set[int]:
        """Return the descriptors that are ready, after at most `timeout_s` seconds (None: a minute)."""
        bounded = _WAIT_MAX_S if timeout_s is None else min(max(timeout_s, 0.0), _WAIT_MAX_S)
        return {key.fd for key, _ in self._selector.select(bounded)}

    def close(self) -> None:
        """Close the selector; registered descriptors stay open."""
        self._selector.close()
