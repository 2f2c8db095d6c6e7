"""What every dispatch mode must do: run real functions in real slots, and keep the promise.

class TestMine(ModeContract):
    @pytest.fixture
    def parts(self): return Parts(my_mode, my_strategy, my_transport)
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

import pytest

from everfaas_core.hookspecs import Mode, StrategyProvider, Transport
from everfaas_core.model.output import Stream
from everfaas_core.model.states import Cause, Status
from everfaas_core.ports import Store
from everfaas_core.testing.house import House


class Parts(NamedTuple):
    """What a house of this mode is made of."""

    mode: Mode
    strategy: StrategyProvider
    transport: Transport | None = None  # None: the mode runs its slots itself


MakeHouse = Callable[..., House]


class ModeContract:
    """Inherit, and provide the fixtures `parts` and `store`."""

    @pytest.fixture
    def parts(self) -> Parts:
        """Return the mode and what belongs to it."""
        raise NotImplementedError("provide the fixture parts")

    @pytest.fixture
    def store(self) -> Iterator[Store]:
        """Return an empty store."""
        raise NotImplementedError("provide the fixture store")

    @pytest.fixture
    def house(self, parts: Parts, store: Store) -> Iterator[House]:
        with House(store, *parts) as house:
            yield house

    def test_a_function_runs_and_its_record_tells_of_it(self, house: House) -> None:
        record, value = house.call(lambda x, y: x * y, 6, 7)
        assert value == 42
        assert (record.status, record.cause) == (Status.COMPLETED, Cause.OK)
        (attempt,) = record.attempts
        assert attempt.attempt == 1
        assert attempt.ended_ms is not None
        assert record.submitted_ms <= attempt.leased_ms <= attempt.started_ms <= attempt.ended_ms

    def test_many_tasks_all_end_with_their_own_values(self, house: House) -> None:
        ids = house.submit(house.register(lambda n: n * n), *[(n,) for n in range(500)])
        house.wait(*ids)
        assert [house.result(one) for one in ids] == [n * n for n in range(500)]

    def test_slots_work_side_by_side(self, house: House) -> None:
        """Two tasks that need each other can only end if both run at once."""

        def meet(mine: str, other: str) -> bool:
            import pathlib
            import time

            pathlib.Path(mine).touch()
            until = time.monotonic() + 20
            while not pathlib.Path(other).exists():
                if time.monotonic() > until:
                    return False
                time.sleep(0.01)
            return True

        base = f"/tmp/everfaas-meet-{os.getpid()}-{time.monotonic_ns()}"  # noqa: S108 - a name that nobody else uses
        ids = house.submit(house.register(meet), (base + "a", base + "b"), (base + "b", base + "a"))
        house.wait(*ids)
        assert [house.result(one) for one in ids] == [True, True]
        for end in "ab":
            os.unlink(base + end)

    def test_an_exception_is_the_users_own(self, house: House) -> None:
        def fail() -> None:
            raise ValueError("as designed")

        record, error = house.call(fail)
        assert (record.status, record.cause) == (Status.FAILED, Cause.RAISED)
        assert isinstance(error, ValueError)
        assert len(record.attempts) == 1

    def test_a_crash_is_retried_to_its_cap_and_spares_the_others(self, house: House) -> None:
        crashing = house.submit(house.register(lambda: os._exit(3)), (), max_attempts=3)
        others = house.submit(house.register(lambda n: n), *[(n,) for n in range(50)])
        (record,) = house.wait(*crashing)
        assert (record.status, record.cause) == (Status.FAILED, Cause.SLOT_CRASHED)
        assert [one.attempt for one in record.attempts] == [1, 2, 3]
        assert str(house.result(crashing[0])).startswith("WorkerFailure")
        assert {one.status for one in house.wait(*others)} == {Status.COMPLETED}

    def test_what_a_function_prints_is_in_the_log_when_it_has_ended(self, house: House) -> None:
        def talk(n: int) -> None:
            import sys

            print("number", n)  # noqa: T201 - what this is about
            print("error", n, file=sys.stderr)  # noqa: T201 - what this is about
            if n % 20 == 0:
                os.write(1, b"past Python\n")

        ids = house.submit(house.register(talk), *[(n,) for n in range(100)])
        house.wait(*ids)
        for n, one in enumerate(ids):
            assert house.printed(one, Stream.STDOUT) == f"number {n}\n" + ("past Python\n" if n % 20 == 0 else "")
            assert house.printed(one, Stream.STDERR) == f"error {n}\n"

    def test_the_last_words_of_each_attempt_are_kept(self, house: House) -> None:
        def last_words() -> None:
            print("I am done for")  # noqa: T201 - what this is about
            os._exit(3)

        (one,) = house.submit(house.register(last_words), (), max_attempts=2)
        house.wait(one)
        page = house.store.task_log(one, None, bytes_max=1000)
        assert page is not None
        assert [(piece.attempt, piece.text) for piece in page.pieces] == [
            (1, b"I am done for\n"),
            (2, b"I am done for\n"),
        ]

    def test_what_runs_is_heard_and_says_how_far_it_is(self, house: House) -> None:
        def report_and_wait(file: str) -> None:
            from everfaas_core.inside import progress

            progress(1, 3, "one of three")
            print("begun")  # noqa: T201 - what this is about
            while not os.path.exists(file):
                time.sleep(0.01)
            for n in (2, 2.5, 3):
                progress(n, 3)

        file = f"/tmp/everfaas-heard-{os.getpid()}-{time.monotonic_ns()}"  # noqa: S108 - a name that nobody else uses
        (one,) = house.submit(house.register(report_and_wait), (file,))
        house.until(lambda: house.printed(one) == "begun\n")
        house.until(lambda: house.store.tasks([one])[0].progress is not None)  # type: ignore[union-attr]  # it is there
        (record,) = house.store.tasks([one])
        assert record is not None
        assert record.progress is not None
        assert (record.status, record.progress.done, record.progress.message) == (Status.RUNNING, 1, "one of three")
        with open(file, "w"):
            pass
        (record,) = house.wait(one)
        assert record.progress is not None
        assert (record.progress.done, record.progress.total, record.progress.message) == (3, 3, "")
        os.unlink(file)

    def test_a_deadline_kills_the_slot_and_is_final(self, house: House) -> None:
        def forever() -> None:
            while True:
                pass

        record, error = house.call(forever, timeout_s=0.3)
        assert (record.status, record.cause) == (Status.FAILED, Cause.DEADLINE)
        assert "exceeded deadline" in str(error)
        assert len(record.attempts) == 1
        assert house.call(lambda: "still here")[1] == "still here"

    def test_a_running_task_can_be_cancelled(self, house: House) -> None:
        (one,) = house.submit(house.register(time.sleep), (60,))
        house.until(lambda: house.store.statuses([one]) == ["RUNNING"])
        house.store.cancel([one])
        (record,) = house.wait(one)
        assert (record.status, record.cause) == (Status.CANCELLED, Cause.CANCELLED)

    def test_large_arguments_and_results_travel(self, house: House) -> None:
        payload = os.urandom(10_000_000)
        assert house.call(lambda data: data[::-1], payload)[1] == payload[::-1]

    def test_delayed_tasks_wait_and_then_run(self, house: House) -> None:
        record, _ = house.call(lambda: None, delay_s=0.5)
        assert record.attempts[0].started_ms - record.submitted_ms >= 490

    def test_a_queued_task_that_is_too_late_never_starts(self, house: House) -> None:
        blockers = house.submit(house.register(time.sleep), *[(1.5,)] * house.slots)
        record, error = house.call(lambda: None, deadline_s=0.2)
        assert (record.status, record.cause, record.attempts) == (Status.FAILED, Cause.DEADLINE, ())
        assert "exceeded deadline" in str(error)
        house.wait(*blockers)

    def test_a_drained_dispatcher_finishes_what_runs_and_the_next_one_goes_on(self, house: House) -> None:
        def function_of_its_time(n: int) -> int:
            time.sleep(0.3)
            return n

        function = house.register(function_of_its_time)
        ids = house.submit(function, *[(n,) for n in range(6)])
        house.until(lambda: "RUNNING" in house.store.statuses(ids))
        port = int(house.address.rsplit(":", 1)[1]) if house.address else 0
        thread, stop = house._threads[0]
        stop.request()
        thread.join(20)
        assert not thread.is_alive()
        assert "RUNNING" not in house.store.statuses(ids)
        house.start_dispatcher(port)
        records = house.wait(*ids)
        assert [house.result(one) for one in ids] == list(range(6))
        assert all(len(record.attempts) == 1 for record in records), records
