"""The dispatcher's side: one ROUTER socket, all workers behind it."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Sequence
from typing import Final, Literal

import zmq

from everfaas_core.dispatch.events import Beaten, CodeMissing, Draining, Ended, Joined, Left, Told, Undelivered
from everfaas_core.model.errors import ConfigError, PortInUse, WireError
from everfaas_core.model.ids import WorkerId
from everfaas_core.ports import LinkContext, LinkEvent, Selector
from everfaas_core.wire.codec import decode_to_dispatcher, encode
from everfaas_core.wire.messages import (
    Beat,
    Bye,
    Hello,
    Missing,
    Outcomes,
    Refuse,
    Said,
    Stranger,
    Tasks,
    ToDispatcher,
    ToWorker,
)
from everfaas_core.wire.messages import Draining as DrainingMessage

from .sockets import descriptor, readable

HWM_MESSAGES: Final = 10_000
"""Messages queued per peer and direction. A peer at this mark does not read: what is sent then is undelivered."""

RECEIVE_MAX: Final = 1_000
"""Messages taken in per turn, so that a flood can't keep the loop from its other duties."""

PEERS_MAX: Final = 20_000
"""Connections that are remembered; beyond it the one heard longest ago has to say Hello again."""

LINGER_MS: Final = 200

Peer = bytes


class RouterLink:
    """Implements `ports.Link` over ZeroMQ.

    A worker is known by the connection of its last Hello: what still comes in over an older one is ignored, because
    its credit counts from an older Hello.
    """

    bound = False

    def __init__(self, context: LinkContext, credit: Literal["granted", "capacity"]) -> None:
        self.credit: str = credit
        self._mode = context.mode
        self._host = context.host
        self._port = context.worker_port
        self._address = ""
        self._peers: OrderedDict[Peer, WorkerId] = OrderedDict()
        self._workers: dict[WorkerId, Peer] = {}
        self._epochs: dict[WorkerId, int] = {}  # of the Hello that each worker is known by
        self._undelivered: list[LinkEvent] = []
        self._selector: Selector | None = None
        self._context: zmq.Context[zmq.Socket[bytes]] | None = None
        self._socket: zmq.Socket[bytes] | None = None
        self.malformed = 0  # frames that were dropped
        self.strangers = 0  # messages of unknown peers that were answered by Stranger

    @property
    def address(self) -> str:
        """Where workers connect to."""
        return self._address

    def open(self, selector: Selector) -> None:
        """Bind. Raises PortInUse, or ConfigError for an address that is not this machine's."""
        self._context = zmq.Context()
        socket = self._context.socket(zmq.ROUTER)
        socket.set(zmq.ROUTER_MANDATORY, 1)
        socket.set(zmq.SNDHWM, HWM_MESSAGES)
        socket.set(zmq.RCVHWM, HWM_MESSAGES)
        socket.set(zmq.LINGER, LINGER_MS)
        socket.set(zmq.IPV6, 1 if ":" in self._host else 0)
        host = f"[{self._host}]" if ":" in self._host else self._host
        try:
            socket.bind(f"tcp://{host}:{self._port or '*'}")
        except zmq.ZMQError as error:
            socket.close(0)
            self._context.term()
            self._context = None
            if error.errno == zmq.EADDRINUSE:
                raise PortInUse(
                    f"port {self._port} for workers is taken on {self._host}",
                    hint="stop what listens there, or choose another with -p/--worker-port (0 picks a free one)",
                ) from error
            raise ConfigError(
                f"can't listen for workers on {self._host}:{self._port}: {error}",
                hint="--host takes an address of this machine",
            ) from error
        self._socket = socket
        self._address = socket.get_string(zmq.LAST_ENDPOINT)
        self._selector = selector
        selector.register(descriptor(socket))

    def receive(self, now: float, ready_fds: Collection[int]) -> Sequence[LinkEvent]:
        """Take in what has come, whether or not the descriptor was ready: it is edge-triggered."""
        assert self._socket is not None
        events, self._undelivered = self._undelivered, []
        for _ in range(RECEIVE_MAX):
            try:
                peer, *frames = self._socket.recv_multipart(zmq.NOBLOCK, copy=True)
            except zmq.Again:
                break
            try:
                message = decode_to_dispatcher(frames)
            except WireError:
                self.malformed += 1
                continue
            event = self._event(peer, message)
            if event is not None:
                events.append(event)
        return events

    def _event(self, peer: Peer, message: ToDispatcher) -> LinkEvent | None:
        if isinstance(message, Hello):
            return self._joined(peer, message)
        worker_id = self._peers.get(peer)
        if worker_id is None:
            self.strangers += 1
            self._send(peer, Stranger())
            return None
        self._peers.move_to_end(peer)
        match message:
            case Outcomes(items, granted, window):
                return Ended(worker_id, items, granted, window)
            case Said():
                return Told(worker_id, message)
            case Beat(granted, window):
                return Beaten(worker_id, granted, window)
            case Missing(functions):
                return CodeMissing(worker_id, functions)
            case DrainingMessage():
                return Draining(worker_id)
            case Bye(returned):
                self._forget(peer)
                return Left(worker_id, returned)

    def _joined(self, peer: Peer, hello: Hello) -> LinkEvent | None:
        old = self._workers.get(hello.worker_id)
        if old is not None and hello.epoch < self._epochs[hello.worker_id]:
            return None  # from a connection that the worker has given up since
        if old is not None:
            self._peers.pop(old, None)
        self._peers[peer] = hello.worker_id
        self._workers[hello.worker_id] = peer
        self._epochs[hello.worker_id] = hello.epoch
        if len(self._peers) > PEERS_MAX:
            self._forget(next(iter(self._peers)))
        return Joined(
            worker_id=hello.worker_id,
            slots=hello.slots,
            granted=hello.granted,
            host=hello.host,
            pid=hello.pid,
            python=hello.python,
            dill=hello.dill,
            held=hello.held,
            epoch=hello.epoch,
            rejected=self._objection(hello),
        )

    def _objection(self, hello: Hello) -> str | None:
        if hello.mode != self._mode:
            return (
                f"this dispatcher runs in {self._mode} mode, the worker in {hello.mode}: "
                f"start it as `run_worker.py {self._mode} {hello.slots} URL`"
            )
        if hello.slots < 1 or hello.granted < 0 or not hello.worker_id:
            return "the Hello makes no sense: it needs a worker id, at least one slot, and no negative credit"
        return None

    def _forget(self, peer: Peer) -> None:
        worker_id = self._peers.pop(peer, None)
        if worker_id is not None and self._workers.get(worker_id) == peer:
            del self._workers[worker_id], self._epochs[worker_id]

    def send(self, worker_id: WorkerId, message: ToWorker) -> None:
        """Send at once; tasks that can't be sent are reported as Undelivered by the next `receive`."""
        peer = self._workers.get(worker_id)
        sent = peer is not None and self._send(peer, message)
        if not sent and isinstance(message, Tasks) and message.items:
            items = tuple((item.task_id, item.attempt) for item in message.items)
            self._undelivered.append(Undelivered(worker_id, items))
        if isinstance(message, Refuse) and peer is not None:
            self._forget(peer)

    def _send(self, peer: Peer, message: ToWorker) -> bool:
        assert self._socket is not None
        try:
            self._socket.send_multipart([peer, *encode(message)], zmq.NOBLOCK, copy=False)
        except zmq.ZMQError as error:
            if error.errno in (zmq.EHOSTUNREACH, zmq.EAGAIN):
                return False
            raise
        return True

    def fence(self, fence_s: float, until: float | None) -> None:
        """Do nothing: workers fence their slots themselves."""

    def next_timer(self) -> float | None:
        """Ask for the next turn at once if something has come in that the descriptor will not tell of again."""
        if self._socket is None:
            return None
        return 0.0 if self._undelivered or readable(self._socket) else None

    def close(self) -> None:
        """Close the socket; what was sent just before has LINGER_MS to leave."""
        if self._socket is None or self._context is None:
            return
        if self._selector is not None:
            self._selector.unregister(descriptor(self._socket))
        self._socket.close()
        self._context.term()
        self._socket = self._context = None
