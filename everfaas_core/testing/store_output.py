"""What tasks print and how far they are: kept once, in order, with its attempt, within bounds, as long as the task."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest

from everfaas_core.model.ids import TaskId
from everfaas_core.model.output import (
    OUTPUT_BYTES_MAX,
    PIECE_BYTES_MAX,
    LogPage,
    LogPiece,
    Printed,
    Progressed,
    Stream,
    left_out,
)
from everfaas_core.model.records import Finish
from everfaas_core.model.states import Cause, Status
from everfaas_core.ports import Store
from everfaas_core.testing.faults import Fault, FaultyStore, persistently
from everfaas_core.testing.store_scene import A, B, Scene, eventually, hear, hear_ended

ROOM = 1_000_000_000
OUT, ERR = Stream.STDOUT, Stream.STDERR


def printed(task: TaskId, start: int, text: bytes, attempt: int = 1, stream: Stream = OUT) -> Printed:
    """Make a piece."""
    return Printed(task, attempt, stream, start, text)


def log(store: Store, task: TaskId, cursor: str | None = None, **options: Any) -> LogPage:
    """Read a page of the log of a task that must be there."""
    page = store.task_log(task, cursor, **({"bytes_max": ROOM} | options))
    assert page is not None
    return page


def walk(store: Store, task: TaskId, bytes_max: int, cursor: str | None = None) -> Iterator[LogPiece]:
    """Read page after page to the present end."""
    while True:
        page = log(store, task, cursor, bytes_max=bytes_max)
        yield from page.pieces
        cursor = page.cursor
        if not page.more:
            assert log(store, task, cursor).pieces == ()
            return


def texts(store: Store, task: TaskId, **options: Any) -> list[bytes]:
    """Return the texts of a log."""
    return [piece.text for piece in log(store, task, **options).pieces]


def say(scene: Scene, *pieces: Printed, **parts: Any) -> None:
    """Tell the store what was printed."""
    scene.turn(printed=pieces, **parts)


class OutputContract:
    def test_what_is_printed_is_read_in_order(self, scene: Scene, other: Store) -> None:
        task = scene.running()
        assert log(scene.store, task) == LogPage(
            status=Status.RUNNING, pieces=(), cursor=log(other, task).cursor, more=False
        )
        say(scene, printed(task, 0, b"one\r\n"), printed(task, 5, b"\x00\xff\xe4", stream=ERR))
        say(scene, printed(task, 8, b"two"))
        page = log(other, task)
        assert [(p.attempt, p.stream, p.start, p.text) for p in page.pieces] == [
            (1, OUT, 0, b"one\r\n"),
            (1, ERR, 5, b"\x00\xff\xe4"),
            (1, OUT, 8, b"two"),
        ]
        assert (page.status, page.more, page.cursor) == (Status.RUNNING, False, page.pieces[-1].cursor)
        assert all(abs(p.at_ms - scene.record(task).attempts[0].started_ms) < 600_000 for p in page.pieces)
        for n, piece in enumerate(page.pieces):
            assert log(other, task, piece.cursor).pieces == page.pieces[n + 1 :]

    def test_it_is_there_when_the_task_has_ended_and_stays(self, scene: Scene, other: Store) -> None:
        task = scene.running()
        end = Finish(task_id=task, attempt=1, status=Status.COMPLETED, cause=Cause.OK, result=b"r")
        say(scene, printed(task, 0, b"last words"), finishes=(end,))
        page = log(other, task)
        assert (page.status, [piece.text for piece in page.pieces]) == (Status.COMPLETED, [b"last words"])
        say(scene, printed(task, 10, b"too late"))
        assert texts(other, task) == [b"last words"]

    def test_a_task_that_is_unknown_has_none(self, scene: Scene) -> None:
        unknown = scene.new_id()
        assert scene.store.task_log(unknown, None, bytes_max=ROOM) is None
        say(scene, printed(unknown, 0, b"x"))
        assert scene.store.task_log(unknown, None, bytes_max=ROOM) is None

    def test_a_task_that_waits_has_printed_nothing(self, scene: Scene) -> None:
        (task,) = scene.submit()
        say(scene, printed(task, 0, b"x"), printed(task, 0, b"x", attempt=0))
        assert log(scene.store, task).pieces == ()
        assert log(scene.store, task).status == Status.QUEUED
        scene.claim(1)
        say(scene, printed(task, 0, b"x"), printed(task, 0, b"x", attempt=0))
        assert log(scene.store, task).pieces == ()

    def test_what_is_told_twice_is_kept_once(self, scene: Scene) -> None:
        task = scene.running()
        pieces = printed(task, 0, b"one"), printed(task, 3, b"two", stream=ERR)
        for _ in range(3):
            say(scene, *pieces)
        say(scene, *pieces, printed(task, 6, b"three"))
        assert texts(scene.store, task) == [b"one", b"two", b"three"]

    def test_attempts_are_never_mixed(self, scene: Scene) -> None:
        task = scene.running()
        say(scene, printed(task, 0, b"first"), printed(task, 0, b"not yet", attempt=2))
        scene.requeue(task)
        say(scene, printed(task, 5, b"stale"))
        scene.claim(1)
        scene.start(task, 2)
        say(scene, printed(task, 5, b"stale"), printed(task, 0, b"second", attempt=2))
        page = log(scene.store, task)
        assert [(p.attempt, p.start, p.text) for p in page.pieces] == [(1, 0, b"first"), (2, 0, b"second")]
        assert texts(scene.store, task, attempt=1) == [b"first"]
        assert texts(scene.store, task, attempt=2) == [b"second"]
        assert texts(scene.store, task, attempt=3) == []
        assert texts(scene.store, task, attempt=1, cursor=page.cursor) == []
        assert texts(scene.store, task, attempt=2, cursor=page.pieces[0].cursor) == [b"second"]

    def test_any_dispatcher_may_tell_it(self, scene: Scene, other: Store) -> None:
        """The attempt fences, not who tells: a worker goes from one dispatcher to the next."""
        task = scene.running()
        scene.turn(B, printed=(printed(task, 0, b"from b"),))
        assert texts(other, task) == [b"from b"]

    def test_gaps_show(self, scene: Scene) -> None:
        task = scene.running()
        say(scene, printed(task, 100, b"x"), printed(task, 250, b"y"))
        first, second = log(scene.store, task).pieces
        assert (left_out(None, first), left_out(first.cursor, second)) == (100, 149)
        assert left_out(second.cursor, second) == 0

    def test_the_newest_is_kept_within_bounds(self, scene: Scene) -> None:
        task = scene.running()
        size, start = PIECE_BYTES_MAX // 2, 0
        for _ in range(5):
            say(scene, *[printed(task, start + n * size, bytes([n]) * size) for n in range(10)])
            start += 10 * size
        pieces = list(walk(scene.store, task, 100_000))
        kept = sum(len(piece.text) for piece in pieces)
        assert OUTPUT_BYTES_MAX - 2 * PIECE_BYTES_MAX < kept <= OUTPUT_BYTES_MAX
        assert [piece.start for piece in pieces] == list(range(start - kept, start, size))
        assert left_out(None, pieces[0]) == start - kept

    def test_many_short_pieces_are_bounded_too(self, scene: Scene) -> None:
        task = scene.running()
        for part in range(5):
            say(scene, *[printed(task, n, b"x") for n in range(part * 4000, (part + 1) * 4000)])
        pieces = log(scene.store, task).pieces
        assert 10_000 < len(pieces) <= OUTPUT_BYTES_MAX // 60
        assert pieces[-1].start == 19_999

    def test_a_page_stops_at_its_bytes_and_goes_on(self, scene: Scene) -> None:
        task = scene.running()
        say(scene, *[printed(task, n * 100, b"%099d\n" % n) for n in range(50)])
        sizes, cursor, more = [], None, True
        while more:
            page = log(scene.store, task, cursor, bytes_max=1500)
            sizes.append(len(page.pieces))
            cursor, more = page.cursor, page.more
        assert sizes == [15, 15, 15, 5]
        assert len(log(scene.store, task, bytes_max=1).pieces) == 1
        assert [int(piece.text) for piece in walk(scene.store, task, 700)] == list(range(50))

    @pytest.mark.parametrize(
        "cursor", ["", "x", "-1", "1", "1-", "1-x", "(1-5", "1-5-6", "+", "1 -2", "٣-1", "9" * 5000]
    )
    def test_a_cursor_that_is_none_is_refused(self, scene: Scene, cursor: str) -> None:
        task = scene.running()
        with pytest.raises(ValueError, match="cursor"):
            log(scene.store, task, cursor)

    def test_those_who_watch_hear_of_it(self, scene: Scene, other: Store) -> None:
        one = scene.running()
        two = scene.running()
        with closing(other.watch("ended")) as watch:
            watch.read()
            say(scene, printed(one, 0, b"x"), printed(one, 1, b"y", stream=ERR), printed(two, 0, b"z"))
            assert {task for notice in hear(watch) for task in notice.printed} == {one, two}
            say(scene, printed(one, 0, b"x"), printed(scene.new_id(), 0, b"x"))  # nothing new
            scene.finish(one)
            notices = hear(watch)
            assert [task for notice in notices for task in notice.printed] == []
            assert [task for notice in notices for task in notice.ended] == [one]

    def test_who_waits_for_ends_is_not_confused_by_output(self, scene: Scene, other: Store) -> None:
        task = scene.running(group="g")
        with closing(other.watch("ended")) as watch:
            watch.read()
            say(scene, printed(task, 0, b"x"))
            scene.finish(task)
            assert hear_ended(watch, 1) == [task]

    def test_it_goes_with_the_record(self, scene: Scene) -> None:
        task = scene.running(result_ttl_s=0.05)
        say(scene, printed(task, 0, b"x"))
        scene.finish(task)
        eventually(lambda: scene.status(task) is None)
        assert scene.store.task_log(task, None, bytes_max=ROOM) is None
        scene.turn(sweep=True)
        assert scene.store.task_log(task, None, bytes_max=ROOM) is None

    def test_a_retry_begins_with_an_empty_log(self, scene: Scene) -> None:
        task = scene.running()
        say(scene, printed(task, 0, b"x"), progress=(Progressed(task, 1, 1),))
        scene.finish(task, cause=Cause.RAISED)
        again = scene.store.retry(task, scene.new_id())
        assert again is not None
        assert texts(scene.store, again) == []
        assert scene.record(again).progress is None

    @pytest.mark.parametrize("seed", range(3))
    def test_with_exchanges_that_fail_each_piece_is_there_once(self, store: Store, seed: int) -> None:
        rng = random.Random(seed)  # noqa: S311 - a seed replays it
        calm = Scene(store)
        task = calm.running()
        faulty = FaultyStore(store, lambda _: rng.choice((None, None, Fault.BEFORE, Fault.AFTER)))
        noisy = Scene(store)
        noisy.store = faulty
        start = 0
        for n in range(30):
            pieces = [printed(task, start, b"%d;" % n), printed(task, start + len(b"%d;" % n), b"!", stream=ERR)]
            persistently(lambda pieces=pieces: say(noisy, *pieces))
            start = pieces[-1].end
        assert b"".join(texts(store, task)) == b"".join(b"%d;!" % n for n in range(30))
        assert faulty.faults > 0

    # progress

    def test_the_last_word_of_progress_is_in_the_record(self, scene: Scene) -> None:
        task = scene.running()
        assert scene.record(task).progress is None
        scene.turn(progress=(Progressed(task, 1, 1, 3, "fetching | é"),))
        scene.turn(progress=(Progressed(task, 1, 2.5, None), Progressed(scene.new_id(), 1, 9)))
        progress = scene.record(task).progress
        assert progress is not None
        assert (progress.done, progress.total, progress.message) == (2.5, None, "")
        assert progress.at_ms >= scene.record(task).attempts[0].started_ms
        scene.turn(progress=(Progressed(task, 1, 3, 3, "fetching | é"),))
        scene.finish(task)
        scene.turn(progress=(Progressed(task, 1, 0, 3, "late"),))
        progress = scene.record(task).progress
        assert progress is not None
        assert (progress.done, progress.total, progress.message) == (3, 3, "fetching | é")
        assert isinstance(progress.done, int)

    def test_progress_is_that_of_the_latest_attempt(self, scene: Scene) -> None:
        task = scene.running()
        scene.turn(progress=(Progressed(task, 1, 5, 10),))
        scene.requeue(task)
        scene.claim(1)
        scene.start(task, 2)
        assert scene.record(task).progress is None
        scene.turn(progress=(Progressed(task, 1, 6, 10),))
        assert scene.record(task).progress is None
        scene.turn(A, progress=(Progressed(task, 2, 1, 10),))
        progress = scene.record(task).progress
        assert progress is not None
        assert progress.done == 1
