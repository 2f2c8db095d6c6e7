"""Serves the application: waitress with our connections, a loop that hears the signal, and a drain."""

from __future__ import annotations

import functools
import socket
import time
from typing import Any, Final

import flask
import waitress
from waitress import wasyncore

from everfaas_core.api.connection import Connection, Shutdown
from everfaas_core.api.context import EXTENSION, ApiContext
from everfaas_core.api.loop import Loop
from everfaas_core.api.settings import ApiSettings
from everfaas_core.runtime.listening import listen, url_of
from everfaas_core.runtime.signals import DRAIN, STOP, StopRequest

DRAIN_TURN_S: Final = 0.05
THREADS_JOIN_S: Final = 3
UNSENT_BYTES: Final = 1024 * 1024  # of a stream that its client does not take; then it is held up
BODY_BYTES_IN_MEMORY: Final = 16 * 1024 * 1024  # of a request; a longer one comes in by way of a temporary file
RECEIVE_BYTES: Final = 128 * 1024  # at once; with the 8 KiB of waitress, a large batch takes twice as long to come in


class ApiServer:
    """One listening socket and its threads. Binds when it is made; serves while `run` runs."""

    def __init__(
        self,
        app: flask.Flask,
        host: str,
        port: int,
        settings: ApiSettings,
        *,
        listener: socket.socket | None = None,
    ) -> None:
        """Bind `host`:`port` (0: any free one). Raises PortInUse, or ConfigError for an address that is none.

        With a `listener` that is bound already, perhaps shared with other processes, `host` is only a name that clients
        may use, and `port` means nothing.
        """
        self._context: ApiContext = app.extensions[EXTENSION]
        self._settings = settings
        self._shutdown = Shutdown()
        self._loop = Loop()
        self._socket = listener or listen(host, port)
        self.address = url_of(self._socket)  # such as "http://127.0.0.1:8000"
        self._context.guard.allow(host)
        self._context.guard.allow(self._socket.getsockname()[0])
        self._server = waitress.create_server(
            app,
            map=self._loop.objects,
            sockets=[self._socket],
            _dispatcher=self._context.crew,
            connection_limit=settings.connection_limit,
            channel_timeout=settings.channel_timeout_s,
            recv_bytes=RECEIVE_BYTES,
            inbuf_overflow=BODY_BYTES_IN_MEMORY,
            outbuf_high_watermark=UNSENT_BYTES,
            max_request_body_size=settings.body_bytes_max + 1,  # waitress refuses what is equal to it
            max_request_header_size=settings.header_bytes_max,
            channel_request_lookahead=1,  # notices clients that leave while they wait
            clear_untrusted_proxy_headers=True,
            log_socket_errors=False,
            expose_tracebacks=False,
            ident="",  # no Server header
        )
        self._server.channel_class = functools.partial(
            Connection,
            shutdown=self._shutdown,
            loop=self._loop,
            receive_s_max=settings.receive_s_max,
            send_s_max=settings.send_s_max,
        )
        self._loop.take(self._server)

    def run(self, stop: StopRequest) -> None:
        """Serve until asked to drain; then answer what runs, for at most `drain_s` (or until asked to stop).

        While it drains, nobody new is let in, long-polls answer at once, and each connection closes after its answer.
        """
        watcher = _StopWatcher(stop, self._loop.objects)
        self._loop.watch(watcher)
        self._context.hub.start()
        try:
            while stop.level < DRAIN:
                self._loop.turn()
            self._drain(stop)
        finally:
            self._loop.unwatch(watcher)
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
            self._loop.turn(DRAIN_TURN_S)

    def _stop_listening(self) -> None:
        if self._server.accepting:
            self._server.accepting = False
            self._loop.unwatch(self._server)
            self._server.del_channel(self._loop.objects)
            self._socket.close()

    def close(self) -> None:
        """Close all at once. Idempotent; `run` calls it at its end."""
        self._shutdown.begun = True
        self._stop_listening()
        self._context.hub.close()
        for connection in tuple(self._server.active_channels.values()):
            connection.give_up()
        self._server.task_dispatcher.shutdown(timeout=THREADS_JOIN_S)
        self._loop.close()


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
