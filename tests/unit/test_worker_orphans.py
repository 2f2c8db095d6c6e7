"""However a worker dies, nothing of it is left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.unit.worker_kit import ROOT, gone, wait_for

WORKER = """
import sys, time
sys.path.insert(0, {root!r})
import dill
from tests.unit.worker_kit import Slots, call

def busy(file):
    import os, subprocess, time
    pids = [os.getpid(), subprocess.Popen(["sleep", "3600"]).pid,
            subprocess.Popen(["sleep", "3600"], start_new_session=True).pid]
    with open(file + ".part", "w") as out:
        out.write(" ".join(map(str, pids)))
    os.rename(file + ".part", file)
    time.sleep(3600)

with Slots(2) as slots:
    slots.submit(dill.dumps(busy, recurse=True), call({busy!r}))
    print(slots.host.nursery_pid(), *slots.host.pids().values(), flush=True)
    while True:
        slots.turn()
"""


@pytest.fixture
def worker(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], list[int]]]:
    """A worker with two slots, one of them busy with a family of its own; and the ids of all processes below it."""
    script = tmp_path / "worker.py"
    script.write_text(WORKER.format(root=str(ROOT), busy=str(tmp_path / "busy")))
    process = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True, cwd=tmp_path)
    assert process.stdout is not None
    pids = [int(word) for word in process.stdout.readline().split()]
    assert len(pids) == 3
    wait_for((tmp_path / "busy").exists)
    pids += [int(word) for word in (tmp_path / "busy").read_text().split()]
    assert not any(gone(pid) for pid in pids)
    yield process, pids
    process.kill()
    process.wait()
    process.stdout.close()


@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_nothing_survives_the_worker(worker: tuple[subprocess.Popen[str], list[int]], signum: int) -> None:
    process, pids = worker
    process.send_signal(signum)
    process.wait(30)
    wait_for(lambda: all(gone(pid) for pid in pids), "all processes of a dead worker to end")


def test_nothing_survives_a_worker_whose_nursery_hangs(worker: tuple[subprocess.Popen[str], list[int]]) -> None:
    """A stopped nursery can't clean up; once it goes on, or is killed, everything ends."""
    process, pids = worker
    os.kill(pids[0], signal.SIGSTOP)
    process.kill()
    process.wait(30)
    os.kill(pids[0], signal.SIGCONT)
    wait_for(lambda: all(gone(pid) for pid in pids), "all processes of a dead worker to end")


def test_the_slots_are_out_of_reach_of_the_terminal(worker: tuple[subprocess.Popen[str], list[int]]) -> None:
    process, pids = worker
    groups = [os.getpgid(pid) for pid in pids[:3]]
    assert os.getpgid(process.pid) not in groups
    assert len(set(groups)) == 3
    assert psutil.Process(pids[0]).terminal() is None
