"""What every worker transport must do: a link and an uplink that talk over the real thing.

class TestMine(TransportContract):
    @pytest.fixture
    def make_link(self): return lambda port=0: MyLink(link_context("mymode", port))
    @pytest.fixture
    def make_uplink(self): return lambda url: MyUplink(UplinkContext(url=url, options={}))
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Final

import pytest

from everfaas_core.dispatch.events import Beaten, Ended, Joined, Left, LinkEvent, Told, Undelivered
from everfaas_core.model.errors import ConfigError, PortInUse
from everfaas_core.model.ids import DispatcherId, FunctionId, TaskId, WorkerId
from everfaas_core.model.output import Printed, Progressed, Stream
from everfaas_core.model.states import Cause
from everfaas_core.ports import Link, LinkContext, SlotHost, Uplink
from everfaas_core.runtime.poll import Poller
from everfaas_core.wire.messages import (
    PROTOCOL_VERSION,
    Ack,
    Beat,
    Bye,
    Hello,
    Outcome,
    Outcomes,
    Said,
    Stranger,
    TaskItem,
    Tasks,
    ToWorker,
    Welcome,
)

WAIT_S: Final = 10.0
W: Final = WorkerId("w1")


def link_context(mode: str, port: int = 0) -> LinkContext:
    """Make the context of a link whose workers are elsewhere."""

    def no_slots(slots: int) -> SlotHost:
        raise AssertionError(f"a transport must not run slots ({slots} asked for)")

    return LinkContext(
        dispatcher_id=DispatcherId("d1"),
        mode=mode,
        host="127.0.0.1",
        worker_port=port,
        slots=0,
        heartbeat_s=0.5,
        liveness_s=2.0,
        options={},
        make_slots=no_slots,
    )


def hello(mode: str, worker_id: WorkerId = W) -> Hello:
    """Make a worker's first message."""
    return Hello(PROTOCOL_VERSION, worker_id, mode, "host", 1, 2, 2, "3.12.0", "0.4.1", ((TaskId("t0"), 3),), 1)


class Pair:
    """A link and its uplinks on one poller, driven until something has happened."""

    def __init__(self, link: Link) -> None:
        self.poller = Poller()
        self.link = link
        self.link.open(self.poller)
        self.uplinks: list[Uplink] = []
        self.heard: list[LinkEvent] = []
        self.told: list[ToWorker] = []

    def add(self, uplink: Uplink) -> Uplink:
        uplink.open(self.poller)
        self.uplinks.append(uplink)
        return uplink

    def drive(self, done: Callable[[], bool]) -> None:
        """Wait on the descriptors, as loops do, until `done`."""
        until = time.monotonic() + WAIT_S
        while not done():
            assert time.monotonic() < until, f"nothing came: {self.heard} {self.told}"
            pending = self.link.next_timer() is not None or any(uplink.pending() for uplink in self.uplinks)
            ready = self.poller.wait(0.0 if pending else 0.5)
            self.heard += self.link.receive(time.monotonic(), ready)
            for uplink in self.uplinks:
                self.told += uplink.receive()

    def until_heard(self, kind: type[LinkEvent]) -> LinkEvent:
        self.drive(lambda: any(isinstance(event, kind) for event in self.heard))
        found = next(event for event in self.heard if isinstance(event, kind))
        self.heard.remove(found)
        return found

    def until_told(self, kind: type[ToWorker]) -> ToWorker:
        self.drive(lambda: any(isinstance(message, kind) for message in self.told))
        found = next(message for message in self.told if isinstance(message, kind))
        self.told.remove(found)
        return found

    def join(self, uplink: Uplink, mode: str) -> None:
        self.until_told(Stranger)
        uplink.send(hello(mode))
        self.until_heard(Joined)

    def close(self) -> None:
        for uplink in self.uplinks:
            uplink.close()
        self.link.close()
        self.poller.close()


class TransportContract:
    """Inherit, and provide `mode`, `make_link(port=0)` and `make_uplink(url)`."""

    mode: str

    @pytest.fixture
    def make_link(self) -> Callable[..., Link]:
        """Return the maker of links."""
        raise NotImplementedError("provide the fixture make_link")

    @pytest.fixture
    def make_uplink(self) -> Callable[[str], Uplink]:
        """Return the maker of uplinks."""
        raise NotImplementedError("provide the fixture make_uplink")

    @pytest.fixture
    def pair(self, make_link: Callable[..., Link], make_uplink: Callable[[str], Uplink]) -> Iterator[Pair]:
        pair = Pair(make_link())
        pair.add(make_uplink(pair.link.address))
        yield pair
        pair.close()

    def test_a_new_connection_asks_for_a_hello(self, pair: Pair) -> None:
        assert pair.until_told(Stranger) == Stranger()

    def test_a_hello_becomes_a_join_with_all_it_says(self, pair: Pair) -> None:
        pair.until_told(Stranger)
        pair.uplinks[0].send(hello(self.mode))
        joined = pair.until_heard(Joined)
        assert joined == Joined(W, 2, 2, "host", 1, "3.12.0", "0.4.1", ((TaskId("t0"), 3),), 1, None)

    def test_a_worker_of_another_mode_is_rejected_with_the_remedy(self, pair: Pair) -> None:
        pair.until_told(Stranger)
        pair.uplinks[0].send(hello("astray"))
        joined = pair.until_heard(Joined)
        assert isinstance(joined, Joined)
        assert joined.rejected is not None
        assert f"run_worker.py {self.mode}" in joined.rejected

    def test_messages_travel_both_ways_in_order(self, pair: Pair) -> None:
        pair.join(pair.uplinks[0], self.mode)
        pair.link.send(W, Welcome(DispatcherId("d1"), 0.5, 2.0))
        for number in range(200):
            item = TaskItem(TaskId(f"t{number}"), 1, FunctionId("f"), b"x", None)
            pair.link.send(W, Tasks((item,), epoch=1))
        pair.drive(lambda: len(pair.told) == 201)
        assert [m.items[0].task_id for m in pair.told if isinstance(m, Tasks)] == [f"t{n}" for n in range(200)]
        for number in range(200):
            pair.uplinks[0].send(Beat(number, 300 - number))
        pair.drive(lambda: len(pair.heard) == 200)
        assert pair.heard == [Beaten(W, number, 300 - number) for number in range(200)]

    @pytest.mark.parametrize("size_bytes", [0, 1, 40_000, 8_000_000])
    def test_payloads_of_every_size_arrive_unchanged(self, pair: Pair, size_bytes: int) -> None:
        pair.join(pair.uplinks[0], self.mode)
        payload = bytes(range(256)) * (size_bytes // 256) + b"\x00" * (size_bytes % 256)
        pair.link.send(W, Tasks((TaskItem(TaskId("t"), 1, FunctionId("f"), payload, None),)))
        tasks = pair.until_told(Tasks)
        assert isinstance(tasks, Tasks)
        assert tasks.items[0].payload == payload
        pair.uplinks[0].send(Outcomes((Outcome(TaskId("t"), 1, Cause.OK, payload),), 5, 9))
        ended = pair.until_heard(Ended)
        assert isinstance(ended, Ended)
        assert (ended.items[0].result, ended.granted, ended.window) == (payload, 5, 9)

    def test_what_tasks_print_comes_in_before_their_outcomes(self, pair: Pair) -> None:
        pair.join(pair.uplinks[0], self.mode)
        said = Said(
            (Printed(TaskId("t"), 1, Stream.STDERR, 7, bytes(range(256)) * 256),),
            (Progressed(TaskId("t"), 1, 1, 2.5, "é"),),
        )
        pair.uplinks[0].send(said)
        pair.uplinks[0].send(Outcomes((Outcome(TaskId("t"), 1, Cause.OK, b""),), 5, 9))
        pair.drive(lambda: len(pair.heard) == 2)
        assert pair.heard[0] == Told(W, said)
        assert isinstance(pair.heard[1], Ended)

    def test_tasks_for_a_worker_that_is_not_there_are_undelivered(self, pair: Pair) -> None:
        item = TaskItem(TaskId("t"), 4, FunctionId("f"), b"", None)
        pair.link.send(WorkerId("nobody"), Tasks((item,)))
        pair.link.send(WorkerId("nobody"), Ack(((TaskId("t"), 1),)))  # dropped without a word
        assert pair.until_heard(Undelivered) == Undelivered(WorkerId("nobody"), ((TaskId("t"), 4),))

    def test_a_bye_becomes_a_leave(self, pair: Pair) -> None:
        pair.join(pair.uplinks[0], self.mode)
        pair.uplinks[0].send(Bye(((TaskId("t"), 1),)))
        assert pair.until_heard(Left) == Left(W, ((TaskId("t"), 1),))

    def test_a_bye_leaves_even_if_the_uplink_closes_at_once(self, pair: Pair) -> None:
        pair.join(pair.uplinks[0], self.mode)
        pair.uplinks[0].send(Bye())
        pair.uplinks.pop().close()
        pair.until_heard(Left)

    def test_a_reconnect_is_a_new_connection(self, pair: Pair) -> None:
        """What was sent to the old one is not heard over the new one."""
        pair.join(pair.uplinks[0], self.mode)
        pair.uplinks[0].reconnect()
        pair.link.send(W, Ack(((TaskId("lost"), 1),)))
        pair.join(pair.uplinks[0], self.mode)
        pair.link.send(W, Ack(((TaskId("found"), 1),)))
        assert pair.until_told(Ack) == Ack(((TaskId("found"), 1),))

    def test_an_uplink_finds_a_dispatcher_that_was_restarted(self, pair: Pair, make_link: Callable[..., Link]) -> None:
        pair.join(pair.uplinks[0], self.mode)
        port = int(pair.link.address.rsplit(":", 1)[1])
        pair.link.close()
        pair.link = make_link(port)
        pair.link.open(pair.poller)
        pair.join(pair.uplinks[0], self.mode)

    def test_an_uplink_waits_for_a_dispatcher_that_is_not_there_yet(
        self, make_link: Callable[..., Link], make_uplink: Callable[[str], Uplink]
    ) -> None:
        first = Pair(make_link())
        address = first.link.address
        first.link.close()
        uplink = make_uplink(address)
        uplink.open(first.poller)
        uplink.send(Beat(1))  # dropped, not an error
        assert list(uplink.receive()) == []
        first.uplinks.append(uplink)
        first.link = make_link(int(address.rsplit(":", 1)[1]))
        first.link.open(first.poller)
        first.join(uplink, self.mode)
        first.close()

    def test_a_port_that_is_taken_is_a_clear_error(self, pair: Pair, make_link: Callable[..., Link]) -> None:
        second = make_link(int(pair.link.address.rsplit(":", 1)[1]))
        with pytest.raises(PortInUse, match="--worker-port"):
            second.open(pair.poller)
        second.close()

    @pytest.mark.parametrize("url", ["", "nonsense", "tcp://", "tcp://host", "tcp://host:0", "http://127.0.0.1:80"])
    def test_a_bad_url_is_a_clear_error(self, url: str, make_uplink: Callable[[str], Uplink]) -> None:
        with pytest.raises(ConfigError, match="tcp://HOST"):
            make_uplink(url)

    def test_closing_twice_does_no_harm(self, pair: Pair) -> None:
        pair.uplinks[0].close()
        pair.uplinks[0].close()
        pair.link.close()
        pair.link.close()

    def test_the_protocols_name_their_members(self, pair: Pair) -> None:
        assert pair.link.credit in ("granted", "capacity")
        assert pair.link.bound is False


__all__: Sequence[str] = ["Pair", "TransportContract", "hello", "link_context"]
