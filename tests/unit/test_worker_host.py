"""Slots as real processes: crashes, deadlines, cancels, big payloads, isolation."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dill
import pytest

from everfaas_core.model.ids import FunctionId, TaskId
from everfaas_core.model.states import Cause
from everfaas_core.ports import SlotHost
from everfaas_core.wire.messages import FunctionItem, TaskItem, Tasks
from everfaas_core.worker.nursery import Nursery, scrubbed
from tests.unit.worker_kit import PATIENCE_S, Slots, call, gone, wait_for


@pytest.fixture
def slots() -> Iterator[Slots]:
    with Slots(2) as started:
        yield started


def code(function: Callable[..., Any]) -> bytes:
    """Pickle by value, with what it needs."""
    payload: bytes = dill.dumps(function, recurse=True, byref=False)
    return payload


def identity(value: Any) -> Any:
    return value


def own_pid() -> int:
    import os

    return os.getpid()


def nap_briefly() -> None:
    import time

    time.sleep(0.3)


def sleep_long() -> None:
    import time

    time.sleep(3600)


def sleep_and_tell(file: str) -> None:
    import pathlib
    import time

    pathlib.Path(file).touch()
    time.sleep(3600)


def spin() -> None:
    while True:
        pass


def hold_the_gil() -> int:
    return sum(range(10**13))


def exit_hard() -> None:
    import os

    os._exit(3)


def segfault() -> None:
    import ctypes

    ctypes.string_at(0)


def kill_itself() -> None:
    import os
    import signal

    os.kill(os.getpid(), signal.SIGKILL)


def abort() -> None:
    import os

    os.abort()


def test_it_is_a_slot_host(slots: Slots) -> None:
    assert isinstance(slots.host, SlotHost)
    assert slots.host.ready()
    assert slots.host.slots == 2
    assert slots.host.granted == 2


# ── crashes ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        (exit_hard, "exited with status 3"),
        (segfault, "killed by signal 11 (SIGSEGV)"),
        (kill_itself, "killed by signal 9 (SIGKILL)"),
        (abort, "killed by signal 6 (SIGABRT)"),
    ],
)
def test_a_crash_is_explained_and_the_slot_replaced(slots: Slots, function: Callable[[], None], reason: str) -> None:
    bystander = slots.submit(code(identity), call("waits"))
    other = slots.submit(code(function))
    outcome = slots.wait(other)
    assert outcome.cause is Cause.SLOT_CRASHED
    assert reason in (outcome.error or "")
    assert outcome.result == b""
    assert dill.loads(slots.wait(bystander).result) == "waits"
    slots.until(lambda: len(slots.host.pids()) == 2)
    assert slots.value(code(identity), call(1)) == 1


def test_a_busy_slot_killed_from_outside_costs_its_task_only(slots: Slots, tmp_path: Path) -> None:
    files = [tmp_path / "one", tmp_path / "two"]
    keys = [slots.submit(code(sleep_and_tell), call(str(file))) for file in files]
    pids = slots.host.pids()
    slots.until(lambda: all(file.exists() for file in files))
    os.kill(pids[0], signal.SIGKILL)
    slots.until(lambda: slots.outcomes)
    (ended,) = slots.outcomes.values()
    assert ended.cause is Cause.SLOT_CRASHED
    assert list(slots.host.running()) == [key for key in keys if key != (ended.task_id, 1)]
    slots.until(lambda: len(slots.host.pids()) == 2)
    assert slots.host.pids()[1] == pids[1]
    assert slots.host.pids()[0] != pids[0]


def test_an_idle_slot_killed_from_outside_is_replaced(slots: Slots) -> None:
    before = slots.host.pids()
    os.kill(before[0], signal.SIGKILL)
    slots.until(lambda: slots.host.pids().get(0, before[0]) != before[0])
    assert slots.outcomes == {}
    for number in range(4):
        assert slots.value(code(identity), call(number)) == number


def test_a_task_fed_to_a_slot_that_is_already_dead_is_fed_again_at_no_cost() -> None:
    with Slots(1) as slots:
        pid = slots.host.pids()[0]
        os.kill(pid, signal.SIGSTOP)  # it will not begin what it is fed
        key = slots.submit(code(own_pid))
        os.kill(pid, signal.SIGKILL)
        outcome = slots.wait(key)
        assert outcome.cause is Cause.OK
        assert dill.loads(outcome.result) != pid


def test_a_dead_nursery_is_replaced_with_its_slots(slots: Slots, tmp_path: Path) -> None:
    started = tmp_path / "started"
    running = slots.submit(code(sleep_and_tell), call(str(started)))
    slots.until(started.exists)
    pids = list(slots.host.pids().values())
    nursery = slots.host.nursery_pid()
    assert nursery is not None
    os.kill(nursery, signal.SIGKILL)
    outcome = slots.wait(running)
    assert outcome.cause is Cause.SLOT_CRASHED
    assert "nursery" in (outcome.error or "")
    wait_for(lambda: all(gone(pid) for pid in pids), "slots to die with their nursery")
    assert slots.value(code(identity), call(5)) == 5
    assert slots.host.nursery_pid() != nursery


def test_a_function_that_closes_all_descriptors_crashes_only_its_slot(slots: Slots) -> None:
    def close_all() -> None:
        import os
        import time

        os.closerange(3, 100)
        time.sleep(3600)

    outcome = slots.run(code(close_all))
    assert outcome.cause is Cause.SLOT_CRASHED
    assert "closed the connection" in (outcome.error or "")


def test_a_function_that_writes_noise_to_the_pipe_crashes_only_its_slot(slots: Slots) -> None:
    def noise() -> None:
        import os
        import time

        for name in os.listdir("/proc/self/fd"):
            if os.path.islink(f"/proc/self/fd/{name}") and os.readlink(f"/proc/self/fd/{name}").startswith("socket:"):
                os.write(int(name), b"\xff" * 100)
        time.sleep(3600)

    outcome = slots.run(code(noise))
    assert outcome.cause is Cause.SLOT_CRASHED
    assert "garbled" in (outcome.error or "")
    assert slots.value(code(identity), call(5)) == 5


def test_a_forked_copy_of_the_slot_never_answers(slots: Slots) -> None:
    def fork() -> str:
        import os

        return "child" if os.fork() == 0 else "parent"

    for _ in range(5):
        assert slots.value(code(fork)) == "parent"


# ── deadlines and cancels ────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("function", [sleep_long, spin, hold_the_gil])
def test_a_deadline_kills_for_real(slots: Slots, function: Callable[[], object]) -> None:
    pids = set(slots.host.pids().values())
    started = time.monotonic()
    outcome = slots.run(code(function), timeout_s=0.3)
    assert outcome.cause is Cause.DEADLINE
    assert "exceeded deadline of 0.3 s" in (outcome.error or "")
    assert 0.3 <= time.monotonic() - started < 10
    slots.until(lambda: len(slots.host.pids()) == 2)
    (dead,) = pids - set(slots.host.pids().values())
    assert gone(dead)
    assert slots.value(code(identity), call(1)) == 1


def test_a_task_within_its_time_is_left_alone(slots: Slots) -> None:
    assert slots.run(code(own_pid), timeout_s=20.0).cause is Cause.OK
    assert slots.host.next_timer() is None


def test_a_cancel_kills_for_real(slots: Slots) -> None:
    key = slots.submit(code(hold_the_gil))
    other = slots.submit(code(sleep_long))
    slots.host.kill([key, (TaskId("unknown"), 1)])
    assert slots.wait(key).cause is Cause.CANCELLED
    assert list(slots.host.running()) == [other]


def test_a_cancel_of_what_waits_is_immediate(slots: Slots) -> None:
    keys = [slots.submit(code(sleep_long)) for _ in range(3)]
    slots.host.kill([keys[2]])
    assert slots.host.next_timer() == 0.0
    assert slots.wait(keys[2]).cause is Cause.CANCELLED


def test_descendants_die_with_the_slot(slots: Slots, tmp_path: Path) -> None:
    def family(directory: str) -> None:
        import os
        import subprocess
        import time

        pids = [subprocess.Popen(["sleep", "3600"], start_new_session=own).pid for own in (False, True)]
        script = "setsid sleep 3600 >/dev/null 2>&1 & echo $!"
        daemon = subprocess.run(["sh", "-c", script], stdout=subprocess.PIPE, check=True)
        pids.append(int(daemon.stdout))
        with open(os.path.join(directory, "pids.part"), "w") as file:
            file.write(" ".join(map(str, pids)))
        os.rename(os.path.join(directory, "pids.part"), os.path.join(directory, "pids"))
        time.sleep(3600)

    key = slots.submit(code(family), call(str(tmp_path)))
    slots.until((tmp_path / "pids").exists)
    pids = [int(word) for word in (tmp_path / "pids").read_text().split()]
    assert not any(gone(pid) for pid in pids)
    slots.host.kill([key])
    assert slots.wait(key).cause is Cause.CANCELLED
    wait_for(lambda: all(gone(pid) for pid in pids), "descendants to die")


def test_what_a_finished_task_left_running_dies_with_the_host(tmp_path: Path) -> None:
    def leave_behind() -> list[int]:
        import subprocess

        plain = subprocess.Popen(["sleep", "3600"])
        runaway = subprocess.Popen(["sleep", "3600"], start_new_session=True)
        return [plain.pid, runaway.pid]

    with Slots(2) as slots:
        pids = slots.value(code(leave_behind))
        everybody = [*slots.host.pids().values(), slots.host.nursery_pid()]
    assert all(gone(pid) for pid in [*pids, *everybody])
    slots.host.close()  # idempotent


# ── payloads and code ────────────────────────────────────────────────────────────────────────────────────────────────


def test_fifty_megabytes_both_ways_while_others_run(slots: Slots) -> None:
    data = os.urandom(50 * 1024 * 1024)
    big = slots.submit(code(identity), dill.dumps(((data,), {})))
    assert slots.value(code(own_pid)) > 0
    assert dill.loads(slots.wait(big).result) == data


def test_code_is_loaded_once_per_slot(tmp_path: Path) -> None:
    def count(memo: list[int] = []) -> int:  # noqa: B006 - the state of the loaded function is the point
        memo.append(1)
        return len(memo)

    with Slots(1) as slots:
        payload = code(count)
        assert [slots.value(payload) for _ in range(5)] == [1, 2, 3, 4, 5]


def test_missing_code_is_asked_for_and_the_task_waits(slots: Slots) -> None:
    function_id = FunctionId("f")
    item = TaskItem(TaskId("t"), 1, function_id, call(8))
    assert slots.host.offer(Tasks((item,))) == [function_id]
    slots.turn()
    assert slots.host.running() == [("t", 1)]
    assert slots.host.offer(Tasks((), (FunctionItem(function_id, "identity", code(identity)),))) == []
    assert dill.loads(slots.wait((TaskId("t"), 1)).result) == 8


def test_more_functions_than_a_slot_keeps(monkeypatch: pytest.MonkeyPatch) -> None:
    from everfaas_core.worker import slot_state

    many = slot_state.FUNCTIONS_MAX + 20
    payloads = [dill.dumps(eval(f"lambda: {number}"), recurse=True) for number in range(many)]
    with Slots(1) as slots:
        for _ in range(2):
            keys = [slots.submit(payload) for payload in payloads]
            for number, key in enumerate(keys):
                assert dill.loads(slots.wait(key).result) == number


def test_slots_share_no_memory(slots: Slots) -> None:
    def mark(value: object) -> object:
        import builtins

        before = getattr(builtins, "everfaas_mark", None)
        builtins.everfaas_mark = value  # type: ignore[attr-defined]
        return before

    first = slots.submit(code(mark), call("one"))
    second = slots.submit(code(mark), call("two"))
    assert dill.loads(slots.wait(first).result) is None
    assert dill.loads(slots.wait(second).result) is None
    assert not hasattr(__builtins__, "everfaas_mark")


def test_slots_do_not_share_random_numbers(slots: Slots) -> None:
    def draw(wait: float) -> float:
        import random
        import time

        time.sleep(wait)
        return random.random()

    keys = [slots.submit(code(draw), call(0.2)) for _ in range(2)]
    assert len({dill.loads(slots.wait(key).result) for key in keys}) == 2


# ── what slots see of the worker ─────────────────────────────────────────────────────────────────────────────────────


def test_no_descriptor_of_the_worker_reaches_a_slot(slots: Slots) -> None:
    def descriptors() -> dict[int, str]:
        import os

        seen = {}
        for name in os.listdir("/proc/self/fd"):
            if os.path.exists(f"/proc/self/fd/{name}") or os.path.islink(f"/proc/self/fd/{name}"):
                seen[int(name)] = os.readlink(f"/proc/self/fd/{name}")
        return seen

    seen = slots.value(code(descriptors))
    assert seen.pop(0) == "/dev/null"
    # The slot's own connection, the pipe of its permissions, those of its output once more, and nothing else.
    output = {seen[1], seen[2]}
    assert len(output) == 2
    mine = [what for fd, what in seen.items() if fd > 2 and what not in output]
    assert sorted(what.partition(":")[0] for what in mine) == ["pipe", "socket"]
    assert sorted(what for fd, what in seen.items() if fd > 2 and what in output) == sorted(output)


def test_no_store_address_token_or_key_reaches_a_slot(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVERFAAS_STORE", "redis://:secret@host/0")
    monkeypatch.setenv("EVERFAAS_TOKEN", "secret")
    monkeypatch.setenv("REDISCLI_AUTH", "secret")
    monkeypatch.setenv("BACKEND", "rediss://user:secret@host/0")
    monkeypatch.setenv("EVERFAAS_WANTED", "kept")
    monkeypatch.setenv("HARMLESS", "kept")

    def environment() -> tuple[dict[str, str], str]:
        import os

        with open(f"/proc/{os.getppid()}/environ") as nursery, open("/proc/self/environ") as own:
            return dict(os.environ), own.read() + nursery.read()

    with Slots(1, keep_env=("EVERFAAS_WANTED",)) as slots:
        seen, raw = slots.value(code(environment))
    assert "secret" not in raw
    assert not any("secret" in value for value in seen.values())
    assert seen["EVERFAAS_WANTED"] == seen["HARMLESS"] == "kept"
    assert not set(seen) & {"EVERFAAS_STORE", "EVERFAAS_TOKEN", "REDISCLI_AUTH", "BACKEND"}


def test_the_scrubbing_rule() -> None:
    before = {"everfaas_x": "1", "PATH": "/bin", "VALKEY_URL": "x", "A": "unix:///tmp/s", "REDIS_HOST": "h"}
    assert scrubbed(before) == {"PATH": "/bin"}
    assert scrubbed(before, ["A"]) == {"PATH": "/bin", "A": "unix:///tmp/s"}


def test_standard_input_is_empty(slots: Slots) -> None:
    def read() -> str:
        import sys

        return sys.stdin.read()

    assert slots.value(code(read)) == ""


def test_slots_import_nothing_they_do_not_need(slots: Slots) -> None:
    def modules() -> list[str]:
        import sys

        return list(sys.modules)

    seen = {name.partition(".")[0] for name in slots.value(code(modules))}
    assert not seen & {"flask", "zmq", "redis", "rich", "click", "marshmallow", "pluggy", "waitress", "psutil"}
    assert "everfaas_plugins" not in seen


# ── the worker stops ─────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_silent_worker_is_fenced(slots: Slots, tmp_path: Path) -> None:
    slots.host.fence(2.0)
    started = tmp_path / "started"
    key = slots.submit(code(sleep_and_tell), call(str(started)))
    slots.until(started.exists)
    pids = list(slots.host.pids().values())
    deadline = time.monotonic() + 2.5
    while time.monotonic() < deadline:  # as long as it shows life, nothing happens
        slots.turn()
    assert not any(gone(pid) for pid in pids)
    wait_for(lambda: all(gone(pid) for pid in pids), "slots of a silent worker to die")
    assert slots.wait(key).cause is Cause.SLOT_CRASHED
    assert "showed no life" in (slots.outcomes[key].error or "")
    slots.until(lambda: slots.host.ready())


def test_nobody_wakes_for_the_fence_while_nothing_runs(slots: Slots, monkeypatch: pytest.MonkeyPatch) -> None:
    pulses: list[float | None] = []
    real = Nursery.pulse

    def pulse(nursery: Nursery, fence_s: float | None) -> None:
        pulses.append(fence_s)
        real(nursery, fence_s)

    monkeypatch.setattr(Nursery, "pulse", pulse)
    slots.host.fence(0.4)
    assert pulses == []
    assert slots.host.next_timer() is None
    time.sleep(0.5)  # longer than the fence: an idle slot outlives a silent worker
    pids = dict(slots.host.pids())
    slots.submit(code(nap_briefly))
    assert pulses == [0.4], "before it can have begun"
    slots.until(slots.host.idle)
    slots.until(lambda: pulses[-1] is None)
    assert len(pulses) > 2
    assert set(pulses[:-1]) == {0.4}
    assert slots.host.next_timer() is None
    assert slots.host.pids() == pids


def test_a_fence_that_comes_while_something_runs_stands_at_once(slots: Slots, tmp_path: Path) -> None:
    started = tmp_path / "started"
    key = slots.submit(code(sleep_and_tell), call(str(started)))
    slots.until(started.exists)
    slots.host.fence(0.4)
    pids = list(slots.host.pids().values())
    wait_for(lambda: any(gone(pid) for pid in pids), "slots of a silent worker to die")
    assert slots.wait(key).cause is Cause.SLOT_CRASHED


def test_draining_finishes_what_runs_and_gives_back_the_rest(slots: Slots) -> None:
    def nap() -> str:
        import time

        time.sleep(2)
        return "done"

    keys = [slots.submit(code(nap)) for _ in range(4)]
    slots.turn()
    slots.host.drain()
    slots.until(slots.host.idle, PATIENCE_S)
    assert [slots.outcomes[key].cause for key in keys] == [Cause.OK, Cause.OK, Cause.GIVEN_BACK, Cause.GIVEN_BACK]
