"""The worker's side: a DEALER socket that is replaced whenever its connection broke."""

from __future__ import annotations

import re
import socket
import struct
from collections.abc import Sequence
from typing import Final

import zmq

from everfaas_core.model.errors import ConfigError, WireError
from everfaas_core.ports import Selector, UplinkContext
from everfaas_core.wire.codec import decode_to_worker, encode
from everfaas_core.wire.messages import Bye, Stranger, ToDispatcher, ToWorker

from .sockets import descriptor, readable

HWM_MESSAGES: Final = 10_000
RECEIVE_MAX: Final = 1_000
RECONNECT_MS: Final = 50
RECONNECT_MS_MAX: Final = 200
PROBE_S: Final = 0.1
LINGER_MS: Final = 1_000
"""How long a Bye, and the outcomes before it, may take to leave when the worker closes."""

_URL: Final = re.compile(r"tcp://(\[[0-9a-fA-F:.]+\]|[^\s:/\[\]]+):(\d{1,5})|ipc://\S+")
# What a monitor says: event and value. pyzmq's own reader of it would import asyncio, 4 MB in each worker.
_EVENT: Final = struct.Struct("=hi")
_WATCHED: Final = zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_DISCONNECTED


def check_url(url: str) -> str:
    """Return the url, or raise ConfigError that says how one looks."""
    match = _URL.fullmatch(url)
    if match is None or (match[2] is not None and not 0 < int(match[2]) < 65536):
        raise ConfigError(
            f"{url!r} is not a dispatcher's address",
            hint="it looks like tcp://HOST:5555; the dispatcher prints its own when it starts",
        )
    return url


class DealerUplink:
    """Implements `ports.Uplink` over ZeroMQ.

    The socket's monitor tells when the connection is made and when it breaks. Each time it is made, the session is
    asked (by a Stranger of our own) to say Hello: what was sent over the connection before may be lost.
    """

    def __init__(self, context: UplinkContext) -> None:
        self._url = check_url(context.url)
        self._selector: Selector | None = None
        self._context: zmq.Context[zmq.Socket[bytes]] | None = None
        self._socket: zmq.Socket[bytes] | None = None
        self._monitor: zmq.Socket[bytes] | None = None
        self._connected = False
        self.malformed = 0  # messages that were dropped

    def open(self, selector: Selector) -> None:
        """Start connecting."""
        self._selector = selector
        self._context = zmq.Context()
        self._connect()

    def _connect(self) -> None:
        assert self._context is not None
        assert self._selector is not None
        dealer = self._context.socket(zmq.DEALER)
        dealer.set(zmq.SNDHWM, HWM_MESSAGES)
        dealer.set(zmq.RCVHWM, HWM_MESSAGES)
        dealer.set(zmq.RECONNECT_IVL, RECONNECT_MS)
        dealer.set(zmq.RECONNECT_IVL_MAX, RECONNECT_MS_MAX)
        dealer.set(zmq.LINGER, 0)
        dealer.set(zmq.IPV6, 1)
        monitor = dealer.get_monitor_socket(_WATCHED)
        try:
            dealer.connect(self._url)
        except zmq.ZMQError as error:
            dealer.disable_monitor()
            dealer.close(0)
            raise ConfigError(f"can't connect to {self._url}: {error}", hint="it looks like tcp://HOST:5555") from error
        self._socket, self._monitor, self._connected = dealer, monitor, False
        self._selector.register(descriptor(dealer))
        self._selector.register(descriptor(monitor))

    def _disconnect(self, linger_ms: int) -> None:
        if self._socket is None or self._monitor is None or self._selector is None:
            return
        self._selector.unregister(descriptor(self._socket))
        self._selector.unregister(descriptor(self._monitor))
        self._socket.disable_monitor()
        self._monitor.close(0)
        self._socket.close(linger_ms)
        self._socket = self._monitor = None
        self._connected = False

    def receive(self) -> Sequence[ToWorker]:
        """Return what has come in, and a Stranger each time the connection was made anew."""
        messages: list[ToWorker] = []
        if self._watch():
            messages.append(Stranger())
        if self._socket is None:
            return messages
        for _ in range(RECEIVE_MAX):
            try:
                frames = self._socket.recv_multipart(zmq.NOBLOCK, copy=True)
            except zmq.Again:
                break
            try:
                messages.append(decode_to_worker(frames))
            except WireError:
                self.malformed += 1
        return messages

    def _watch(self) -> bool:
        """Read the monitor; return True if the connection has just been made."""
        made = False
        while self._monitor is not None and readable(self._monitor):
            event, _value = _EVENT.unpack(self._monitor.recv_multipart(zmq.NOBLOCK)[0])
            if event == zmq.EVENT_HANDSHAKE_SUCCEEDED:
                self._connected = made = True
            elif event == zmq.EVENT_DISCONNECTED:
                made = False
                self.reconnect()
        return made

    def send(self, message: ToDispatcher) -> None:
        """Send, or drop while there is no connection."""
        if self._socket is None or not self._connected:
            return
        try:
            self._socket.send_multipart(encode(message), zmq.NOBLOCK, copy=False)
        except zmq.Again:  # the dispatcher has not read for HWM_MESSAGES: begin anew, and present what we hold
            if not isinstance(message, Bye):
                self.reconnect()

    def reconnect(self, url: str | None = None) -> None:
        """Replace the socket: a fresh connection with an identity of its own."""
        self._disconnect(0)
        if url is not None:
            self._url = check_url(url)
        self._connect()

    def absent(self, url: str) -> bool:
        """Tell whether a connection is refused now."""
        scheme, _, where = url.partition("://")
        if scheme != "tcp":
            return False
        host, _, port = where.rpartition(":")
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=PROBE_S).close()
        except ConnectionRefusedError:
            return True
        except OSError:
            return False
        return False

    def pending(self) -> bool:
        """Tell whether something has come in that the descriptors will not tell of again."""
        return any(one is not None and readable(one) for one in (self._socket, self._monitor))

    def close(self) -> None:
        """Close; what was sent just before has LINGER_MS to leave."""
        self._disconnect(LINGER_MS if self._connected else 0)
        if self._context is not None:
            self._context.term()
            self._context = None
