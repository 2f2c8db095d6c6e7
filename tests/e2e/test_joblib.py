"""joblib's `Parallel` on the fleet, as scikit-learn uses it."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import joblib
import pytest
from joblib import Parallel, delayed
from joblib.parallel import BACKENDS

from everfaas_core import ApiRefused, Client, register_joblib
from everfaas_core.client.joblib_backend import FleetBackend
from tests.unit.system import until

from .processes import clean_env

pytestmark = pytest.mark.xdist_group("e2e-fleet")

SLOTS = 4
LONG_S = 60


def where(x: int) -> tuple[int, int]:
    time.sleep(0.05)
    return x, os.getpid()


def square(x: int) -> int:
    return x * x


def nested(x: int) -> tuple[str, list[int]]:
    from joblib.parallel import get_active_backend

    with Parallel(n_jobs=8) as inner:
        return type(get_active_backend()[0]).__name__, inner(delayed(square)(n) for n in range(x))


class Unlucky(Exception):
    pass


def fail_at(x: int, bad: int) -> int:
    if x == bad:
        raise Unlucky(x)
    time.sleep(LONG_S if x > bad else 0)
    return x


@pytest.fixture
def client(fleet: str) -> Iterator[Client]:
    with Client(fleet) as client:
        yield client


@pytest.fixture
def group(client: Client) -> Iterator[str]:
    """What the tasks of a test are found by; within it, joblib has this client's fleet as a backend."""
    group = f"joblib-{time.monotonic_ns()}"
    register_joblib(client, group=group)
    yield group
    del BACKENDS["everfaas"]


def records(client: Client, group: str) -> list[dict[str, Any]]:
    return list(client.attach(group).records())


def test_calls_run_in_the_slots_and_come_back_in_order(client: Client, group: str) -> None:
    with joblib.parallel_config(backend="everfaas"):
        found = Parallel()(delayed(where)(n) for n in range(24))
    assert [number for number, _ in found] == list(range(24))
    assert 1 < len({pid for _, pid in found} - {os.getpid()}) <= SLOTS
    tasks = records(client, group)
    assert {task["status"] for task in tasks} == {"COMPLETED"}
    assert client.api.get(f"/v1/functions/{tasks[0]['function_id']}")["name"] == "joblib"


def test_functions_of_a_script_travel(fleet: str, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        """
import joblib
from everfaas_core import register_joblib

def plus(x, y=1):
    return x + y

register_joblib()
with joblib.parallel_config(backend="everfaas", n_jobs=2):
    print(joblib.Parallel()(joblib.delayed(plus)(n, y=10) for n in range(3)))
"""
    )
    env = clean_env(tmp_path) | {"EVERFAAS_URL": fleet}
    done = subprocess.run([sys.executable, script], env=env, capture_output=True, text=True, timeout=LONG_S)
    assert (done.stdout, done.stderr) == ("[10, 11, 12]\n", "")


def test_many_short_calls_become_few_tasks(client: Client, group: str) -> None:
    with joblib.parallel_config(backend="everfaas"):
        assert Parallel()(delayed(square)(n) for n in range(2000)) == [n * n for n in range(2000)]
    assert len(records(client, group)) < 1000


@pytest.mark.parametrize(
    ("n_jobs", "expected"), [(-1, SLOTS), (-2, SLOTS - 1), (-99, 1), (2, 2), (64, 64), (None, SLOTS)]
)
def test_jobs_are_counted_from_the_slots_of_the_fleet(group: str, n_jobs: int | None, expected: int) -> None:
    with joblib.parallel_config(backend="everfaas", n_jobs=n_jobs):
        assert joblib.effective_n_jobs(n_jobs) == expected


def test_no_jobs_at_all_make_no_sense(group: str) -> None:
    with joblib.parallel_config(backend="everfaas"), pytest.raises(ValueError, match="n_jobs == 0"):
        Parallel(n_jobs=0)(delayed(square)(n) for n in range(2))


def test_one_job_runs_here(client: Client, group: str) -> None:
    with joblib.parallel_config(backend="everfaas", n_jobs=1):
        assert {pid for _, pid in Parallel()(delayed(where)(n) for n in range(3))} == {os.getpid()}
    assert records(client, group) == []


def test_parallel_calls_within_a_slot_run_one_after_the_other(group: str) -> None:
    with joblib.parallel_config(backend="everfaas"):
        assert Parallel()(delayed(nested)(n) for n in (2, 3)) == [
            ("SequentialBackend", [0, 1]),
            ("SequentialBackend", [0, 1, 4]),
        ]


def test_what_a_call_raises_is_raised_and_the_other_calls_are_cancelled(client: Client, group: str) -> None:
    with joblib.parallel_config(backend="everfaas"), pytest.raises(Unlucky) as caught:
        Parallel(batch_size=1, pre_dispatch="all")(delayed(fail_at)(n, 2) for n in range(8))
    assert caught.value.args == (2,)
    assert "in fail_at" in "".join(caught.value.__notes__)
    until(lambda: {task["status"] for task in records(client, group)} == {"COMPLETED", "FAILED", "CANCELLED"})


def test_a_timeout_cancels_what_runs(client: Client, group: str) -> None:
    with joblib.parallel_config(backend="everfaas"), pytest.raises(multiprocessing.TimeoutError):  # joblib's own
        Parallel(timeout=1)(delayed(time.sleep)(LONG_S) for _ in range(2))
    until(lambda: {task["status"] for task in records(client, group)} == {"CANCELLED"})


def test_results_come_as_a_generator_and_leaving_it_cancels_the_rest(client: Client, group: str) -> None:
    with joblib.parallel_config(backend="everfaas"):
        ends = Parallel(return_as="generator_unordered", batch_size=1)(delayed(fail_at)(n, 1) for n in (0, 2, 3))
        assert next(ends) == 0
        with warnings.catch_warnings(action="ignore"):  # joblib warns of generators that are not exhausted
            ends.close()
    until(lambda: {task["status"] for task in records(client, group)} == {"COMPLETED", "CANCELLED"})


def test_a_parallel_can_be_used_again_and_leaves_no_thread(group: str) -> None:
    before = set(threading.enumerate())
    with joblib.parallel_config(backend="everfaas"), Parallel() as parallel:
        for _ in range(3):
            assert parallel(delayed(square)(n) for n in range(3)) == [0, 1, 4]
    until(lambda: not [one for one in set(threading.enumerate()) - before if one.name.startswith("everfaas-joblib")])


def test_arguments_that_fill_the_outbox_do_not_stop_it(group: str) -> None:
    large = bytes(24 * 1024**2)  # of which three are more than may wait to be sent
    with joblib.parallel_config(backend="everfaas"):
        sizes = Parallel(pre_dispatch="all", batch_size=1)(delayed(len)(large) for _ in range(6))
    assert sizes == [len(large)] * 6


def test_an_argument_that_the_api_will_not_take_is_refused(group: str) -> None:
    larger = bytes(33 * 1024**2)
    with joblib.parallel_config(backend="everfaas"), pytest.raises(ApiRefused) as caught:
        Parallel()(delayed(len)(one) for one in (larger, b"2"))
    assert caught.value.status == 413


def test_options_go_to_the_calls(client: Client, group: str) -> None:
    with joblib.parallel_config(backend="everfaas", n_jobs=2, priority=8, name="mine"):
        Parallel()(delayed(square)(n) for n in range(2))
    tasks = records(client, group)
    assert {task["priority"] for task in tasks} == {8}
    assert client.api.get(f"/v1/functions/{tasks[0]['function_id']}")["name"] == "mine"


@pytest.mark.usefixtures("group")
def test_an_option_that_does_not_exist_is_refused() -> None:
    with pytest.raises(TypeError, match=r"priorty.*did you mean priority"):
        register_joblib(priorty=3)
    with pytest.raises(TypeError, match="max_retries"), joblib.parallel_config(backend="everfaas", max_retries=3):
        pass


def test_without_slots_calls_wait_for_a_worker(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client.api, "get", lambda path: {"workers": []})
    assert FleetBackend(client=client).effective_n_jobs(-1) == 1


def test_without_joblib_it_says_what_to_install(tmp_path: Path) -> None:
    script = """
import sys
class NoJoblib:
    def find_spec(self, name, path=None, target=None):
        if name == "joblib":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, NoJoblib())
from everfaas_core import register_joblib
register_joblib()
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=LONG_S)
    assert done.returncode == 1
    assert done.stderr.endswith("ImportError: joblib is not installed: pip install 'everfaas[joblib]'\n")
