"""A forked child is as if it had been started anew. Each test forks in a process of its own: this one has threads."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import psutil
import pytest

from everfaas_core.runtime.forking import can_fork
from tests.unit.system import until

PARENT = """
import json, os, signal, sys, time
from everfaas_core.runtime.forking import can_fork, fork

signal.signal(signal.SIGTERM, lambda *_: print("a handler of the parent's", flush=True))
signal.signal(signal.SIGINT, lambda *_: print("a handler of the parent's", flush=True))
signal.signal(signal.SIGHUP, signal.SIG_IGN)
wakeup = os.pipe()
os.set_blocking(wakeup[1], False)
signal.set_wakeup_fd(wakeup[1])
given, other = os.open(os.devnull, os.O_RDONLY), os.open(os.devnull, os.O_RDONLY)
"""

ROLE = """
def role():
    path = "/proc/self/cmdline"
    told = {
        "fds": sorted(int(name) for name in os.listdir("/proc/self/fd") if os.path.exists("/proc/self/fd/" + name)),
        "stdin": os.readlink("/proc/self/fd/0"),
        "group": os.getpgid(0) == os.getpid(),
        "term": signal.getsignal(signal.SIGTERM) is signal.SIG_DFL,
        "int": signal.getsignal(signal.SIGINT) is signal.default_int_handler,
        "hup": signal.getsignal(signal.SIGHUP) is signal.SIG_IGN,
        "blocked": len(signal.pthread_sigmask(signal.SIG_BLOCK, [])),
        "wakeup": signal.set_wakeup_fd(-1),
        "environ": dict(os.environ),
        "home": os.popen("echo $HOME$EVERFAAS_X").read(),
        "words": [word for word in open(path).read().split(chr(0)) if word],
        "argv": sys.argv,
    }
    print(json.dumps(told), flush=True)
    return 7
"""

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="roles are forked on Linux only")


def parent(source: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", PARENT + source + "#" * 200],  # a command line with room for another one
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "EVERFAAS_X": "of the parent"},
    )


def finished(source: str) -> tuple[list[str], str]:
    out, errors = parent(source).communicate(timeout=60)
    return out.splitlines(), errors


def test_a_child_has_nothing_of_its_parent_but_what_it_is_given() -> None:
    source = ROLE + (
        "print('before', end=' ')\n"
        "child = fork(role, words=['everfaas', 'api'], environ={'HOME': '/h', 'PATH': os.defpath}, fds=[given])\n"
        "print(json.dumps([child.wait(), child.poll(), given]), flush=True)\n"
    )
    (first, second), errors = finished(source)
    assert errors == ""
    told: dict[str, Any] = json.loads(first.removeprefix("before "))
    status, again, given = json.loads(second)
    assert (status, again) == (7, 7)
    assert told["fds"] == [0, 1, 2, given]
    assert told["stdin"] == os.devnull
    assert (told["group"], told["term"], told["int"], told["hup"]) == (True, True, True, True)
    assert (told["blocked"], told["wakeup"]) == (0, -1)
    assert told["environ"] == {"HOME": "/h", "PATH": os.defpath}
    assert told["home"] == "/h\n", "the environment of the process as well, not only Python's copy of it"
    assert told["words"] == told["argv"] == ["everfaas", "api"]


def test_a_role_that_raises_ends_as_an_interpreter_would() -> None:
    source = (
        "def role():\n    raise ValueError('broken')\n"
        "child = fork(role, words=['x'], environ={})\n"
        "print(child.wait(), flush=True)\n"
        "child = fork(lambda: sys.exit(3), words=['x'], environ={})\n"
        "print(child.wait(), flush=True)\n"
    )
    out, errors = finished(source)
    assert out == ["1", "3"]
    assert errors.count("ValueError: broken") == 1


def test_a_child_dies_with_its_parent_and_by_a_signal() -> None:
    source = (
        "def role():\n    print(os.getpid(), flush=True)\n    time.sleep(600)\n    return 0\n"
        "first = fork(role, words=['x'], environ={})\n"
        "while first.poll() is None:\n"  # SIGTERM before or after it has become a role: it dies of it
        "    first.send_signal(signal.SIGTERM)\n"
        "    time.sleep(0.01)\n"
        "second = fork(role, words=['x'], environ={})\n"
        "print(json.dumps([first.poll(), second.pid]), flush=True)\n"
        "second.wait()\n"
    )
    process = parent(source)
    assert process.stdout is not None
    try:
        line = next(line for line in process.stdout if line.startswith("["))
        status, pid = json.loads(line)
        assert status == -15
        assert psutil.pid_exists(pid)
    finally:
        process.kill()
        process.wait()
    until(lambda: not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)
    for stream in (process.stdout, process.stderr):
        assert stream is not None
        stream.close()


def test_a_command_line_that_does_not_fit_is_cut() -> None:
    source = (
        "def role():\n"
        "    shown = open('/proc/self/cmdline').read()\n"
        "    print(len(shown), shown[:4].replace(chr(0), ' '), set(shown[3:-1]), flush=True)\n    return 0\n"
        "room = len(open('/proc/self/cmdline').read())\n"
        "fork(role, words=['xy', 'z' * 10_000], environ={}).wait()\n"
        "print(room)\n"
    )
    (first, second), errors = finished(source)
    assert errors == ""
    assert first == second + " xy z {'z'}"


def test_a_process_with_threads_is_not_forked(tmp_path: Path) -> None:
    ended = threading.Event()
    thread = threading.Thread(target=ended.wait)
    thread.start()
    assert not can_fork()
    ended.set()
    thread.join()
    source = (
        "import threading\nended = threading.Event()\nprint(can_fork())\n"
        "thread = threading.Thread(target=ended.wait)\nthread.start()\nprint(can_fork())\n"
        "ended.set()\nthread.join()\nprint(can_fork())\n"
    )
    assert finished(source) == (["True", "False", "True"], "")
