"""Whatever talks to a dispatcher's port, it lives, and real workers beside it go on."""

from __future__ import annotations

import itertools
import os
import random
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import requests
import zmq

from everfaas_core.model.output import Printed, Progressed, Stream
from everfaas_core.model.states import Cause
from everfaas_core.wire import messages as m
from everfaas_core.wire.codec import decode_to_worker, encode

from . import functions
from .classic import Classic
from .processes import System

WAIT_S = 60.0
PYTHON, DILL = "3.11", "0.4"
LATE = ["--heartbeat", "0.1", "--liveness", "0.6"]
ODD_NUMBERS = [-(2**62), -1, 0, 1, 3, 2**31, 2**62]
ODD_IDS = ["", "x", "\x00", "ü" * 400, "00000000-0000-8000-8000-000000000000"]
MODES = ["pull", "push"]


def until(check: Callable[[], Any], wait_s: float = WAIT_S) -> Any:
    end = time.monotonic() + wait_s
    while not (found := check()):
        assert time.monotonic() < end, f"not within {wait_s:g} s"
        time.sleep(0.02)
    return found


@pytest.fixture(params=MODES)
def system(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[System]:
    system = System(tmp_path, request.param, slots=2, flags=LATE)
    yield system
    system.stop()


@pytest.fixture
def stranger(system: System) -> Iterator[zmq.Socket[bytes]]:
    with zmq.Context() as context, context.socket(zmq.DEALER) as stranger:
        stranger.linger = 0
        stranger.connect(system.dispatcher.address)
        yield stranger


def workers(system: System) -> set[str]:
    listed = requests.get(f"{system.url}/v1/workers", timeout=10).json()["workers"]
    return {worker["worker_id"] for worker in listed}


def hello(mode: str, worker: str, **fields: Any) -> m.Hello:
    values: dict[str, Any] = {
        "version": m.PROTOCOL_VERSION,
        "worker_id": worker,
        "mode": mode,
        "host": "nowhere",
        "pid": 1,
        "slots": 1,
        "granted": 0,
        "python": PYTHON,
        "dill": DILL,
    }
    return m.Hello(**(values | fields))


def hear(stranger: zmq.Socket[bytes], kind: type[m.Message]) -> m.Message:
    """Return the next message of a kind."""
    until_s = time.monotonic() + WAIT_S
    while True:
        assert stranger.poll(int(max(until_s - time.monotonic(), 0) * 1000)), f"no {kind.__name__} came"
        message = decode_to_worker(stranger.recv_multipart())
        if isinstance(message, kind):
            return message


def still_serves(system: System, real: set[str]) -> None:
    until(lambda: workers(system) == real)
    assert Classic(system.url).call(functions.double, 21) == ("COMPLETED", 42)
    assert system.dispatcher.popen.poll() is None
    assert "Traceback" not in system.dispatcher.log.read_text()


def test_a_worker_that_was_lost_is_heard_late_and_is_asked_who_it_is(
    system: System, stranger: zmq.Socket[bytes]
) -> None:
    """It had been given a task, which another has run meanwhile; what it says of it then counts no more."""
    real = workers(system)
    client = Classic(system.url)
    sleeping = client.register(functions.sleep_task)
    busy = [client.execute(sleeping, 2.0) for _ in range(2)]  # so that the next one comes to the stranger
    until(lambda: [client.status(one) for one in busy] == ["RUNNING"] * 2)
    stranger.send_multipart(encode(hello(system.mode, "late", granted=1)))
    hear(stranger, m.Welcome)
    stranger.send_multipart(encode(m.Beat(1)))
    task_id = client.execute(sleeping, 0.0)
    tasks = hear(stranger, m.Tasks)
    assert isinstance(tasks, m.Tasks)
    (item,) = tasks.items
    assert item.task_id == task_id
    until(lambda: workers(system) == real)  # its silence has been too long
    stranger.send_multipart(encode(m.Beat(1)))
    hear(stranger, m.Stranger)
    outcome = m.Outcome(item.task_id, item.attempt, Cause.OK, b"a late result")
    stranger.send_multipart(encode(m.Outcomes((outcome,), 2)))
    stranger.send_multipart(encode(m.Bye(((item.task_id, item.attempt),))))
    body = client.wait(task_id)
    assert body["status"] == "COMPLETED"
    assert "late result" not in body["result"]
    attempts = requests.get(f"{system.url}/v1/tasks/{task_id}", timeout=10).json()["attempts"]
    assert [attempt["cause"] for attempt in attempts] == ["worker_lost", "ok"]
    still_serves(system, real)


def nonsense(chance: random.Random, mode: str) -> m.Message:
    """A message that decodes, and makes no sense or little."""
    number, name = (lambda: chance.choice(ODD_NUMBERS)), (lambda: chance.choice(ODD_IDS))
    held = tuple((name(), number()) for _ in range(chance.randrange(3)))
    outcomes = tuple(
        m.Outcome(name(), number(), chance.choice(list(Cause)), os.urandom(chance.randrange(9)), name(), -1.0)
        for _ in range(chance.randrange(3))
    )
    odd: list[Callable[[], m.Message]] = [
        lambda: hello(mode, f"odd-{chance.randrange(5)}", granted=number(), slots=number(), held=held, epoch=number()),
        lambda: hello(name(), name(), pid=number(), version=number(), python=name()),
        lambda: m.Beat(number()),
        lambda: m.Outcomes(outcomes, number()),
        lambda: m.Said(
            tuple(Printed(name(), number(), chance.choice(list(Stream)), number(), os.urandom(9)) for _ in range(3)),
            (Progressed(name(), number(), number(), chance.choice([None, -1.5, float("nan")]), name()),),
        ),
        lambda: m.Missing(tuple(name() for _ in range(3))),
        m.Draining,
        lambda: m.Bye(held),
        lambda: m.Kill(held),
        lambda: m.Welcome(name(), -1.0, 0.0),
    ]
    return chance.choice(odd)()


def bent(chance: random.Random, frames: list[bytes]) -> list[bytes]:
    """A message with a few bytes changed, cut off, or its frames doubled, behind a header that is right."""
    body = bytearray(frames[0])
    for _ in range(chance.randrange(1, 4)):
        body[chance.randrange(3, len(body))] = chance.randrange(256)
    cut = chance.randrange(3, len(body) + 1) if chance.randrange(3) == 0 else len(body)
    return [bytes(body[:cut]), *frames[1:], *([b"more"] * chance.randrange(2))]


def test_no_frames_crash_a_dispatcher(system: System) -> None:
    chance = random.Random(13)
    real = workers(system)
    with zmq.Context() as context:
        for number in range(5):
            with context.socket(zmq.DEALER) as stranger:
                stranger.linger = 1000
                stranger.connect(system.dispatcher.address)
                for _ in range(600):
                    frames = [bytes(frame) for frame in encode(nonsense(chance, system.mode))]
                    kind = chance.randrange(4)
                    if kind == 0:
                        frames = [os.urandom(chance.randrange(60)) for _ in range(chance.randrange(1, 4))]
                    elif kind == 1:
                        frames = bent(chance, frames)
                    stranger.send_multipart(frames)
                last = hello(system.mode, f"last-{number}")
                stranger.send_multipart(encode(last))
                until(lambda last=last: last.worker_id in workers(system))  # all before it has been taken in
    still_serves(system, real)


def test_what_is_no_zmq_at_all_does_no_harm(system: System) -> None:
    real = workers(system)
    host, _, port = system.dispatcher.address.removeprefix("tcp://").rpartition(":")
    openings = [b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"", os.urandom(500), b"\xff" + b"\x00" * 8 + b"\x7f\x03\x00NULL"]
    with_them = [socket.create_connection((host, int(port)), timeout=WAIT_S) for _ in range(40)]
    for connection, opening in zip(with_them, itertools.cycle(openings), strict=False):
        connection.sendall(opening)
    still_serves(system, real)
    for connection in with_them:
        connection.close()
    still_serves(system, real)


def test_the_messages_of_this_file_are_those_of_the_wire() -> None:
    kinds = {type(nonsense(random.Random(seed), "pull")) for seed in range(200)}
    assert set(m.ToDispatcher.__args__) <= kinds
    assert all(issubclass(kind, msgspec.Struct) for kind in kinds)
