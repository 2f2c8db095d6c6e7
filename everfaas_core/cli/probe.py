"""Is the system ready? Asks the API, which asks the store, which knows whether a dispatcher with slots lives."""

from __future__ import annotations

import os
import socket
import threading
import time
from typing import Final
from urllib.parse import urlsplit

INTERVAL_S: Final = 0.02
PATIENT_AFTER_S: Final = 5.0
PATIENT_INTERVAL_S: Final = 0.25
TIMEOUT_S: Final = 5.0
LINE_BYTES_MAX: Final = 256
JOIN_S: Final = 0.5


class ReadyProbe:
    """Asks /readyz in a thread until it says yes; then `fileno()` is readable. Used once, while a system starts."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        host = parts.hostname or "127.0.0.1"
        self._host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - listened on, not bound here
        self._port = parts.port or 80
        self._cancelled = threading.Event()
        self._reader, self._writer = os.pipe()
        self._thread = threading.Thread(target=self._run, name="ready-probe", daemon=True)

    def start(self) -> None:
        """Begin to ask."""
        self._thread.start()

    def fileno(self) -> int:
        """Return the descriptor that becomes readable once the system is ready."""
        return self._reader

    def close(self) -> None:
        """Stop asking."""
        self._cancelled.set()
        self._thread.join(JOIN_S)
        if not self._thread.is_alive():  # else it still asks a server that hangs, and may yet write
            os.close(self._reader)
            os.close(self._writer)

    def _run(self) -> None:
        began = time.monotonic()
        while not self._cancelled.is_set():
            if self._is_ready():
                os.write(self._writer, b"!")
                return
            patient = time.monotonic() - began > PATIENT_AFTER_S
            self._cancelled.wait(PATIENT_INTERVAL_S if patient else INTERVAL_S)

    def _is_ready(self) -> bool:
        # By hand, because http.client would stay in the memory of `everfaas up` for ever, for these few calls.
        try:
            with socket.create_connection((self._host, self._port), timeout=TIMEOUT_S) as connection:
                connection.sendall(b"GET /readyz HTTP/1.0\r\nHost: localhost\r\n\r\n")
                with connection.makefile("rb") as answer:
                    return answer.readline(LINE_BYTES_MAX).split(b" ")[1:2] == [b"200"]
        except OSError:
            return False
