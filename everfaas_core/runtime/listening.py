"""Listening sockets, made apart from whoever accepts from them: several processes may share one."""

from __future__ import annotations

import errno
import socket
from typing import Final

from everfaas_core.model.errors import ConfigError, PortInUse

BACKLOG: Final = 1024
"""Connections that wait to be accepted; the system may have a lower limit (net.core.somaxconn)."""


def listen(host: str, port: int) -> socket.socket:
    """Listen on `host`:`port` (0: any free one). Raises PortInUse, or ConfigError for an address that is none.

    A name that has an IPv4 and an IPv6 address means the IPv4 one.
    """
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
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            raise PortInUse(
                f"port {port} of {host} is taken by another process",
                hint="stop that process, or choose another port with --port (0 picks a free one)",
            ) from None
        raise ConfigError(f"can't listen on {host}:{port}: {error.strerror}", hint="set --host and --port") from None
    return listener


def url_of(listener: socket.socket) -> str:
    """Return the URL of an HTTP server behind this socket, such as "http://127.0.0.1:8000"."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
