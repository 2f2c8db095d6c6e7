"""The Executor is what a program expects of `concurrent.futures`, on a real system; and where it is more than that."""

from __future__ import annotations

import concurrent.futures
import gc
import itertools
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ALL_COMPLETED, FIRST_COMPLETED, FIRST_EXCEPTION
from pathlib import Path
from typing import Any

import pytest

from everfaas_core import Client, ClientClosed, Executor
from tests.unit.system import until

from .processes import clean_env

pytestmark = pytest.mark.xdist_group("e2e-fleet")

LONG_S = 60  # of what is cancelled, or must not be waited for


def square(x: int) -> int:
    return x * x


def inverse(x: float) -> float:
    return 1 / x


def nap(seconds: float, value: Any = None) -> Any:
    time.sleep(seconds)
    return value


def touch(path: str) -> str:
    Path(path).touch()
    return path


@pytest.fixture(scope="module")
def client(fleet: str) -> Iterator[Client]:
    with Client(fleet) as client:
        yield client


@pytest.fixture
def pool(client: Client) -> Iterator[Executor]:
    with Executor(client=client) as pool:
        yield pool


def states(client: Client, group: str) -> set[str]:
    return {record["status"] for record in client.attach(group).records()}


# ── futures ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_as_completed_gives_what_ends_first(pool: Executor) -> None:
    slow, quick = pool.submit(nap, 1.5, "slow"), pool.submit(nap, 0, "quick")
    assert [future.result() for future in concurrent.futures.as_completed([slow, quick])] == ["quick", "slow"]


def test_as_completed_runs_out_of_time(pool: Executor) -> None:
    slow = pool.submit(nap, LONG_S)
    with pytest.raises(TimeoutError):
        list(concurrent.futures.as_completed([slow], timeout=0.1))
    assert slow.cancel()


@pytest.mark.parametrize(
    ("return_when", "call", "ended"),
    [(FIRST_COMPLETED, (square, 3), 1), (FIRST_EXCEPTION, (inverse, 0), 1), (ALL_COMPLETED, (square, 3), 2)],
)
def test_wait_returns_when_it_should(pool: Executor, return_when: str, call: Any, ended: int) -> None:
    long = pool.submit(nap, LONG_S if ended == 1 else 0.2)
    short = pool.submit(*call)
    done, left = concurrent.futures.wait([short, long], timeout=LONG_S / 2, return_when=return_when)
    assert (len(done), len(left)) == (ended, 2 - ended)
    assert short in done
    for future in left:
        assert future.cancel()


def test_what_a_call_raises_is_raised_here_with_its_remote_traceback(pool: Executor) -> None:
    future = pool.submit(inverse, 0)
    with pytest.raises(ZeroDivisionError) as caught:
        future.result()
    assert "in inverse" in "".join(caught.value.__notes__)
    assert future.exception() is caught.value
    assert "raised ZeroDivisionError" in repr(future)


def test_a_call_that_is_cancelled_while_it_runs_ends(client: Client, pool: Executor) -> None:
    future = pool.submit(nap, LONG_S)
    until(future.running)
    told: list[Any] = []
    future.add_done_callback(told.append)
    assert future.cancel()
    assert future.cancelled()
    assert not future.running()
    assert told == [future]
    with pytest.raises(concurrent.futures.CancelledError):
        future.result()
    assert client.api.get(f"/v1/tasks/{future.task_id}")["status"] == "CANCELLED"
    assert pool.submit(square, 3).result(LONG_S / 2) == 9


def test_what_has_ended_is_not_cancelled(pool: Executor) -> None:
    future = pool.submit(square, 2)
    assert future.result() == 4
    assert not future.cancel()
    assert not future.cancelled()
    assert "returned int" in repr(future)


def test_callbacks_are_called_once_with_the_future_also_when_it_has_ended(pool: Executor) -> None:
    told: list[Any] = []
    future = pool.submit(square, 2)
    future.add_done_callback(told.append)
    future.result()
    until(lambda: told)
    future.add_done_callback(told.append)
    assert told == [future, future]


# ── map ──────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("chunksize", [1, 3, 100])
def test_map_gives_results_in_order(pool: Executor, chunksize: int) -> None:
    assert list(pool.map(pow, range(20), itertools.repeat(2), chunksize=chunksize)) == [n**2 for n in range(20)]


@pytest.mark.parametrize("chunksize", [1, 2, 10])
def test_map_raises_in_the_place_of_the_result(pool: Executor, chunksize: int) -> None:
    results = pool.map(inverse, [1, 2, 4, 0, 8], chunksize=chunksize)
    assert [next(results) for _ in range(3)] == [1, 0.5, 0.25]
    with pytest.raises(ZeroDivisionError):
        next(results)
    with pytest.raises(StopIteration):
        next(results)


def test_map_begins_before_anybody_asks_for_results(pool: Executor, tmp_path: Path) -> None:
    paths = [tmp_path / str(n) for n in range(10)]
    results = pool.map(touch, map(str, paths))
    until(lambda: all(path.exists() for path in paths))
    assert list(results) == list(map(str, paths))


def test_map_with_a_buffer_takes_inputs_as_results_are_taken(pool: Executor) -> None:
    inputs = itertools.count()
    results = pool.map(square, inputs, buffersize=4)
    assert next(inputs) == 4  # it has taken 0 to 3; we, one
    assert [next(results) for _ in range(4)] == [0, 1, 4, 9]
    assert next(results) == 25
    assert next(inputs) <= 10


@pytest.mark.parametrize(
    ("wrong", "error"),
    [({"chunksize": 0}, ValueError), ({"buffersize": 0}, ValueError), ({"buffersize": 2.5}, TypeError)],
)
def test_map_refuses_what_makes_no_sense(pool: Executor, wrong: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error, match=next(iter(wrong))):
        pool.map(square, range(3), **wrong)


def test_map_runs_out_of_time_and_cancels_what_is_left(client: Client) -> None:
    group = f"late-{time.monotonic_ns()}"
    with Executor(client=client, group=group) as pool:
        results = pool.map(nap, [0, LONG_S, LONG_S], timeout=1.0)
        assert next(results) is None
        with pytest.raises(TimeoutError):
            next(results)
    assert states(client, group) == {"COMPLETED", "CANCELLED"}


def test_results_that_nobody_wants_are_cancelled(client: Client) -> None:
    group = f"unwanted-{time.monotonic_ns()}"
    with Executor(client=client, group=group) as pool:
        for result in pool.map(nap, [0, LONG_S, LONG_S], ["first", None, None]):
            assert result == "first"
            break
        gc.collect()
    assert states(client, group) == {"COMPLETED", "CANCELLED"}


# ── shutdown ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_context_waits_for_its_calls_and_takes_no_more(client: Client) -> None:
    with Executor(client=client) as pool:
        futures = [pool.submit(nap, 0.3, n) for n in range(3)]
        results = pool.map(square, range(3))
    assert [future.done() for future in futures] == [True] * 3
    assert list(results) == [0, 1, 4]
    for late in (lambda: pool.submit(square, 1), lambda: pool.map(square, [1])):
        with pytest.raises(ClientClosed, match="cannot schedule new futures after shutdown") as caught:
            late()
        assert isinstance(caught.value, RuntimeError)  # as `concurrent.futures` raises


def test_shutdown_that_does_not_wait_returns_and_results_still_come(fleet: str) -> None:
    pool = Executor(fleet)
    future = pool.submit(nap, 0.5, "done")
    began = time.monotonic()
    pool.shutdown(wait=False)
    assert not future.done() or time.monotonic() - began >= 0.5
    assert future.result(LONG_S / 2) == "done"


def test_shutdown_cancels_what_has_not_begun(client: Client) -> None:
    pool = Executor(client=client)
    first = pool.submit(nap, 1.0, "first")
    until(first.running)
    others = [pool.submit(nap, 0.1) for _ in range(60)]
    pool.shutdown(cancel_futures=True)
    assert first.result(0) == "first"
    assert all(future.done() for future in others)
    assert sum(future.cancelled() for future in others) > 30  # four slots have a second


def test_shutdown_ends_the_threads_of_a_client_of_its_own(fleet: str) -> None:
    before = set(threading.enumerate())
    with Executor(fleet) as pool:
        assert list(pool.map(square, range(20))) == [n * n for n in range(20)]
        assert set(threading.enumerate()) - before
    until(lambda: not set(threading.enumerate()) - before, wait_s=3)  # by themselves they end after five
    pool.shutdown()


def test_an_executor_that_nobody_holds_still_brings_its_results(fleet: str) -> None:
    futures = [Executor(fleet).submit(nap, 0.1, n) for n in range(3)]
    gc.collect()
    assert [future.result(LONG_S / 2) for future in futures] == [0, 1, 2]


def test_an_executor_on_a_client_leaves_it_open_and_passes_its_options_on(client: Client) -> None:
    with Executor(client=client, priority=7, tags=("mine",)) as pool:
        future = pool.submit(square, 3)
    record = client.api.get(f"/v1/tasks/{future.task_id}")
    assert (record["priority"], record["tags"]) == (7, ["mine"])
    assert client.submit(square, 4).result() == 16


def test_an_executor_needs_one_place_to_work_at(client: Client) -> None:
    with pytest.raises(ValueError, match="an address or a client"):
        Executor("http://127.0.0.1:1", client=client)
    with pytest.raises(TypeError, match="there is no option 'prioritY': did you mean priority"):
        Executor(client=client, prioritY=4)


def test_an_executor_does_not_size_the_fleet() -> None:
    with pytest.raises(TypeError, match="no initializer and no max_workers here: the processes are the fleet's slots"):
        Executor(max_workers=4, initializer=print)
    with pytest.raises(TypeError, match="the first argument is the API's address"):
        Executor(4)


@pytest.mark.parametrize("goodbye", ["", "pool.shutdown(wait=False)"])
def test_a_program_that_ends_early_has_sent_its_calls(fleet: str, tmp_path: Path, goodbye: str) -> None:
    script = f"""
from everfaas_core import Executor
from tests.e2e.test_executor import touch
pool = Executor({fleet!r})
for name in "abc":
    pool.submit(touch, {str(tmp_path)!r} + "/" + name)
{goodbye}
"""
    done = program(script, tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    until(lambda: sorted(path.name for path in tmp_path.glob("?")) == ["a", "b", "c"])


def test_a_call_at_the_very_end_of_a_program_does_not_hang(fleet: str, tmp_path: Path) -> None:
    script = f"""
import atexit

@atexit.register
def last():
    try:
        pool.submit(pow, 2, 3)
    except RuntimeError as error:
        print("RuntimeError")

from everfaas_core import Executor
pool = Executor({fleet!r})
print(pool.submit(pow, 2, 4).result())
"""
    done = program(script, tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "16\nRuntimeError\n"


def program(script: str, home: Path) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "-c", script]
    return subprocess.run(words, env=clean_env(home), capture_output=True, text=True, timeout=LONG_S)
