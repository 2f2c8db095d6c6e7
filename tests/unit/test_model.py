"""Ids, states and failures: what clients and stores rely on."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import uuid

import dill
from hypothesis import given
from hypothesis import strategies as st

from everfaas_core.model.failure import failure_payload
from everfaas_core.model.ids import RANDOM_BYTES, SECRET_BYTES, function_id, is_id, issued_here, task_id
from everfaas_core.model.states import ENDS_AS, RETRIED, TERMINAL, TRANSITIONS, Cause, Status

SECRET = b"s" * SECRET_BYTES


@given(st.integers(0, 2**48 - 1), st.binary(min_size=RANDOM_BYTES, max_size=RANDOM_BYTES))
def test_task_ids_are_uuids_that_their_store_recognizes(now_ms: int, entropy: bytes) -> None:
    made = task_id(now_ms, entropy, SECRET)
    assert uuid.UUID(made).version == 8
    assert uuid.UUID(made).variant == uuid.RFC_4122
    assert str(uuid.UUID(made)) == made
    assert issued_here(made, SECRET)
    assert not issued_here(made, b"another secret!!")


def test_ids_nobody_issued_are_not_recognized() -> None:
    assert not issued_here("00000000-0000-0000-0000-000000000000", SECRET)
    assert not any(issued_here(str(uuid.uuid4()), SECRET) for _ in range(1000))
    assert not issued_here("nonsense", SECRET)


def test_task_ids_sort_by_time() -> None:
    made = [task_id(now_ms, os.urandom(RANDOM_BYTES), SECRET) for now_ms in range(1_700_000_000_000, 1_700_000_000_500)]
    assert made == sorted(made)
    assert len({task_id(5, os.urandom(RANDOM_BYTES), SECRET) for _ in range(10_000)}) == 10_000


def test_function_ids_come_from_content() -> None:
    assert function_id("f", b"code", b"") == function_id("f", b"code", b"")
    others = [("g", b"code", b""), ("f", b"cod", b"e"), ("f", b"code", b"x"), ("fc", b"ode", b"")]
    assert len({function_id("f", b"code", b""), *(function_id(*other) for other in others)}) == 5
    assert is_id(function_id("f", b"code", b""))


def test_what_is_an_id() -> None:
    assert is_id("00000000-0000-0000-0000-000000000000")
    for text in ("", "x", "0" * 36, "00000000-0000-0000-0000-00000000000g", "00000000-0000-0000-0000-000000000000\n"):
        assert not is_id(text)


def test_terminal_statuses_have_no_way_out_and_all_others_have() -> None:
    assert {status for status in Status if not TRANSITIONS[status]} == TERMINAL
    assert set(ENDS_AS) == set(Cause) - {Cause.GIVEN_BACK}
    assert set(ENDS_AS.values()) == TERMINAL
    assert all(ENDS_AS[cause] is Status.FAILED for cause in RETRIED)


def test_a_worker_failure_reads_well() -> None:
    failure = dill.loads(failure_payload("deadline", "exceeded deadline of 2 s", traceback="remote"))
    assert isinstance(failure, RuntimeError)
    assert type(failure).__name__ == "WorkerFailure"
    assert str(failure) == "WorkerFailure: exceeded deadline of 2 s"
    assert failure.code == "deadline"
    assert failure.__notes__ == ["remote"]
    assert str(dill.loads(dill.dumps(failure))) == str(failure)


def test_a_worker_failure_loads_where_nothing_of_ours_is_installed(tmp_path) -> None:
    path = tmp_path / "payload"
    path.write_bytes(failure_payload("slot_crashed", "killed by signal 11"))
    code = f"import pickle; e = pickle.load(open({str(path)!r}, 'rb')); print(e, '|', type(e).__name__)"
    done = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "WorkerFailure: killed by signal 11 | WorkerFailure\n"
    assert b"everfaas_core" not in pickle.dumps(path.read_bytes())
