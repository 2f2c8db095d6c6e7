"""Answers of many objects that come as they come: what group streams and logs have in common."""

from __future__ import annotations

import logging
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator
from contextlib import ExitStack
from typing import Final, Self

from everfaas_core.api.context import ApiContext
from everfaas_core.api.frames import Form
from everfaas_core.model.errors import StoreUnavailable

RETRY_S: Final = 1.0  # between reads while the store is away

_log = logging.getLogger(__name__)


class Stream(ABC):
    """One client's stream, iterated by the thread of its request; `held` is given back by `close`.

    A page is read before it is iterated over, so that whatever is wrong is an answer of its own. One that is not `live`
    ends with what there is.
    """

    live = True

    def __init__(
        self,
        context: ApiContext,
        form: Form,
        wait_s: float,
        gone: Callable[[], bool],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._hub = context.hub
        self._settings = context.settings
        self._form = form
        self._gone = gone
        self._clock = clock
        self._deadline = clock() + wait_s
        self._frames = self._run()
        self.held = ExitStack()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> bytes:
        return next(self._frames)

    def close(self) -> None:
        """Give back what the stream holds, also if nobody has iterated over it. Idempotent."""
        self._frames.close()
        self.held.close()

    # ── what a stream is made of ─────────────────────────────────────────────────────────────────────────────────────

    @abstractmethod
    def _read(self) -> None:
        """Read the next page, perhaps an empty one. Raises StoreUnavailable, StoreRefused."""

    @abstractmethod
    def _take(self) -> bytes:
        """Return what the page holds, as it is sent, once."""

    @abstractmethod
    def _has_more(self) -> bool:
        """Tell whether another page can be read at once."""

    @abstractmethod
    def _forget(self) -> None:
        """The store is away: there is no page until it is back."""

    @abstractmethod
    def _end(self) -> str | None:
        """Tell why the stream is over, if it is. As long as there is something to read, its time is not."""

    @abstractmethod
    def _last(self, end: str) -> bytes:
        """Return the last object."""

    @abstractmethod
    def _wait(self, longest_s: float) -> None:
        """Wait until there may be something to read."""

    # ── in the request's thread ──────────────────────────────────────────────────────────────────────────────────────

    @property
    def _patience_s(self) -> float:
        """How long to wait before it is time to look, or to say something."""
        return min(self._settings.heartbeat_s, self._settings.reread_s, max(0.0, self._deadline - self._clock()))

    def _run(self) -> Generator[bytes, None, None]:
        frames = self._take()
        if self.live and not frames:
            yield self._form.heartbeat  # so that the client has the answer's head, and knows that it is heard
        sent_at = self._clock()
        away = False
        while True:
            if frames:
                yield frames
                sent_at = self._clock()
            end = self._end()
            if end is not None:
                yield self._last(end)
                return
            if away or not self._has_more():
                self._wait(min(self._patience_s, RETRY_S) if away else self._patience_s)
                if self._gone():
                    return
                if self._clock() - sent_at >= self._settings.heartbeat_s:
                    yield self._form.heartbeat
                    sent_at = self._clock()
            try:
                self._read()
                away = False
            except StoreUnavailable:  # a stream outlives it: what it can't read now, it reads when the store is back
                if not self.live:
                    raise
                away = True
                self._forget()
            except Exception:  # noqa: BLE001  # the answer has begun, so no handler of errors can give another
                _log.exception("a stream failed")
                yield self._last("error")
                return
            frames = self._take()
