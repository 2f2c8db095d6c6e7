"""Asks /healthz again and again, in a process of its own, so that the crowd's reading does not count."""

from __future__ import annotations

import http.client
import multiprocessing
import time
from multiprocessing.connection import Connection
from typing import Final
from urllib.parse import urlsplit

EVERY_S: Final = 0.02
TIMEOUT_S: Final = 30.0
JOIN_S: Final = 40.0

Look = tuple[float, float]
"""When it was asked, by the monotonic clock, and how long the answer took; seconds."""


def _ask(url: str, pipe: Connection) -> None:
    address = urlsplit(url)
    looks: list[Look] = []
    while not pipe.poll():
        began = time.monotonic()
        connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=TIMEOUT_S)
        connection.request("GET", "/healthz")  # a new connection each time: being let in counts as well
        status = connection.getresponse().status
        connection.close()
        if status != http.client.OK:
            raise RuntimeError(f"/healthz answered {status}")
        looks.append((began, time.monotonic() - began))
        time.sleep(EVERY_S)
    pipe.send(looks)


class Probe:
    """Asks from `start` to `end`."""

    def __init__(self, url: str) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_ask, args=(url, theirs), daemon=True)

    def start(self) -> None:
        """Begin to ask."""
        self._process.start()

    def end(self) -> list[Look]:
        """Stop asking, and return all that was seen."""
        self._pipe.send(None)
        if not self._pipe.poll(JOIN_S):
            raise RuntimeError("the probe got no answer, or died")
        looks: list[Look] = self._pipe.recv()
        self._process.join(JOIN_S)
        return looks
