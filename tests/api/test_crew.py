"""The threads of the server: so many work, all others may wait, and those that are not needed go."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import pytest

from everfaas_core.api import crew as crew_module
from everfaas_core.api.crew import KEPT, RETURNING_MAX, Bell, Crew
from tests.api.driving import eventually


class Job:
    """Work that counts, and runs a function."""

    def __init__(self, run: Callable[[], None]) -> None:
        self._run = run
        self.done = threading.Event()
        self.cancelled = False

    def service(self) -> None:
        try:
            self._run()
        finally:
            self.done.set()

    def cancel(self) -> None:
        self.cancelled = True


@pytest.fixture
def crew() -> Iterator[Crew]:
    made = Crew(3)
    yield made
    made.shutdown(timeout=20)
    assert made.threads == 0


def give(crew: Crew, run: Callable[[], None], count: int = 1) -> list[Job]:
    jobs = [Job(run) for _ in range(count)]
    for job in jobs:
        crew.add_task(job)
    return jobs


def test_no_more_work_at_a_time_than_there_are_places(crew: Crew) -> None:
    lock, seen = threading.Lock(), []
    now = 0

    def work() -> None:
        nonlocal now
        with lock:
            now += 1
            seen.append(now)
        time.sleep(0.003)
        with lock:
            now -= 1

    def run() -> None:
        work()
        with crew.away():
            time.sleep(0.003)
        work()

    for job in give(crew, run, 60):
        assert job.done.wait(20)
    assert len(seen) == 120
    assert max(seen) == 3, "all places are used, and no more"


def test_who_is_away_leaves_the_place_and_needs_one_to_come_back(crew: Crew) -> None:
    release, working, back = threading.Event(), threading.Semaphore(0), threading.Semaphore(0)
    leave = threading.Event()

    def wait() -> None:
        with crew.away():
            working.release()
            release.wait(20)
        back.release()
        leave.wait(20)

    waiting = give(crew, wait, 50)
    for _ in waiting:
        assert working.acquire(timeout=20)  # all 50 wait at once, with 3 places
    assert crew.threads == 50
    (other,) = give(crew, lambda: None)
    assert other.done.wait(20), "they are in nobody's way"
    release.set()
    for _ in range(3):
        assert back.acquire(timeout=20)
    assert not back.acquire(timeout=0.2), "only three came back: there are three places"
    leave.set()
    for job in waiting:
        assert job.done.wait(20)


def test_new_work_and_those_who_return_take_turns() -> None:
    crew = Crew(1)
    order: list[str] = []
    release, ready, hold = threading.Event(), threading.Semaphore(0), threading.Event()

    def wait() -> None:
        with crew.away():
            ready.release()
            release.wait(20)
        order.append("returned")

    jobs = give(crew, wait, 20)
    for _ in jobs:
        assert ready.acquire(timeout=20)
    jobs += give(crew, lambda: hold.wait(20) and None)  # has the only place
    release.set()
    eventually(lambda: len(crew._returning) == 20)
    jobs += give(crew, lambda: order.append("new"), 5)
    hold.set()
    for job in jobs:
        assert job.done.wait(20)
    assert order[:10].count("new") == 5, order
    crew.shutdown()


def test_those_who_return_have_a_few_places_at_a_time_and_leave_the_others_to_new_ones() -> None:
    crew = Crew(3 * RETURNING_MAX)
    wake, hold = threading.Event(), threading.Event()
    working: list[int] = []

    def wait_and_work() -> None:
        with crew.away():
            wake.wait(20)
        working.append(1)
        hold.wait(20)

    jobs = give(crew, wait_and_work, 5 * RETURNING_MAX)
    eventually(lambda: crew._working == 0 and crew.threads == len(jobs))
    wake.set()
    eventually(lambda: len(working) == RETURNING_MAX and len(crew._returning) == len(jobs) - RETURNING_MAX)
    (new,) = give(crew, lambda: None)
    assert new.done.wait(20), "there is a place for it"
    assert len(working) == RETURNING_MAX
    hold.set()
    for job in jobs:
        assert job.done.wait(20)
    eventually(lambda: crew._working == crew._back == 0)
    crew.shutdown()


def test_surplus_threads_leave_and_some_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crew_module, "SURPLUS_S", 0.1)
    crew = Crew(20)
    barrier = threading.Barrier(20)
    jobs = give(crew, lambda: barrier.wait(20) and None, 20)
    for job in jobs:
        assert job.done.wait(20)
    eventually(lambda: crew.threads == KEPT)
    (job,) = give(crew, lambda: None)
    assert job.done.wait(20)
    assert crew.threads == KEPT
    crew.shutdown()
    assert crew.threads == 0


def test_a_thread_outlives_what_fails_in_it(crew: Crew, caplog: pytest.LogCaptureFixture) -> None:
    def fail() -> None:
        raise SystemExit(3)

    for _ in range(10):
        (job,) = give(crew, fail)
        assert job.done.wait(20)
    (job,) = give(crew, lambda: None)
    assert job.done.wait(20)
    assert crew.threads <= 3
    assert "failed outside the application" in caplog.text


def test_the_end_cancels_what_has_not_begun_and_lets_the_waiting_go() -> None:
    crew = Crew(1)
    release, away = threading.Event(), threading.Event()

    def wait() -> None:
        with crew.away():
            away.set()
            release.wait(20)

    jobs = give(crew, wait)
    assert away.wait(20)
    busy = threading.Event()
    jobs += give(crew, lambda: busy.wait(20) and None)
    (late,) = give(crew, lambda: None)
    release.set()
    eventually(lambda: len(crew._returning) == 1)
    threading.Timer(0.2, busy.set).start()
    crew.shutdown(timeout=20)
    assert all(job.done.is_set() for job in jobs)
    assert late.cancelled
    assert not late.done.is_set()
    assert crew.threads == 0
    give(crew, lambda: None)
    assert crew.threads == 0, "nothing begins after the end"


def test_without_threads_work_waits_for_the_next_one(crew: Crew, monkeypatch: pytest.MonkeyPatch) -> None:
    hold = threading.Event()
    (first,) = give(crew, lambda: hold.wait(20) and None)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", _refuse)
        (second,) = give(crew, lambda: None)
        hold.set()
        assert first.done.wait(20)
        assert second.done.wait(20), "done by the thread that there is"


def _refuse(_thread: threading.Thread) -> None:
    raise RuntimeError("can't start new thread")


def test_away_means_nothing_to_threads_of_others(crew: Crew) -> None:
    with crew.away(), crew.away():
        pass
    (job,) = give(crew, lambda: None)
    assert job.done.wait(20)


def test_a_bell_wakes_no_more_threads_than_there_are_places(crew: Crew) -> None:
    bells = [crew.bell() for _ in range(40)]
    waits, back, leave = threading.Semaphore(0), threading.Semaphore(0), threading.Event()
    rung: list[bool] = []

    def wait(bell: Bell) -> None:
        waits.release()
        rung.append(bell.wait(20))
        back.release()
        leave.wait(20)

    jobs = [job for bell in bells for job in give(crew, lambda bell=bell: wait(bell))]
    for _ in jobs:
        assert waits.acquire(timeout=20), "all of them wait, with 3 places"
    eventually(lambda: crew._working == 0)
    for bell in bells:
        bell.set()
    for _ in range(3):
        assert back.acquire(timeout=20)
    assert not back.acquire(timeout=0.2)
    assert len(crew._returning) == 37, "and the others sleep on"
    leave.set()
    for job in jobs:
        assert job.done.wait(20)
    assert rung == [True] * 40


def test_a_bell_that_does_not_ring_in_time_gives_the_place_back(crew: Crew) -> None:
    bell, seen = crew.bell(), []

    def wait() -> None:
        seen.append(bell.wait(0.05))
        seen.append(crew._working)
        bell.set()
        seen.append(bell.wait(20))
        bell.clear()
        seen.append(bell.wait(0.05))

    (job,) = give(crew, wait)
    assert job.done.wait(20)
    assert seen == [False, 1, True, False]
    eventually(lambda: crew._working == 0)


def test_a_bell_rings_for_threads_of_others_too(crew: Crew) -> None:
    bell = crew.bell()
    assert not bell.wait(0.01)
    threading.Timer(0.05, bell.set).start()
    assert bell.wait(20)
    assert crew._working == 0


def test_bells_that_ring_at_their_last_moment_lose_no_place(crew: Crew) -> None:
    """The ring and the end of the time meet again and again; each time exactly one place comes back."""

    def wait(bell: Bell) -> None:
        bell.wait(0.002)

    jobs = []
    for _ in range(200):
        bell = crew.bell()
        jobs += give(crew, lambda bell=bell: wait(bell))
        threading.Timer(0.002, bell.set).start()
    for job in jobs:
        assert job.done.wait(20)
    eventually(lambda: crew._working == 0)
    assert not crew._returning
