"""What the tasks of a chaos run do. Imported by slots; each execution writes a journal of its own doing.

Journal: JSON lines in one O_APPEND file. While it runs, an execution holds a lock on its task's file; the kernel lets
go of it at death and no sooner, so a second execution that can't get it overlaps for certain, and says so.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import time
import zlib
from collections.abc import Iterator
from pathlib import Path

KINDS = ("no-op", "sleep", "cpu", "payload", "raise", "crash-once")
SURVIVED = "survived"


def work(folder: str, number: int, kind: str, amount: float | bytes) -> tuple[int, str, object]:
    """Run one task. Returns its number, this execution's id, and the answer (see `answer_to`)."""
    with journaled(folder, number) as execution:
        return (number, execution, _do(folder, number, kind, amount, execution))


def answer_to(kind: str, amount: float | bytes) -> object:
    """Return the right answer; for a task that raises, the start of what its exception says."""
    if isinstance(amount, bytes):
        return zlib.crc32(amount)
    answers = {"sleep": amount, "cpu": _sum_of_squares(int(amount)), "crash-once": SURVIVED, "raise": "raised"}
    return answers.get(kind, 0)


def _do(folder: str, number: int, kind: str, amount: float | bytes, execution: str) -> object:
    if isinstance(amount, bytes):
        return amount
    match kind:
        case "sleep":
            time.sleep(amount)
            return amount
        case "cpu":
            return _sum_of_squares(int(amount))
        case "raise":
            raise ValueError(f"raised {number} {execution}")
        case "crash-once":
            with contextlib.suppress(FileExistsError):
                (Path(folder) / "crashed" / str(number)).touch(exist_ok=False)
                os._exit(17)
            return SURVIVED
    return 0


def _sum_of_squares(n: int) -> int:
    return sum(i * i for i in range(n))


# ── the journal ──────────────────────────────────────────────────────────────────────────────────────────────────────


def prepare(folder: Path) -> None:
    """Make the places that `work` writes to."""
    for name in ("locks", "crashed"):
        (folder / name).mkdir(parents=True, exist_ok=True)


@contextlib.contextmanager
def journaled(folder: str, number: int) -> Iterator[str]:
    """Write when this execution begins and ends, and whether it overlaps another of the same task."""
    execution = os.urandom(8).hex()
    lock = os.open(Path(folder) / "locks" / str(number), os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        _begin(folder, number, execution, lock)
        try:
            yield execution
        finally:
            _write(folder, do="end", number=number, execution=execution)
    finally:
        os.close(lock)


def _begin(folder: str, number: int, execution: str, lock: int) -> None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        other = os.pread(lock, 200, 0).decode().split()
        pid = int(other[0]) if other else 0
        _write(folder, do="overlap", number=number, execution=execution, other_pid=pid, other_state=_state(pid))
    else:
        os.pwrite(lock, f"{os.getpid():<10d} {execution}\n".encode(), 0)
    _write(folder, do="begin", number=number, execution=execution)


def _write(folder: str, **fields: object) -> None:
    line = json.dumps({"at": time.monotonic(), "pid": os.getpid(), **fields}) + "\n"
    journal = os.open(Path(folder) / "functions.jsonl", os.O_CREAT | os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC, 0o600)
    try:
        os.write(journal, line.encode())
    finally:
        os.close(journal)


def _state(pid: int) -> str:
    """Return the state letter of a process (T: stopped), or "" if there is none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (OSError, IndexError):
        return ""
