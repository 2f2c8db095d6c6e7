"""Other dispatchers on the same store: which are dead, and where workers can go."""

from __future__ import annotations

import os
import subprocess
import sys

from everfaas_core.model.records import FleetReport
from everfaas_core.runtime.neighbours import Neighbours, advertised
from everfaas_core.runtime.processes import is_alive, this_machine


def report(name: str, *, pid: int, machine: str = "here", mode: str = "pull", address: str = "tcp://x:1"):
    return FleetReport(dispatcher_id=name, mode=mode, host="h", pid=pid, started_ms=0, address=address, machine=machine)


def a_dead_pid() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_a_process_that_ended_on_this_machine_is_dead_and_no_other_is() -> None:
    neighbours = Neighbours("me", "pull", "here")
    gone = a_dead_pid()
    neighbours.update(
        [
            report("me", pid=gone),
            report("dead", pid=gone),
            report("alive", pid=os.getpid()),
            report("elsewhere", pid=gone, machine="there"),
            report("unknown", pid=gone, machine=""),
        ]
    )
    assert neighbours.dead() == ("dead",)


def test_without_knowing_the_machine_nobody_is_dead() -> None:
    neighbours = Neighbours("me", "pull", "")
    neighbours.update([report("dead", pid=a_dead_pid(), machine="")])
    assert neighbours.dead() == ()


def test_peers_are_living_dispatchers_of_the_same_mode() -> None:
    neighbours = Neighbours("me", "pull", "here")
    neighbours.update(
        [
            report("b", pid=os.getpid(), address="tcp://b:2"),
            report("a", pid=os.getpid(), address="tcp://a:1"),
            report("push", pid=os.getpid(), mode="push", address="tcp://p:1"),
            report("local", pid=os.getpid(), mode="pull", address=""),
            report("dead", pid=a_dead_pid(), address="tcp://d:1"),
        ]
    )
    assert neighbours.peers() == ("tcp://a:1", "tcp://b:2")


def test_a_wildcard_address_is_advertised_by_name() -> None:
    assert advertised("tcp://127.0.0.1:5555") == "tcp://127.0.0.1:5555"
    assert advertised("") == ""
    assert "0.0.0.0" not in advertised("tcp://0.0.0.0:5555")
    assert advertised("tcp://0.0.0.0:5555").endswith(":5555")


def test_who_is_alive() -> None:
    assert is_alive(os.getpid())
    assert is_alive(1)
    assert not is_alive(a_dead_pid())
    zombie = subprocess.Popen([sys.executable, "-c", ""])
    while is_alive(zombie.pid):
        pass  # it ends, and is not reaped
    assert zombie.wait() == 0
    assert this_machine() == this_machine()
