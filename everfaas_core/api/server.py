"""Serves the application: waitress with our connections, a loop that hears the signal, and a drain."""

from __future__ import annotations

import contextlib
import errno
import functools
import logging
import resource
import socket
import time
from typing import Any, Final

import flask
import waitress
from waitress import wasyncore

from everfaas_core.api.connection import Connection, Shutdown
from everfaas_core.api.context import EXTENSION, ApiContext
from everfaas_core.api.settings import ApiSettings
from everfaas_core.model.errors import ConfigError, PortInUse
from everfaas_core.runtime.signals import DRAIN, STOP, StopRequest

TURN_S: Final = 1.0  # a turn of the loop without anything to do: deadlines are looked at so often
DRAIN_TURN_S: Final = 0.05
THREADS_JOIN_S: Final = 3
RECEIVE_BYTES: Final = 128 * 1024  # at once; with the 8 KiB of waitress, a large batch takes twice as long to come in
FILES_KEPT_FREE: Final = 128  # descriptors that are not connections


class ApiServer:
    """One listening socket and its threads. Binds when it is made; serves while `run` runs."""

    def __init__(self, app: flask.Flask, host: str, port: int, settings: ApiSettings) -> None:
        """Bind `host`:`port` (0: any free one). Raises PortInUse, or ConfigError for an address that is none."""
        self._context: ApiContext = app.extensions[EXTENSION]
        self._settings = settings
        self._shutdown = Shutdown()
        self._map: dict[int, Any] = {}
        self._socket = _bind(host, port)
        bound = self._socket.getsockname()
        self._context.guard.allow(host)
        self._context.guard.allow(bound[0])
        self._host, self._port = str(bound[0]), int(bound[1])
        self._server = waitress.create_server(
            app,
            map=self._map,
            sockets=[self._socket],
            threads=settings.threads,
            connection_limit=_connection_limit(settings.connection_limit),
            channel_timeout=settings.channel_timeout_s,
            recv_bytes=RECEIVE_BYTES,
            max_request_body_size=settings.body_bytes_max + 1,  # waitress refuses what is equal to it
            max_request_header_size=settings.header_bytes_max,
            channel_request_lookahead=1,  # notices clients that leave while they wait
            clear_untrusted_proxy_headers=True,
            asyncore_use_poll=True,
            log_socket_errors=False,
            expose_tracebacks=False,
            ident="",  # no Server header
        )
        # It warns of each request that waits for a thread; long polls make that an everyday thing.
        logging.getLogger("waitress.queue").setLevel(logging.ERROR)
        self._server.channel_class = functools.partial(
            Connection, shutdown=self._shutdown, receive_s_max=settings.receive_s_max
        )

    @property
    def address(self) -> str:
        """The URL of this server, such as "http://127.0.0.1:8000"."""
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"http://{host}:{self._port}"

    def run(self, stop: StopRequest) -> None:
        """Serve until asked to drain; then answer what runs, for at most `drain_s` (or until asked to stop).

        While it drains, nobody new is let in, long-polls answer at once, and each connection closes after its answer.
        """
        watcher = _StopWatcher(stop, self._map)
        self._context.hub.start()
        try:
            while stop.level < DRAIN:
                wasyncore.poll2(TURN_S, self._map)
            self._drain(stop)
        finally:
            watcher.close()
            self.close()

    def _drain(self, stop: StopRequest) -> None:
        self._shutdown.begun = True
        self._stop_listening()
        self._context.hub.drain()
        deadline = time.monotonic() + self._settings.drain_s
        while stop.level < STOP and time.monotonic() < deadline:
            if not any(connection.busy() for connection in tuple(self._server.active_channels.values())):
                return
            wasyncore.poll2(DRAIN_TURN_S, self._map)

    def _stop_listening(self) -> None:
        if self._server.accepting:
            self._server.accepting = False
            self._server.del_channel(self._map)
            self._socket.close()

    def close(self) -> None:
        """Close all at once. Idempotent; `run` calls it at its end."""
        self._shutdown.begun = True
        self._stop_listening()
        self._context.hub.close()
        self._server.task_dispatcher.shutdown(timeout=THREADS_JOIN_S)
        wasyncore.close_all(self._map, ignore_all=True)


class _StopWatcher(wasyncore.file_dispatcher):  # type: ignore[misc]  # waitress ships no types
    """Lets the signal's descriptor wake the loop."""

    def __init__(self, stop: StopRequest, loop_map: dict[int, Any]) -> None:
        self._stop = stop
        super().__init__(stop.fileno(), map=loop_map)

    def readable(self) -> bool:
        return True

    def writable(self) -> bool:
        return False

    def handle_read(self) -> None:
        self._stop.clear_wakeup()


def _bind(host: str, port: int) -> socket.socket:
    try:
        found = socket.getaddrinfo(host.strip("[]") or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, OverflowError, UnicodeError) as error:
        raise ConfigError(f"{host}:{port} is no address to listen on: {error}", hint="set --host and --port") from None
    family, kind, protocol, _, address = min(found, key=lambda item: item[0] != socket.AF_INET)
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        # Listening now makes a second server on this port fail here rather than later.
        listener.listen()
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            raise PortInUse(
                f"port {port} of {host} is taken by another process",
                hint="stop that process, or choose another port with --port (0 picks a free one)",
            ) from None
        raise ConfigError(f"can't listen on {host}:{port}: {error.strerror}", hint="set --host and --port") from None
    return listener


def _connection_limit(wanted: int) -> int:
    """Stay below the number of files that this process may open, or accepting would fail in a busy loop."""
    with contextlib.suppress(OSError, ValueError):
        files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        if files != resource.RLIM_INFINITY:
            return max(1, min(wanted, files - FILES_KEPT_FREE))
    return wanted
