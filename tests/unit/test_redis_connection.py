"""The redis plugin's own connection, against servers that say what the test has them say."""

from __future__ import annotations

import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from everfaas_plugins.redis.address import parse_url
from everfaas_plugins.redis.connection import Connection, LoginRefused, ProtocolError, ReplyError
from everfaas_plugins.redis.server import Server

Talk = Callable[[socket.socket], None]


@contextmanager
def server(*talks: Talk, context: ssl.SSLContext | None = None) -> Iterator[int]:
    """Accept a connection for each talk, one after the other; give the port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            for talk in talks:
                plain, _ = listener.accept()
                with plain:
                    try:
                        talk(context.wrap_socket(plain, server_side=True) if context else plain)
                    except OSError:  # the client has left
                        continue

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield listener.getsockname()[1]
        thread.join(20)
        assert not thread.is_alive()


def connect(port: int, url: str = "redis://127.0.0.1:{}/0", *, reply_s: float = 20.0) -> Connection:
    return Connection(parse_url(url.format(port)).settings, connect_s=20.0, reply_s=reply_s)


def says(*pieces: bytes, heard: list[bytes] | None = None) -> Talk:
    """Answer whatever comes with these pieces, then wait for the client to hang up."""

    def talk(peer: socket.socket) -> None:
        for piece in pieces:
            data = peer.recv(65536)
            if heard is not None:
                heard.append(data)
            peer.sendall(piece)
        while peer.recv(65536):
            pass

    return talk


def test_replies_of_all_kinds_whole_and_in_parts() -> None:
    def talk(peer: socket.socket) -> None:
        peer.recv(100)
        for byte in b"+OK\r\n:7\r\n$-1\r\n$3\r\na\r\n\r\n*2\r\n$1\r\nx\r\n:1\r\n-ERR no\r\n":
            peer.sendall(bytes([byte]))

    with server(talk) as port:
        connection = connect(port)
        connection.send([("PING",)])
        assert [connection.receive() for _ in range(5)] == [b"OK", 7, None, b"a\r\n", [b"x", 1]]
        error = connection.receive()
        assert isinstance(error, ReplyError)
        assert str(error) == "ERR no"
        with pytest.raises(ConnectionResetError):
            connection.receive()
        connection.close()
        connection.close()


def test_what_was_read_ahead_is_readable() -> None:
    with server(says(b":1\r\n:2\r\n:3")) as port:
        connection = connect(port)
        assert not connection.readable()
        connection.send([("A",)])
        assert connection.receive() == 1
        assert connection.readable()
        assert connection.receive() == 2
        assert not connection.readable(), "part of a reply is none"
        connection.close()


def test_the_end_is_readable() -> None:
    with server(lambda peer: None) as port:
        connection = connect(port)
        with pytest.raises(ConnectionError):
            connection.receive()
        assert connection.readable()
        connection.close()


def test_silence_is_a_timeout_and_nonsense_is_no_protocol() -> None:
    with server(says(), says(b"HTTP/1.1 400 Bad Request\r\n\r\n")) as port:
        connection = connect(port, reply_s=0.1)
        with pytest.raises(TimeoutError):
            connection.receive()
        connection.close()
        connection = connect(port)
        connection.send([("PING",)])
        with pytest.raises(ProtocolError):
            connection.receive()
        connection.close()


@pytest.mark.parametrize(
    ("url", "replies", "said"),
    [
        ("redis://127.0.0.1:{}/0", [], []),
        ("redis://127.0.0.1:{}/3", [b"+OK\r\n"], [b"SELECT", b"3"]),
        ("redis://:geheim@127.0.0.1:{}/0", [b"+OK\r\n"], [b"AUTH", b"geheim"]),
        ("redis://me:geheim@127.0.0.1:{}/1", [b"+OK\r\n", b"+OK\r\n"], [b"AUTH", b"me", b"geheim", b"SELECT", b"1"]),
    ],
)
def test_it_logs_in_and_selects(url: str, replies: list[bytes], said: list[bytes]) -> None:
    heard: list[bytes] = []
    with server(says(*replies, heard=heard)) as port:
        connect(port, url).close()
    words = [word for word in b"".join(heard).split(b"\r\n") if word and word[:1] not in b"*$"]
    assert words == said


def test_a_refused_login_and_a_database_that_is_not_there() -> None:
    with server(says(b"-WRONGPASS no\r\n"), says(b"-ERR DB index is out of range\r\n")) as port:
        with pytest.raises(LoginRefused, match="WRONGPASS"):
            connect(port, "redis://:x@127.0.0.1:{}/0")
        with pytest.raises(ReplyError, match="out of range"):
            connect(port, "redis://127.0.0.1:{}/99")


def test_commands_of_all_sizes_arrive_as_they_are() -> None:
    large = bytes(range(256)) * 20_000  # 5 MB: several pieces
    commands = [
        ("SET", "a", b"x" * 10),
        ("SET", "b", large),
        ("SET", "c", 1.5),
        ("SET", "d", 7),
        ("SET", "e", b"y" * 70_000),
    ]
    expected = b"".join(
        b"*3\r\n"
        + b"".join(
            b"$%d\r\n%s\r\n" % (len(item), item)
            for item in (part if isinstance(part, bytes) else str(part).encode() for part in command)
        )
        for command in commands
    )
    received = bytearray()

    def talk(peer: socket.socket) -> None:
        while len(received) < len(expected):
            received.extend(peer.recv(1 << 20))
        peer.sendall(b"+OK\r\n")

    with server(talk) as port:
        connection = connect(port)
        connection.send(commands)
        assert connection.receive() == b"OK"
        connection.close()
    assert bytes(received) == expected


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate that signs itself, with its key, for 127.0.0.1."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("openssl is not installed (apt-get install openssl)")
    path = tmp_path_factory.mktemp("tls") / "both.pem"
    words = ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=everfaas test"]
    names = ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(path) + ".key", "-out", str(path)]
    subprocess.run([openssl, *words, *names], check=True, capture_output=True)
    path.write_text(path.read_text() + Path(str(path) + ".key").read_text())
    return path


@pytest.fixture
def tls(certificate: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    return context


def test_tls_reads_what_it_has_decrypted(certificate: Path, tls: ssl.SSLContext) -> None:
    replies = b"".join(b":%d\r\n" % number for number in range(20_000))  # more than one read takes
    with server(says(replies), context=tls) as port:
        connection = connect(port, f"rediss://127.0.0.1:{{}}/0?ssl_ca_certs={certificate}")
        connection.send([("A",)])
        seen = [connection.receive()]
        while len(seen) < 20_000:
            if connection.readable():
                seen.append(connection.receive())
        assert seen == list(range(20_000))
        connection.close()


def test_tls_trusts_nobody_by_itself(tls: ssl.SSLContext) -> None:
    with server(says(), says(), context=tls) as port:
        with pytest.raises(ssl.SSLCertVerificationError):
            connect(port, "rediss://127.0.0.1:{}/0")
        connect(port, "rediss://127.0.0.1:{}/0?ssl_cert_reqs=none").close()


def test_a_certificate_that_is_not_trusted_is_named_in_the_error() -> None:
    store = Server(parse_url("redis://127.0.0.1:1/0"))
    error = store.explain(ssl.SSLCertVerificationError(1, "certificate verify failed"))
    assert "certificate verify failed" in str(error)
    assert "127.0.0.1:1" in str(error)
    store.close()
