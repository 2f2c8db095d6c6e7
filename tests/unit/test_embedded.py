"""The embedded store as a process: its data, its lock, its end."""

from __future__ import annotations

import errno
import os
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
import redis

from everfaas_core.embedded import EmbeddedStore, default_data_dir
from everfaas_core.embedded import binary as binary_module
from everfaas_core.embedded import flusher as flusher_module
from everfaas_core.embedded.flusher import Flusher
from everfaas_core.model.errors import ConfigError, PortInUse, StoreRefused, StoreUnavailable
from everfaas_core.model.ids import FunctionId, TaskId
from everfaas_core.model.records import FunctionOptions, FunctionRecord, TaskSpec
from everfaas_core.testing.servers import free_port
from everfaas_plugins.redis.store import RedisStore

TASK = TaskId("00000000-0000-8000-8000-000000000001")


def eventually(check: Callable[[], bool], timeout_s: float = 20.0) -> None:
    until = time.monotonic() + timeout_s
    while not check():
        assert time.monotonic() < until
        time.sleep(0.01)


def submit(url: str) -> None:
    store = RedisStore(url)
    record = FunctionRecord(function_id=FunctionId("f"), name="f", payload=b"", options=FunctionOptions())
    store.put_function(record)
    store.submit([TaskSpec(task_id=TASK, function_id=FunctionId("f"), payload=b"p")], 10)
    store.close()


def status(url: str) -> str | None:
    store = RedisStore(url)
    try:
        return store.statuses([TASK])[0]
    finally:
        store.close()


def test_data_survives_a_restart(tmp_path: Path) -> None:
    with EmbeddedStore(tmp_path / "data") as store:
        submit(store.url)
        first = store.pid
    with EmbeddedStore(tmp_path / "data") as store:
        assert store.pid != first
        assert status(store.url) == "QUEUED"


def test_data_survives_a_kill_and_the_address_stays(tmp_path: Path) -> None:
    with EmbeddedStore(tmp_path / "data") as store:
        url = store.url
        submit(url)
        assert store.poll() is None
        assert store.wait(0.01) is None
        assert store.pid is not None
        os.kill(store.pid, signal.SIGKILL)
        assert store.wait(10.0) == -signal.SIGKILL
        assert store.poll() == -signal.SIGKILL
        assert store.pid is None
        assert store.start() == url
        assert store.start() == url
        assert status(url) == "QUEUED"


def test_a_tail_cut_off_by_a_crash_is_dropped(tmp_path: Path) -> None:
    with EmbeddedStore(tmp_path / "data") as store:
        submit(store.url)
        assert store.pid is not None
        os.kill(store.pid, signal.SIGKILL)
        store.wait()
        (log,) = (tmp_path / "data" / "appendonlydir").glob("*.incr.aof")
        with log.open("ab") as file:
            file.write(b"*3\r\n$3\r\nSET\r\n$1\r\nx\r\n$5\r\nab")
        store.start()
        assert status(store.url) == "QUEUED"


def test_one_store_at_a_time_uses_a_directory(tmp_path: Path) -> None:
    with EmbeddedStore(tmp_path / "data"), pytest.raises(ConfigError, match=f"in use by process {os.getpid()}"):
        EmbeddedStore(tmp_path / "data").start()
    with EmbeddedStore(tmp_path / "data") as store:
        assert store.pid


def test_it_dies_with_its_parent_and_gives_the_directory_free(tmp_path: Path) -> None:
    data = tmp_path / "data"
    code = f"""
import sys, time
from everfaas_core.embedded import EmbeddedStore
store = EmbeddedStore({str(data)!r})
store.start()
print(store.pid, flush=True)
time.sleep(600)
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        server = int(parent.stdout.readline())
        with pytest.raises(ConfigError, match=f"in use by process {parent.pid}"):
            EmbeddedStore(data).start()
        parent.kill()
        parent.wait()
        with EmbeddedStore(data) as store:  # at once: it waits for what is dying
            assert store.pid != server
    eventually(lambda: not psutil.pid_exists(server) or psutil.Process(server).status() == psutil.STATUS_ZOMBIE)


def test_a_long_path_gets_a_short_socket_that_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/tmp")
    data = tmp_path / ("d" * 60) / "with space and ünicode"
    data.mkdir(parents=True)
    with EmbeddedStore(data) as store:
        assert status(store.url) is None
        path = Path(store.url.removeprefix("unix://"))
        assert len(str(path)) < 100
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
        assert stat.S_IMODE(path.stat().st_mode) == 0o700
    assert not path.parent.exists()
    with EmbeddedStore(data) as store:
        assert store.url == f"unix://{path}"  # kills leave no trail of directories
    path.parent.symlink_to(tmp_path)  # somebody else was there first
    try:
        with EmbeddedStore(data) as store:
            assert str(path.parent) not in store.url
            assert status(store.url) is None
    finally:
        path.parent.unlink()
    assert (data / "appendonlydir").is_dir()


def test_a_strange_path_is_no_trouble(tmp_path: Path) -> None:
    data = tmp_path / 'it\'s a "dir" é'
    with EmbeddedStore(data) as store:
        submit(store.url)
        assert status(store.url) == "QUEUED"
        assert stat.S_IMODE(data.stat().st_mode) == 0o700
    assert not (data / "valkey.sock").exists()


def test_on_a_port_it_listens_on_loopback_only(tmp_path: Path) -> None:
    port = free_port()
    with EmbeddedStore(tmp_path / "data", port=port) as store:
        assert store.url == f"redis://127.0.0.1:{port}/0"
        assert status(store.url) is None
        assert store.pid is not None
        listening = [c for c in psutil.Process(store.pid).net_connections() if c.status == psutil.CONN_LISTEN]
        assert [c.laddr for c in listening] == [("127.0.0.1", port)]
        with pytest.raises(PortInUse, match=str(port)):
            EmbeddedStore(tmp_path / "other", port=port).start()
    with EmbeddedStore(tmp_path / "data", port=port) as store:
        assert store.pid


def test_on_a_socket_it_listens_on_no_port(tmp_path: Path) -> None:
    with EmbeddedStore(tmp_path / "data") as store:
        assert store.pid is not None
        assert psutil.Process(store.pid).net_connections() == []


def test_a_port_that_another_program_has(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(PortInUse):
            EmbeddedStore(tmp_path / "data", port=taken.getsockname()[1]).start()
    with EmbeddedStore(tmp_path / "data"):  # the lock was given back
        pass


def test_ctrl_c_is_not_for_the_server(tmp_path: Path) -> None:
    with EmbeddedStore(tmp_path / "data") as store:
        assert store.pid is not None
        assert os.getpgid(store.pid) != os.getpgid(0)


def test_a_server_that_does_not_listen_to_reason_is_killed(tmp_path: Path) -> None:
    store = EmbeddedStore(tmp_path / "data")
    store.start()
    assert store.pid is not None
    server = psutil.Process(store.pid)
    server.suspend()
    store.stop(timeout_s=0.2)
    assert not server.is_running()
    store.stop()


def test_a_server_that_cannot_start_says_why(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    (data / "appendonlydir").write_text("in the way")
    with pytest.raises(StoreUnavailable, match="appendonly") as caught:
        EmbeddedStore(data).start()
    assert "valkey.log" in str(caught.value)


def test_what_is_not_a_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="--data"):
        EmbeddedStore(tmp_path / "file").start()
    with pytest.raises(ConfigError, match="everysec"):
        EmbeddedStore(tmp_path, fsync="sometimes")


def test_a_platform_without_a_binary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(binary_module, "_NAME", "no-such-binary")
    with pytest.raises(StoreRefused, match="--store redis://"):
        EmbeddedStore(tmp_path / "data").start()


def test_the_default_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", "/somewhere")
    assert default_data_dir() == Path("/somewhere/everfaas")
    monkeypatch.delenv("XDG_STATE_HOME")
    monkeypatch.setenv("HOME", "/home/me")
    assert default_data_dir() == Path("/home/me/.local/state/everfaas")


# ── flushing ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("fsync", "expected"), [("everysec", "no"), ("always", "always")])
def test_the_server_never_holds_a_write_back(tmp_path: Path, fsync: str, expected: str) -> None:
    """With `appendfsync everysec` it would, while it flushes: what it has answered would die with its process."""
    with EmbeddedStore(tmp_path / "data", fsync=fsync) as store:
        client = redis.Redis(unix_socket_path=str(tmp_path / "data" / "valkey.sock"), decode_responses=True)
        assert client.config_get("appendfsync") == {"appendfsync": expected}
        files = tmp_path / "data" / "appendonlydir"
        for number in range(200):
            client.set("key", f"value-{number}")
            assert any(f"value-{number}".encode() in path.read_bytes() for path in files.glob("*.incr.aof"))
        client.close()
        assert store.pid is not None


def test_what_changes_is_flushed_once_a_second_and_at_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flushed: list[str] = []
    monkeypatch.setattr(os, "fdatasync", lambda fd: flushed.append(os.readlink(f"/proc/self/fd/{fd}")))
    with EmbeddedStore(tmp_path / "data") as store:
        submit(store.url)
        eventually(lambda: any(name.endswith(".incr.aof") for name in flushed))
        flushed.clear()
        redis.Redis(unix_socket_path=str(tmp_path / "data" / "valkey.sock")).set("key", "value")
    assert any(name.endswith(".incr.aof") for name in flushed), "what came last is flushed when it ends"


def test_only_what_has_changed_is_flushed_and_files_come_and_go(tmp_path: Path) -> None:
    synced: list[int] = []
    flusher = Flusher(tmp_path, sync=synced.append)
    assert flusher.flush() == 0
    first, second = tmp_path / "a.1.incr.aof", tmp_path / "a.2.incr.aof"
    first.write_bytes(b"1")
    (tmp_path / "a.manifest").write_bytes(b"1")
    assert [flusher.flush(), flusher.flush()] == [1, 0]
    first.write_bytes(b"12")
    second.write_bytes(b"1")
    assert flusher.flush() == 2
    first.unlink()
    assert flusher.flush() == 0
    assert len(synced) == 3


def test_a_paused_flusher_has_no_thread_and_goes_on(tmp_path: Path) -> None:
    synced: list[int] = []
    flusher = Flusher(tmp_path, every_s=0.01, sync=synced.append)
    with flusher.paused():
        pass
    assert not synced, "one that does not run is not started"
    flusher.start()
    before = threading.active_count()
    with flusher.paused():
        assert threading.active_count() == before - 1
        (tmp_path / "a.aof").write_bytes(b"1")
        time.sleep(0.1)
        assert not synced
    eventually(lambda: bool(synced))
    flusher.stop()
    assert threading.active_count() == before - 1


def test_a_pause_does_not_wait_for_a_slow_disk(tmp_path: Path) -> None:
    begun, may_end = threading.Event(), threading.Event()
    synced: list[int] = []

    def sync(fd: int) -> None:
        begun.set()
        may_end.wait(30)
        synced.append(fd)

    (tmp_path / "a.aof").write_bytes(b"1")
    flusher = Flusher(tmp_path, every_s=0.01, sync=sync)
    flusher.start()
    assert begun.wait(30)
    with flusher.paused():
        assert not synced, "it was not waited for"
    may_end.set()
    eventually(lambda: bool(synced))
    (tmp_path / "b.aof").write_bytes(b"1")
    eventually(lambda: len(synced) >= 2)
    flusher.stop()


def test_a_disk_that_fails_is_told_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def fail(fd: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    (tmp_path / "a.aof").write_bytes(b"1")
    flusher = Flusher(tmp_path, every_s=0.01, sync=fail)
    flusher.start()
    eventually(lambda: "can't be flushed to disk: Input/output error" in caplog.text)
    flusher.stop()
    assert caplog.text.count("can't be flushed") == 1, "and not each time"


def test_a_slow_disk_is_told_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flusher_module, "SLOW_S", 0.0)
    (tmp_path / "a.aof").write_bytes(b"1")
    Flusher(tmp_path, sync=lambda fd: None).flush()
    assert "the disk is slow" in caplog.text
