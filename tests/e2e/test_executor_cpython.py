"""CPython's own tests of executors and futures, from the interpreter that runs, on our Executor and a real system.

Where an interpreter has no `test` package, or one without these tests (Debian has them in libpython3-testsuite), all of
this is skipped; tests/e2e/test_executor.py says the same things in our words and runs everywhere. Which of CPython's
tests do not apply stands below, each with the reason.
"""

from __future__ import annotations

import functools
import importlib
import logging
import threading
import unittest
from collections.abc import Iterator
from types import ModuleType
from typing import Any, ClassVar
from unittest import mock

import pytest

from everfaas_core import Executor, Future
from tests.unit.system import until

from .processes import Process

pytestmark = pytest.mark.xdist_group("e2e-cpython")


def module(name: str) -> ModuleType:
    """Return a module of CPython's tests: of the package that they are since 3.12, or the one module of 3.11."""
    for path in (f"test.test_concurrent_futures.{name}", "test.test_concurrent_futures"):
        try:
            return importlib.import_module(path)
        except ModuleNotFoundError:
            continue
    return pytest.skip("this Python comes without test.test_concurrent_futures", allow_module_level=True)


util, futures = module("util"), module("test_future")
process_pool, shutdown = module("test_process_pool"), module("test_shutdown")
waiting, as_completed = module("test_wait"), module("test_as_completed")


@pytest.fixture(scope="module", autouse=True)
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    home = tmp_path_factory.mktemp("cpython")
    up = Process(["-m", "everfaas_core.cli", "up", "--port", "0", "--data", str(home / "data")], home / "up.log")
    Pool.url = up.address.rstrip("/")
    yield Pool.url
    assert up.stop() == 0, up.log.read_text()


class Pool(Executor):
    """Our executor, made as a pool of processes is; the number of slots is the fleet's."""

    url: ClassVar[str]

    def __init__(self, max_workers: int | None = None) -> None:
        super().__init__(self.url)


class Fleet(util.ExecutorMixin):
    executor_type = Pool

    def tearDown(self) -> None:
        super().tearDown()
        left = [thread.name for thread in threading.enumerate() if thread.name.startswith("everfaas")]
        assert left == [], "shutdown(wait=True) leaves no thread behind"


def fitting(tests: type, **reasons: str) -> Any:
    """Return CPython's tests, with those that do not apply replaced by the reason."""
    skipped = {
        name: unittest.skip(reason)(lambda self: None) for name, reason in reasons.items() if hasattr(tests, name)
    }
    return type(tests.__name__, (tests,), skipped)


OF_THE_FLEET = "how many slots there are, and when they are replaced, is the fleet's business"
OF_A_POOL = "looks into ProcessPoolExecutor, or kills its processes; a slot that dies fails its own task only"
IN_CHILDREN = "its argument works in children of this process only"
NAMED = "writes a script that names a class of concurrent.futures; test_executor.py has one for ours"

EXECUTOR = fitting(
    process_pool.ProcessPoolExecutorTest,  # which has those of all executors, too
    test_max_workers_negative=OF_THE_FLEET,
    test_max_workers_too_large=OF_THE_FLEET,
    test_max_tasks_per_child=OF_THE_FLEET,
    test_max_tasks_per_child_defaults_to_spawn_context=OF_THE_FLEET,
    test_max_tasks_early_shutdown=OF_THE_FLEET,
    test_idle_process_reuse_one=OF_A_POOL,
    test_idle_process_reuse_multiple=OF_A_POOL,
    test_killed_child=OF_A_POOL,
    test_python_finalization_error=OF_A_POOL,
    test_force_shutdown_workers=OF_A_POOL,
    test_force_shutdown_workers_invalid_op=OF_A_POOL,
    test_force_shutdown_workers_stops_pool=OF_A_POOL,
    test_process_pool_executor_terminate_workers=OF_A_POOL,
    test_process_pool_executor_kill_workers=OF_A_POOL,
    test_ressources_gced_in_workers=IN_CHILDREN,
    test_saturation=IN_CHILDREN,
    test_traceback="wants the private _RemoteTraceback as cause; ours is a note (test_executor.py)",
)
SHUTDOWN = fitting(
    shutdown.ExecutorShutdownTest,
    test_interpreter_shutdown=NAMED,
    test_submit_after_interpreter_shutdown=NAMED,
    test_hang_gh83386=NAMED,
)
# Of ProcessPoolShutdownTest, ThreadPool*, test_deadlock and test_init nothing applies: they are about a pool's own
# threads, processes and initializers.


class TestExecutor(Fleet, EXECUTOR, util.BaseTestCase):
    pass


class TestShutdown(Fleet, SHUTDOWN, util.BaseTestCase):
    def test_cancel_futures(self) -> None:
        """It wants to see one that has begun; ours begin elsewhere, perhaps after the shutdown: so wait for that."""
        submit = Pool.submit

        def submit_and_see_begin(pool: Pool, *call: Any) -> Future[Any]:
            future = submit(pool, *call)
            until(lambda: future.running() or future.done())
            pool.submit = functools.partial(submit, pool)
            return future

        with mock.patch.object(Pool, "submit", submit_and_see_begin):
            super().test_cancel_futures()


class TestWait(Fleet, waiting.WaitTests, util.BaseTestCase):
    pass


class TestAsCompleted(Fleet, as_completed.AsCompletedTests, util.BaseTestCase):
    pass


class NoTasks:
    """What a future asks about its task, when there is none."""

    def cancel(self, future: Future[Any]) -> bool:
        return future.dropped()

    def running(self, task_id: str) -> bool:
        raise AssertionError("it has no task")

    def load(self, result: bytes) -> Any:
        raise AssertionError("it has no result of a task")


class TestFuture(
    fitting(
        futures.FutureTests,
        test_cancel="wants the state CANCELLED; ours is CANCELLED_AND_NOTIFIED at once, as nobody else would notify",
    )
):
    """CPython's module makes its futures through names of its own: they are ours here."""

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        # Which callback has raised is logged. These tests look for it on stderr, where it comes without pytest.
        log = logging.getLogger("concurrent.futures")
        cls.enterClassContext(mock.patch.object(log, "handlers", [logging.lastResort]))
        make = lambda: Future(NoTasks())  # noqa: E731 - it stands in for a class
        cls.enterClassContext(mock.patch.object(util, "Future", make))
        cls.enterClassContext(mock.patch.object(futures, "Future", make))
        for name, old in list(vars(futures).items()):
            if name.endswith("_FUTURE"):
                new = util.create_future(old._state, old._exception, old._result)
                cls.enterClassContext(mock.patch.object(futures, name, new))
