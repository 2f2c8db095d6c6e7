"""Two questions to a ZeroMQ socket. Its descriptor is edge-triggered: being quiet does not mean that it is empty."""

from __future__ import annotations

import zmq


def descriptor(socket: zmq.Socket[bytes]) -> int:
    """Return the descriptor to wait on."""
    fd = socket.get(zmq.FD)
    assert isinstance(fd, int)
    return fd


def readable(socket: zmq.Socket[bytes]) -> bool:
    """Tell whether a message could be received now."""
    events = socket.get(zmq.EVENTS)
    assert isinstance(events, int)
    return bool(events & zmq.POLLIN)
