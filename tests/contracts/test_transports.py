"""Pull and push keep the transport contract, and shrug at whatever else comes in over their sockets."""

from __future__ import annotations

import os
import random

import pytest
import zmq

from everfaas_core.dispatch.events import Joined
from everfaas_core.ports import UplinkContext
from everfaas_core.testing.transport import Pair, TransportContract, hello, link_context
from everfaas_core.wire.codec import encode
from everfaas_core.wire.messages import Beat, Stranger
from everfaas_plugins import pull, push


class ZmqContract(TransportContract):
    plugin = pull

    @pytest.fixture
    def make_link(self):
        (mode,) = self.plugin.everfaas_modes()
        return lambda port=0: mode.factory(link_context(self.mode, port))

    @pytest.fixture
    def make_uplink(self):
        (transport,) = self.plugin.everfaas_transports()
        return lambda url: transport.factory(UplinkContext(url=url, options={}))

    def test_foreign_frames_are_counted_and_dropped(self, pair: Pair) -> None:
        """Junk of every kind from a peer of unknown manners; a worker beside it is not disturbed."""
        chance = random.Random(7)
        frame = bytes(encode(hello(self.mode))[0])
        with zmq.Context() as context, context.socket(zmq.DEALER) as stranger:
            stranger.linger = 0
            stranger.connect(pair.link.address)
            for _ in range(2000):
                kind = chance.randrange(4)
                if kind == 0:
                    stranger.send(os.urandom(chance.randrange(200)))
                elif kind == 1:
                    stranger.send_multipart([frame[: chance.randrange(len(frame))], b"blob"])
                elif kind == 2:
                    bent = bytearray(frame)
                    bent[chance.randrange(3, len(bent))] ^= 1 << chance.randrange(8)
                    stranger.send(bytes(bent[:2]) + b"\x63" + bytes(bent[3:]))
                else:
                    stranger.send_multipart([b""] * chance.randrange(1, 5))
            pair.join(pair.uplinks[0], self.mode)
            pair.drive(lambda: pair.link.malformed == 2000)

    def test_an_unknown_peer_is_asked_for_a_hello(self, pair: Pair) -> None:
        with zmq.Context() as context, context.socket(zmq.DEALER) as stranger:
            stranger.linger = 0
            stranger.connect(pair.link.address)
            stranger.send_multipart(encode(Beat(1)))
            pair.drive(lambda: pair.link.strangers == 1)
            assert stranger.recv_multipart() == encode(Stranger())

    def test_a_hello_that_makes_no_sense_is_rejected(self, pair: Pair) -> None:
        pair.until_told(Stranger)
        bad = hello(self.mode)
        pair.uplinks[0].send(type(bad)(bad.version, "w", self.mode, "h", 1, 0, -5, "3", "0"))
        joined = pair.until_heard(Joined)
        assert isinstance(joined, Joined)
        assert "no sense" in str(joined.rejected)


class TestPull(ZmqContract):
    mode = "pull"


class TestPush(ZmqContract):
    mode = "push"
    plugin = push
