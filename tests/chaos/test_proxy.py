"""The fault proxy itself: each fault is what it says, and ends when it is healed."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from .proxy import Proxy


class Echo:
    """Answers every chunk with itself; remembers what it got."""

    def __init__(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.received = bytearray()
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def address(self) -> tuple[str, int]:
        return ("127.0.0.1", self.listener.getsockname()[1])

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                end, _ = self.listener.accept()
                threading.Thread(target=self._serve, args=(end,), daemon=True).start()

    def _serve(self, end: socket.socket) -> None:
        with contextlib.suppress(OSError), end:
            while data := end.recv(65536):
                self.received += data
                end.sendall(data)


@pytest.fixture
def echo() -> Iterator[Echo]:
    echo = Echo()
    yield echo
    with contextlib.suppress(OSError):
        echo.listener.shutdown(socket.SHUT_RDWR)
    echo.listener.close()


@pytest.fixture
def proxy(echo: Echo) -> Iterator[Proxy]:
    proxy = Proxy(echo.address)
    yield proxy
    proxy.close()


@pytest.fixture
def client(proxy: Proxy) -> Iterator[socket.socket]:
    with socket.create_connection(proxy.address, timeout=10) as end:
        assert ask(end, b"hello") == b"hello"
        yield end


def ask(end: socket.socket, data: bytes) -> bytes:
    end.sendall(data)
    answer = b""
    while len(answer) < len(data):
        piece = end.recv(65536)
        if not piece:
            break
        answer += piece
    return answer


def is_silent(end: socket.socket, seconds: float = 0.3) -> bool:
    end.settimeout(seconds)
    try:
        return bool(end.recv(1)) and False
    except TimeoutError:
        return True
    finally:
        end.settimeout(10)


def test_passes_everything_in_order(client: socket.socket) -> None:
    data = bytes(range(256)) * 4096
    writer = threading.Thread(target=client.sendall, args=(data,))
    writer.start()
    answer = bytearray()
    while len(answer) < len(data):
        answer += client.recv(65536)
    writer.join()
    assert bytes(answer) == data


def test_a_delay_is_a_latency_and_no_limit_of_the_rate(client: socket.socket, proxy: Proxy) -> None:
    proxy.set(delay_s=0.2, jitter_s=0.1)
    began = time.monotonic()
    pieces = [bytes([number]) * 100 for number in range(50)]
    for piece in pieces:
        client.sendall(piece)
        time.sleep(0.002)
    answer = b""
    while len(answer) < 5000:
        answer += client.recv(65536)
    took_s = time.monotonic() - began
    assert answer == b"".join(pieces)
    assert 0.4 <= took_s < 5


def test_a_black_hole_closes_nothing_and_delivers_when_it_is_healed(
    client: socket.socket, proxy: Proxy, echo: Echo
) -> None:
    proxy.set(drop={"up", "down"})
    client.sendall(b"lost?")
    assert is_silent(client)
    assert bytes(echo.received) == b"hello"
    proxy.heal()
    assert client.recv(100) == b"lost?"


def test_one_direction_can_be_dropped(client: socket.socket, proxy: Proxy, echo: Echo) -> None:
    proxy.set(drop={"down"})
    client.sendall(b"one way")
    assert is_silent(client)
    assert bytes(echo.received) == b"helloone way"
    proxy.heal()
    assert client.recv(100) == b"one way"


def test_a_new_connection_into_a_black_hole_is_made_and_hears_nothing(proxy: Proxy) -> None:
    proxy.set(drop={"up", "down"})
    with socket.create_connection(proxy.address, timeout=5) as end:
        end.sendall(b"anybody?")
        assert is_silent(end)


def test_reset_is_a_reset_for_both_sides(client: socket.socket, proxy: Proxy) -> None:
    proxy.reset()
    with pytest.raises(ConnectionResetError):
        client.recv(1)
    assert proxy.connections == 0


def test_refuses_and_listens_again_on_the_same_port(client: socket.socket, proxy: Proxy) -> None:
    address = proxy.address
    proxy.set(refuse=True)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(address, timeout=5)
    assert ask(client, b"still there") == b"still there"
    proxy.heal()
    with socket.create_connection(address, timeout=5) as end:
        assert ask(end, b"again") == b"again"


def test_loses_only_the_answer(client: socket.socket, proxy: Proxy, echo: Echo) -> None:
    proxy.set(lose_answers=True)
    client.sendall(b"do it")
    with pytest.raises(ConnectionResetError):
        client.recv(100)
    assert bytes(echo.received) == b"hellodo it"
    assert proxy.counts.answers_lost == 1


def test_throttles(client: socket.socket, proxy: Proxy) -> None:
    proxy.set(rate_bytes_s=20_000)
    began = time.monotonic()
    assert len(ask(client, b"x" * 5_000)) == 5_000
    assert time.monotonic() - began >= 0.4


def test_a_dead_target_is_a_reset(echo: Echo) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        nobody = ("127.0.0.1", listener.getsockname()[1])
    proxy = Proxy(nobody)
    try:
        # The reset comes while connecting, or by the first read: as it happens.
        with pytest.raises(ConnectionResetError), socket.create_connection(proxy.address, timeout=5) as end:
            end.recv(1)
    finally:
        proxy.close()


def test_closes_with_its_threads(echo: Echo) -> None:
    before = threading.active_count()
    proxy = Proxy(echo.address)
    with socket.create_connection(proxy.address, timeout=5) as end:
        assert ask(end, b"x") == b"x"
        proxy.close()
        proxy.close()
        assert end.recv(1) == b""
    assert all(thread.name != "fault-proxy" for thread in threading.enumerate()) or threading.active_count() <= before
