"""The Python client against a real system: futures, map, groups, cancelling, waiting without blocking."""

from __future__ import annotations

import asyncio
import concurrent.futures
import itertools
import threading
import time
import uuid
from collections.abc import Iterator

import pytest

from everfaas_core import ApiRefused, ApiUnreachable, AsyncClient, Client, ClientClosed, Function, function
from everfaas_core.model.errors import ConfigError

from .processes import System

# One mode will do for what the dispatcher does not see; test_client_modes.py has the others.
pytestmark = pytest.mark.parametrize(
    "system", [pytest.param("push", marks=pytest.mark.xdist_group("e2e-push"))], indirect=True
)


@pytest.fixture
def client(system: System) -> Iterator[Client]:
    with Client(system.url) as made:
        yield made


def square(x: int) -> int:
    return x * x


def nap(seconds: float) -> float:
    import time

    time.sleep(seconds)
    return seconds


def fail(x: int) -> None:
    raise LookupError(f"there is no {x}")


def name() -> str:
    return uuid.uuid4().hex


def busy(client: Client) -> int:
    return sum(worker["busy"] for worker in client.api.get("/v1/workers")["workers"])


def eventually(check: object, within_s: float = 20.0) -> None:
    deadline = time.monotonic() + within_s
    while not check():  # type: ignore[operator]  # a function
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_call(client: Client) -> None:
    future = client.submit(pow, 2, exp=10)
    assert isinstance(future, concurrent.futures.Future)
    assert future.result(30) == 1024
    assert future.exception() is None
    record = client.api.get(f"/v1/tasks/{future.task_id}")
    assert (record["status"], record["function_name"]) == ("COMPLETED", "pow")


def test_what_a_call_raises_is_raised_here_with_its_traceback(client: Client) -> None:
    future = client.submit(fail, 7)
    with pytest.raises(LookupError, match="there is no 7") as caught:
        future.result(30)
    assert "in fail" in caught.value.__notes__[0]
    assert isinstance(future.exception(), LookupError)


def test_many_calls_at_once(client: Client) -> None:
    futures = [client.submit(square, n) for n in range(500)]
    assert [future.result(60) for future in futures] == [n * n for n in range(500)]
    assert len({future.task_id for future in futures}) == 500


@pytest.mark.parametrize("chunksize", [1, 7])
def test_map_gives_results_in_order(client: Client, chunksize: int) -> None:
    results = client.map(square, range(2_000), chunksize=chunksize)
    assert list(results) == [n * n for n in range(2_000)]


def test_map_as_the_builtin_one(client: Client) -> None:
    assert list(client.map(pow, range(5), [2, 3, 4])) == [0, 1, 16]
    assert list(client.map(square, [])) == []
    assert set(client.map(square, range(100), ordered=False)) == {n * n for n in range(100)}


def test_map_of_an_input_without_end_is_bounded(client: Client) -> None:
    taken = itertools.count()
    results = client.map(square, (next(taken) for _ in itertools.repeat(None)), buffersize=50)
    assert list(itertools.islice(results, 200)) == [n * n for n in range(200)]
    assert next(taken) <= 260
    results.close()  # type: ignore[attr-defined]  # it is a generator


@pytest.mark.parametrize("chunksize", [1, 3])
def test_map_raises_where_the_call_stands(client: Client, chunksize: int) -> None:
    def picky(x: int) -> int:
        if x == 4:
            raise LookupError(x)
        return x

    results = client.map(picky, range(8), chunksize=chunksize)
    assert [next(results) for _ in range(4)] == [0, 1, 2, 3]
    with pytest.raises(LookupError) as caught:
        next(results)
    assert "in picky" in "".join(caught.value.__notes__)
    assert list(results) == []
    given = list(client.map(picky, range(6), chunksize=chunksize, return_exceptions=True))
    assert [value for value in given if not isinstance(value, LookupError)] == [0, 1, 2, 3, 5]


def test_map_that_is_left_cancels_the_rest(client: Client) -> None:
    results = client.map(nap, [0.0, 60, 60, 60, 60, 60, 60])
    assert next(results) == 0.0
    results.close()  # type: ignore[attr-defined]  # it is a generator
    eventually(lambda: client.api.get("/v1/tasks", {"status": "RUNNING", "limit": 1})["tasks"] == [])
    assert client.api.get("/v1/tasks", {"status": "QUEUED", "limit": 1})["tasks"] == []


def test_map_times_out(client: Client) -> None:
    began = time.monotonic()
    with pytest.raises(TimeoutError):
        list(client.map(nap, [0.0, 60], timeout=0.5))
    assert time.monotonic() - began < 10
    with pytest.raises(TimeoutError):
        list(client.map(nap, [60.0], timeout=0.2, ordered=False))
    for wrong in ({"chunksize": 0}, {"buffersize": 0}):
        with pytest.raises(ValueError, match="size must be"):
            client.map(square, [1], **wrong)  # type: ignore[arg-type]  # on purpose


def test_a_running_call_is_cancelled_for_real(client: Client) -> None:
    future = client.submit(nap, 60)
    eventually(future.running)
    began = time.monotonic()
    assert future.cancel()
    assert time.monotonic() - began < 10
    assert future.cancelled()
    assert future.done()
    assert not future.running()
    with pytest.raises(concurrent.futures.CancelledError):
        future.result(0)
    assert client.api.get(f"/status/{future.task_id}")["status"] == "CANCELLED"
    assert future.cancel()  # again changes nothing
    ended = client.submit(square, 2)
    assert ended.result(30) == 4
    assert not ended.cancel()


def test_many_are_cancelled_at_once(client: Client) -> None:
    futures = [client.submit(nap, 60) for _ in range(40)]
    client.cancel(futures)
    done, not_done = concurrent.futures.wait(futures, timeout=30)
    assert (len(done), len(not_done)) == (40, 0)
    assert all(future.cancelled() for future in futures)


def test_waiting_for_several(client: Client) -> None:
    futures = [client.submit(nap, seconds) for seconds in (0.6, 0.01, 0.3)]
    assert [future.result() for future in concurrent.futures.as_completed(futures, 30)] == [0.01, 0.3, 0.6]
    told: list[object] = []
    future = client.submit(square, 3)
    future.add_done_callback(told.append)
    assert future.result(30) == 9
    eventually(lambda: told == [future])


def test_a_timeout_of_who_waits_leaves_the_task(client: Client) -> None:
    future = client.submit(nap, 0.5)
    with pytest.raises(TimeoutError):
        future.result(0.01)
    assert future.result(30) == 0.5


def test_options_of_calls(client: Client) -> None:
    group = name()
    tuned = client.options(timeout_s=20, priority=9, group=group, tags=("a",))
    future = tuned.options(name="renamed", max_attempts=7).submit(square, 3)
    assert future.result(30) == 9
    record = client.api.get(f"/v1/tasks/{future.task_id}")
    wanted = {
        "timeout_s": 20,
        "priority": 9,
        "group": group,
        "tags": ["a"],
        "function_name": "renamed",
        "max_attempts": 7,
    }
    assert {key: record[key] for key in wanted} == wanted
    with pytest.raises(TypeError, match="did you mean timeout_s"):
        client.options(timeout=3)  # type: ignore[call-arg]  # on purpose
    with pytest.raises(TypeError, match="sequence of texts"):
        client.options(tags="a")  # type: ignore[arg-type]  # on purpose
    with pytest.raises(ApiRefused, match="priority") as caught:
        client.options(priority=10).submit(square, 1).result(30)
    assert caught.value.status == 422


def test_a_deadline_is_an_error_that_can_be_caught(client: Client) -> None:
    with pytest.raises(RuntimeError, match="exceeded deadline") as caught:
        client.options(timeout_s=0.3).submit(nap, 60).result(30)
    assert str(caught.value).startswith("WorkerFailure")


def test_a_key_stands_for_one_task(client: Client) -> None:
    once = client.options(idempotency_key=name())
    first, second = once.submit(square, 5), once.submit(square, 5)
    assert (first.result(30), second.result(30)) == (25, 25)
    assert first.task_id == second.task_id


def test_a_bad_call_does_not_spoil_its_neighbours(client: Client) -> None:
    key = name()
    futures = [client.submit(square, n) for n in range(50)]
    client.options(idempotency_key=key).submit(square, 1).result(30)
    odd = client.options(idempotency_key=key).submit(square, 2)  # the same key for another call
    futures += [client.submit(square, n) for n in range(50, 100)]
    assert [future.result(30) for future in futures] == [n * n for n in range(100)]
    with pytest.raises(ApiRefused, match="key"):
        odd.result(30)
    with pytest.raises(ApiRefused):
        odd.task_id  # noqa: B018 - reading it raises


def test_a_decorated_function(system: System, client: Client) -> None:
    @function(client=client, timeout_s=30, name="thumb")
    def thumb(x: int) -> int:
        """Make it small."""
        return x // 2

    assert isinstance(thumb, Function)
    assert (thumb.__name__, thumb.__doc__) == ("thumb", "Make it small.")
    assert thumb(9) == 4
    future = thumb.submit(9)
    assert future.result(30) == 4
    assert client.api.get(f"/v1/tasks/{future.task_id}")["timeout_s"] == 30
    assert list(thumb.map(range(6))) == [0, 0, 1, 1, 2, 2]
    assert list(thumb.options(priority=9).map(range(4), chunksize=2)) == [0, 0, 1, 1]
    with pytest.raises(TypeError, match="no option"):
        function(timeout=3)  # type: ignore[call-overload]  # on purpose


def test_others_attach_to_a_group(system: System, client: Client) -> None:
    group = name()
    client.options(group=group).map(square, range(30))  # and never asked for
    client.options(group=group).submit(fail, 3)
    assert client.flush(30)
    with Client(system.url) as other:
        found = list(other.attach(group))
        assert len(found) == len({task.task_id for task in found}) == 31
        assert {task.number: task.result() for task in found if task.number is not None} == {
            n: n * n for n in range(30)
        }
        (failed,) = [task for task in found if task.number is None]
        with pytest.raises(LookupError):
            failed.result()
        half = list(other.attach(group).results(cursor=found[14].cursor))
        assert [task.task_id for task in half] == [task.task_id for task in found[15:]]
        assert list(other.attach(group).in_order()) == [n * n for n in range(30)]
        assert {record["task_id"] for record in other.attach(group).records()} == {task.task_id for task in found}


def test_chunks_of_a_group_come_in_order(client: Client) -> None:
    group = name()
    assert list(client.options(group=group).map(square, range(10), chunksize=4)) == [n * n for n in range(10)]
    assert list(client.attach(group).in_order()) == [n * n for n in range(10)]


def test_a_group_is_cancelled(client: Client) -> None:
    group = name()
    futures = [client.options(group=group).submit(nap, 60) for _ in range(12)]
    assert [future.task_id for future in futures]  # all are accepted
    assert client.attach(group).cancel() == 12
    assert len(concurrent.futures.wait(futures, timeout=30).done) == 12
    assert client.attach(group).cancel() == 0


def test_awaiting(system: System) -> None:
    async def main() -> None:
        async with AsyncClient(system.url) as client:
            assert await client.call(pow, 2, 11) == 2048
            assert [value async for value in client.map(square, range(20))] == [n * n for n in range(20)]
            futures = [await client.submit(nap, 0.2) for _ in range(4)]
            ticks = 0
            gathered = asyncio.gather(*futures)
            while not gathered.done():
                await asyncio.sleep(0.01)
                ticks += 1
            assert await gathered == [0.2] * 4
            assert ticks > 3  # the loop went on
            with pytest.raises(LookupError):
                await client.options(priority=9).call(fail, 1)
            future = await client.submit(nap, 60)
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.3):
                    await future
            await asyncio.to_thread(concurrent.futures.wait, [future], 30)
            assert future.cancelled()

    asyncio.run(main())


def test_a_closed_client_says_so_and_leaves_no_thread(system: System) -> None:
    before = set(threading.enumerate())
    client = Client(system.url)
    futures = [client.submit(square, n) for n in range(20)]
    assert [future.result(30) for future in futures]
    client.close()
    client.close()
    with pytest.raises(ClientClosed, match="closed"):
        client.submit(square, 1)
    eventually(lambda: not set(threading.enumerate()) - before)


def test_nobody_at_the_address(system: System) -> None:
    with Client("http://127.0.0.1:9", patience_s=0.5) as client, pytest.raises(ApiUnreachable, match="everfaas up"):
        client.submit(square, 1)
    for wrong in ("127.0.0.1:8000", "ftp://x", "http://", "http://[::1"):
        with pytest.raises(ConfigError, match="is not the API's address"):
            Client(wrong)
