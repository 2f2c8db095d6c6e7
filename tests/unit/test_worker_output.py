"""What functions print, in real slots: all of it is heard, in time, and said to be of the task that printed it."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dill
import pytest

from everfaas_core.model.output import OUTPUT_BYTES_MAX, Stream
from everfaas_core.model.states import Cause
from everfaas_core.wire.messages import Held
from tests.unit.worker_kit import Slots, call

OUT, ERR = Stream.STDOUT, Stream.STDERR


@pytest.fixture(scope="module")
def shared() -> Iterator[Slots]:
    with Slots(1) as started:
        yield started


@pytest.fixture
def slots(shared: Slots) -> Slots:
    shared.until(shared.host.ready)
    return shared


def code(function: Callable[..., Any]) -> bytes:
    payload: bytes = dill.dumps(function, recurse=True, byref=False)
    return payload


def run(slots: Slots, function: Callable[..., Any], *args: Any) -> Held:
    """Run one task that has to succeed."""
    key = slots.submit(code(function), call(*args))
    outcome = slots.wait(key)
    assert outcome.cause is Cause.OK, outcome.error
    return key


def say(text: str) -> None:
    print(text)


def assert_well(slots: Slots) -> None:
    """Insist that a slot goes on as if nothing had been."""
    assert slots.log(run(slots, say, "as before")) == b"as before\n"


# ── every way to print ───────────────────────────────────────────────────────────────────────────────────────────────


def test_python_c_and_children_are_heard(slots: Slots) -> None:
    def talk() -> None:
        import ctypes
        import os
        import subprocess
        import sys

        print("python")
        print("python's stderr", file=sys.stderr)
        os.write(1, b"a descriptor\n")
        subprocess.run(["/bin/sh", "-c", "echo a child; echo its stderr >&2"], check=True)
        libc = ctypes.CDLL(None)
        libc.puts(b"C")
        libc.fflush(None)
        sys.stdout.buffer.write(b"bytes \xff\n")
        sys.stdout.write("no newline, ä")

    key = run(slots, talk)
    assert slots.log(key, OUT) == b"python\na descriptor\na child\nC\n" + b"bytes \xff\n" + "no newline, ä".encode()
    assert slots.log(key, ERR) == b"python's stderr\nits stderr\n"


def test_forks_pools_and_threads_are_heard(slots: Slots) -> None:
    def shout(n: int) -> None:
        print("from a pool", n, flush=True)

    def talk(shout: Callable[[int], None]) -> None:
        import multiprocessing
        import os
        import threading

        thread = threading.Thread(target=lambda: print("from a thread"))
        thread.start()
        thread.join()
        pid = os.fork()
        if pid == 0:
            print("from a fork", flush=True)
            os._exit(0)
        os.waitpid(pid, 0)
        process = multiprocessing.get_context("fork").Process(target=shout, args=(1,))
        process.start()
        process.join()

    assert slots.log(run(slots, talk, shout), OUT) == b"from a thread\nfrom a fork\nfrom a pool 1\n"


def test_a_copy_that_a_task_forked_and_did_not_end_is_heard_and_answers_nothing(slots: Slots) -> None:
    def stray() -> int:
        import os

        pid = os.fork()
        if pid == 0:
            print("stray")
            return 1
        os.waitpid(pid, 0)
        return 2

    key = run(slots, stray)
    assert slots.log(key) == b"stray\n"
    assert_well(slots)


def test_a_redirected_stdout_is_the_functions_own(slots: Slots) -> None:
    def redirect() -> str:
        import contextlib
        import io

        buffer = io.StringIO()
        with contextlib.redirect_stdout(buffer):
            print("for me")
        print("for all")
        return buffer.getvalue()

    key = slots.submit(code(redirect))
    assert dill.loads(slots.wait(key).result) == "for me\n"
    assert slots.log(key) == b"for all\n"


def test_text_that_no_encoding_has_is_printed(slots: Slots) -> None:
    assert slots.log(run(slots, say, "\udcff ☃")) == "\\udcff ☃\n".encode()


# ── live, and to the last word ───────────────────────────────────────────────────────────────────────────────────────


def test_a_line_is_heard_while_the_function_goes_on(slots: Slots, tmp_path: Path) -> None:
    def talk_and_wait(file: str) -> None:
        import os
        import time

        print("begun")
        while not os.path.exists(file):
            time.sleep(0.01)
        print("ended")

    go = tmp_path / "go"
    key = slots.submit(code(talk_and_wait), call(str(go)))
    slots.until(lambda: slots.log(key) == b"begun\n")
    assert key not in slots.outcomes
    go.touch()
    slots.wait(key)
    assert slots.log(key) == b"begun\nended\n"


def test_a_child_is_heard_while_it_goes_on(slots: Slots, tmp_path: Path) -> None:
    """It came past all that the slot sees, so the worker has to know who runs."""

    def child(file: str) -> None:
        import subprocess

        subprocess.run(["/bin/sh", "-c", f"echo begun; until [ -e {file} ]; do sleep 0.01; done"], check=True)

    go = tmp_path / "go"
    run(slots, say, "another task before")
    key = slots.submit(code(child), call(str(go)))
    slots.until(lambda: slots.log(key) == b"begun\n")
    assert key not in slots.outcomes
    go.touch()
    slots.wait(key)


def test_the_last_words_of_a_crash(slots: Slots) -> None:
    def leave() -> None:
        import os
        import sys

        print("out")
        print("err", file=sys.stderr)
        os._exit(3)

    def segfault() -> None:
        import ctypes

        print("before")
        ctypes.string_at(0)

    key = slots.submit(code(leave))
    assert slots.wait(key).cause is Cause.SLOT_CRASHED
    assert (slots.log(key, OUT), slots.log(key, ERR)) == (b"out\n", b"err\n")
    key = slots.submit(code(segfault))
    assert slots.wait(key).cause is Cause.SLOT_CRASHED
    assert slots.log(key, OUT) == b"before\n"
    assert b"Segmentation fault" in slots.log(key, ERR)
    assert b"in segfault" in slots.log(key, ERR)


def test_what_was_printed_before_a_kill(slots: Slots) -> None:
    def loop() -> None:
        print("begun")
        while True:
            pass

    late = slots.submit(code(loop), timeout_s=0.5)
    assert slots.wait(late).cause is Cause.DEADLINE
    assert slots.log(late) == b"begun\n"
    cancelled = slots.submit(code(loop))
    slots.until(lambda: slots.log(cancelled))
    slots.host.kill([cancelled])
    assert slots.wait(cancelled).cause is Cause.CANCELLED
    assert slots.log(cancelled) == b"begun\n"


# ── whose it is ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_quick_tasks_that_travel_together_keep_their_own(slots: Slots) -> None:
    def talk(n: int) -> None:
        import os
        import sys

        if n % 3 == 0:
            print(n)
        elif n % 3 == 1:
            os.write(1, b"%d\n" % n)
            print(n, file=sys.stderr)

    slots.learn(code(talk), call(2))
    items = slots.submit_all(code(talk), [call(n) for n in range(600)])
    slots.settle(items)
    for n, item in enumerate(items):
        logs = [
            (slots.log((item.task_id, attempt), OUT), slots.log((item.task_id, attempt), ERR)) for attempt in (1, 2, 3)
        ]
        number = b"%d\n" % n
        said = [(number, b""), (number, number), (b"", b"")][n % 3]
        assert [log for log in logs if log != (b"", b"")] == ([said] if n % 3 < 2 else [])


def test_who_prints_after_the_end_is_not_taken_for_the_next_one(slots: Slots, tmp_path: Path) -> None:
    def leave_somebody(file: str) -> None:
        import subprocess

        print("mine")
        subprocess.Popen(
            ["/bin/sh", "-c", f"until [ -e {file} ]; do sleep 0.01; done; echo late; touch {file}.done"],
        )

    go = tmp_path / "go"
    first = run(slots, leave_somebody, str(go))
    go.touch()
    slots.until(Path(f"{go}.done").exists)
    second = run(slots, say, "next")
    assert (slots.log(first), slots.log(second)) == (b"mine\n", b"next\n")
    assert b"late" not in b"".join(one.text for one in slots.printed)


def test_pieces_say_where_they_stand(slots: Slots) -> None:
    def talk() -> None:
        import sys
        import time

        for n in range(3):
            print("out", n)
            print("err", n, file=sys.stderr)
            time.sleep(0.15)

    key = run(slots, talk)
    mine = [one for one in slots.printed if (one.task_id, one.attempt) == key]
    assert len(mine) > 2
    assert [one.start for one in mine] == [0, *[one.end for one in mine][:-1]]


# ── what functions do to their streams ───────────────────────────────────────────────────────────────────────────────


def close_python() -> None:
    import sys

    print("closing")
    sys.stdout.close()
    sys.stderr.close()


def close_descriptors() -> None:
    import os

    print("closing")
    os.close(1)
    os.close(2)


def replace_python() -> None:
    import io
    import sys

    print("closing")
    sys.stdout = sys.stderr = io.StringIO()


def replace_descriptors() -> None:
    import os

    print("closing")
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.dup2(null, 2)
    os.close(null)


def delete_python() -> None:
    import sys

    print("closing")
    sys.stdout = sys.stderr = None


def break_blocking() -> None:
    import os

    print("closing")
    os.set_blocking(1, False)


def raise_on_flush() -> None:
    import sys

    class Broken:
        def write(self, text: str) -> int:
            raise OSError("broken")

        def flush(self) -> None:
            raise KeyboardInterrupt

    print("closing")
    sys.stdout = Broken()  # type: ignore[assignment]  # on purpose


@pytest.mark.parametrize(
    "vandal",
    [
        close_python, close_descriptors, replace_python, replace_descriptors, delete_python, break_blocking,
        raise_on_flush,
    ],
)  # fmt: skip
def test_the_next_task_prints_whatever_the_last_one_did(slots: Slots, vandal: Callable[[], None]) -> None:
    pids = slots.host.pids()
    assert slots.log(run(slots, vandal), OUT) == b"closing\n"
    assert_well(slots)
    assert slots.host.pids() == pids


# ── too much ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_flood_is_bounded_does_not_stall_and_keeps_its_end(slots: Slots) -> None:
    def flood() -> None:
        import os

        line = b"x" * 1023 + b"\n"
        for _ in range(64):
            os.write(1, line * 64)
        print("the end")

    key = run(slots, flood)
    pieces = [one for one in slots.printed if (one.task_id, one.attempt) == key]
    assert pieces[-1].end == 64 * 64 * 1024 + 8
    assert slots.log(key).endswith(b"x\nthe end\n")
    assert_well(slots)


def test_while_nobody_listens_the_newest_is_kept() -> None:
    def flood(n: int) -> None:
        import os

        for _ in range(40):
            os.write(1, b"x" * 65536)
        print("end", n)

    with Slots(1) as slots:
        taken = slots.host.said
        slots.host.said = lambda now: None  # type: ignore[method-assign]  # no dispatcher
        keys = [run(slots, flood, n) for n in range(3)]
        slots.host.said = taken  # type: ignore[method-assign]
        slots.turn()
    for n, key in enumerate(keys):
        log = slots.log(key)
        assert OUTPUT_BYTES_MAX - 200_000 < len(log) <= OUTPUT_BYTES_MAX
        assert log.endswith(b"end %d\n" % n)


def test_one_that_floods_does_not_starve_others(tmp_path: Path) -> None:
    def flood(file: str) -> None:
        import os

        while not os.path.exists(file):
            os.write(1, b"x" * 65536)

    with Slots(2) as slots:
        go = tmp_path / "go"
        loud = slots.submit(code(flood), call(str(go)))
        slots.until(lambda: slots.log(loud))
        for n in range(20):
            assert slots.log(run(slots, say, str(n))) == b"%d\n" % n
        assert loud not in slots.outcomes
        go.touch()
        assert slots.wait(loud).cause is Cause.OK


# ── progress ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_progress_is_told_now_and_then_and_at_the_end(slots: Slots) -> None:
    def work() -> None:
        import time

        from everfaas_core.inside import progress

        for n in range(400):
            progress(n, 400, f"step {n}")
            time.sleep(0.001)
        progress(400, 400, "all")

    began = time.monotonic()
    key = run(slots, work)
    took_s = time.monotonic() - began
    told = [one for one in slots.progress if (one.task_id, one.attempt) == key]
    steps = [one.done for one in told]
    assert steps == sorted(set(steps))
    assert {(one.total, one.message) for one in told[:-1]} == {(400, f"step {one.done}") for one in told[:-1]}
    assert (told[-1].done, told[-1].message) == (400, "all")
    assert 2 <= len(told) <= took_s * 10 + 3  # this process may be held up, and then hears the latest only
    assert slots.log(key) == b""


def test_progress_of_threads_and_forks_is_told(slots: Slots) -> None:
    def work() -> None:
        import os
        import threading
        import time

        from everfaas_core.inside import progress

        thread = threading.Thread(target=progress, args=(1,))
        thread.start()
        thread.join()
        time.sleep(0.2)
        pid = os.fork()
        if pid == 0:
            progress(2, 3, "from a fork")
            os._exit(0)
        os.waitpid(pid, 0)

    key = run(slots, work)
    told = [one for one in slots.progress if (one.task_id, one.attempt) == key]
    assert [(one.done, one.message) for one in told] == [(1, ""), (2, "from a fork")]


def test_progress_that_is_none_raises_in_the_function(slots: Slots) -> None:
    def work() -> list[str]:
        from everfaas_core.inside import progress

        said = []
        for done in ("x", None, float("nan"), float("inf")):
            try:
                progress(done)  # type: ignore[arg-type]  # on purpose
            except (TypeError, ValueError) as error:
                said.append(str(error))
        return said

    assert dill.loads(slots.wait(slots.submit(code(work))).result) == [
        "done has to be a number, not str",
        "done has to be a number, not NoneType",
        "done has to be a finite number, not nan",
        "done has to be a finite number, not inf",
    ]


# ── the worker's own log ─────────────────────────────────────────────────────────────────────────────────────────────


def test_the_terminal_of_a_worker_shows_it_at_level_debug_only(
    capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    with Slots(1) as slots:
        run(slots, say, "quiet")
        assert "quiet" not in caplog.text
        with caplog.at_level(logging.DEBUG, "test.worker"):
            key = run(slots, say, "loud")
        assert f"task {key[0]}, attempt 1, stdout: loud" in caplog.text
    seen = capfd.readouterr()
    assert "quiet" not in seen.out + seen.err


def test_what_keeps_a_slot_from_its_start_is_told_to_the_operator(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import faulthandler\ndef fail(*args):\n    raise RuntimeError('no slot today')\nfaulthandler.enable = fail\n"
    )
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    slots = Slots(1)
    slots.host.start(slots.poller)
    try:
        slots.until(lambda: "no slot today" in caplog.text)
    finally:
        slots.host.close()
        slots.poller.close()
