"""The clients of a chaos run: they submit, wait, poll, and write down what they saw. Plain HTTP, nothing of ours.

`client.jsonl` has one JSON object a line, `asked` and `at` being when a call began and when its answer was read:
`submitting` (number, kind, expected), `accepted` (number, task_id), `status` (task_id, status, and for results
digest and value), `call` (call, wait_s, answer).
"""

from __future__ import annotations

import base64
import hashlib
import json
import random
import sys
import threading
import time
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import dill
import requests

from . import functions
from .history import TERMINAL, Event

CHARGED: Final = ("slot_crashed", "worker_lost", "dispatcher_lost")
TIMEOUT_S: Final = 15.0  # far beyond the bound that the checker demands
WAIT_S: Final = 1.0
IDS_MAX: Final = 200  # in one call that waits
RETRY_S: Final = 0.1
MIX: Final = {"no-op": 35, "sleep": 35, "long": 5, "cpu": 10, "payload": 8, "raise": 7}
"""Kinds of tasks and their shares. "long" and "very long" are sleeps, too."""
MIX_VERY_LONG: Final = MIX | {"very long": 2}
"""With some that outlast every timeout between the roles, so that a wrong guess about who lives would show."""


class Log:
    """Appends events to `client.jsonl`, and keeps them for whoever asks while the run goes on."""

    def __init__(self, folder: Path) -> None:
        self._file = (folder / "client.jsonl").open("a", buffering=1)
        self._lock = threading.Lock()
        self.accepted: dict[str, int] = {}  # task id → number
        self.accepted_at: dict[int, float] = {}
        self.ended_at: dict[int, float] = {}  # when a client first saw the end
        self.answers: list[tuple[float, str]] = []  # instant and answer of each call

    def write(self, saw: str, **fields: Any) -> None:
        event: Event = {"saw": saw, "at": time.monotonic(), **fields}
        with self._lock:
            if saw == "accepted":
                self.accepted[event["task_id"]] = event["number"]
                self.accepted_at[event["number"]] = event["at"]
            elif saw == "status" and event["status"] in TERMINAL:
                self.ended_at.setdefault(self.accepted[event["task_id"]], event["at"])
            elif saw == "call":
                self.answers.append((event["at"], event["answer"]))
            self._file.write(json.dumps(event) + "\n")

    def close(self) -> None:
        self._file.close()


class Caller:
    """One user of the API. Goes to the next API process when one does not answer."""

    def __init__(self, urls: Sequence[str], log: Log, *, first: int = 0) -> None:
        self._urls = list(urls)
        self._at = first
        self._session = requests.Session()
        self.log = log

    def call(self, method: str, path: str, body: Event | None = None, wait_s: float = 0.0) -> tuple[float, Any]:
        """Make one call; return when it began, and the answer's body, or None if there was none or an error."""
        asked = time.monotonic()
        url = self._urls[self._at % len(self._urls)]
        found = None
        try:
            answer = self._session.request(method, url + path, json=body, timeout=wait_s + TIMEOUT_S)
            said = str(answer.status_code)
            if answer.ok:
                found = answer.json()
        except (requests.RequestException, ValueError) as error:
            said = type(error).__name__
        if found is None:
            self._at += 1
        self.log.write("call", call=f"{method} {path.partition('?')[0]}", asked=asked, wait_s=wait_s, answer=said)
        return asked, found

    def see(self, asked: float, entry: Event) -> str:
        """Write down a status, or a result if the answer has one. Returns the status."""
        fields = {"task_id": entry["task_id"], "status": entry["status"]}
        if entry["status"] in TERMINAL and entry.get("result"):
            fields |= self._value(entry)
        self.log.write("status", asked=asked, **fields)
        return str(entry["status"])

    def _value(self, entry: Event) -> Event:
        data = base64.b64decode(entry["result"])
        value = dill.loads(data)
        fields: Event = {"digest": hashlib.sha1(data).hexdigest()}
        if isinstance(value, BaseException):
            fields["value"] = f"{type(value).__name__}: {value}"
            if fields["value"].startswith("WorkerFailure"):
                fields |= self._used_up(entry["task_id"])
        else:
            number, execution, answer = value
            fields["value"] = [number, execution, zlib.crc32(answer) if isinstance(answer, bytes) else answer]
        return fields

    def _used_up(self, task_id: str) -> Event:
        """Look at the record of a dead letter: were its attempts used up?"""
        for _ in range(100):
            _, record = self.call("GET", f"/v1/tasks/{task_id}")
            if record is not None:
                causes = [attempt["cause"] for attempt in record["attempts"]]
                charged = sum(cause in CHARGED for cause in causes)
                return {"exhausted": charged >= record["max_attempts"], "causes": causes, "error": record["error"]}
            time.sleep(RETRY_S)
        return {"exhausted": False, "causes": ["the record could not be read"]}


class Load:
    """Submits mixed tasks at a steady rate until told to stop or `total` are accepted, and follows each to its end."""

    def __init__(
        self,
        urls: Sequence[str],
        folder: Path,
        *,
        rate: float,
        seed: int,
        total: int | None = None,
        mix: dict[str, int] | None = None,
        max_attempts: int = 20,
        group: str = "chaos",
        start: int = 1,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        functions.prepare(folder)
        self.urls, self.folder, self.log = list(urls), folder, Log(folder)
        self.max_attempts, self.group = max_attempts, group
        self._random = random.Random(seed)
        self._mix = mix or MIX
        self._rate, self._total, self._next = rate, total, start
        self._open: set[str] = set()  # accepted, and no end seen
        self._lock = threading.Lock()
        self._no_more = threading.Event()
        self._stopped = threading.Event()
        self._function_id = ""
        self._errors: list[BaseException] = []
        self._submitter = self._thread("submit", self._submit)
        self._followers = [
            *(self._thread(f"collect {number}", self._collect, number) for number in range(len(self.urls))),
            self._thread("poll", self._poll),
        ]

    def _thread(self, name: str, target: Callable[..., None], *args: int) -> threading.Thread:
        def run() -> None:
            try:
                target(*args)
            except BaseException as error:
                self._errors.append(error)
                raise

        return threading.Thread(target=run, name=name, daemon=True)

    # ── from outside ─────────────────────────────────────────────────────────────────────────────────────────────────

    def begin(self) -> None:
        """Register the function and start."""
        body = {
            "name": "work",
            "payload": base64.b64encode(dill.dumps(functions.work)).decode(),
            "max_attempts": self.max_attempts,
        }
        caller = Caller(self.urls, self.log)
        while not self._function_id:
            _, found = caller.call("POST", "/v1/functions", body)
            self._function_id = found["function_id"] if found else ""
        for thread in (self._submitter, *self._followers):
            thread.start()

    @property
    def pending(self) -> int:
        """How many accepted tasks have not been seen to end."""
        return len(self._open)

    @property
    def submitting(self) -> bool:
        """Whether more will be submitted."""
        return self._submitter.is_alive()

    def finish(self, wait_s: float) -> bool:
        """Submit no more; follow what is open for so long at most; read all results once more. False: some are open."""
        self._no_more.set()
        self._submitter.join(TIMEOUT_S * 2)
        until = time.monotonic() + wait_s
        while self._open and time.monotonic() < until and not self._errors:
            time.sleep(0.05)
        self._stopped.set()
        for thread in self._followers:
            thread.join(TIMEOUT_S * 2)
        self._read_again()
        self.log.close()
        if self._errors:
            raise self._errors[0]
        return not self._open

    def abandon(self) -> None:
        """Stop at once, and look at nothing any more."""
        self._no_more.set()
        self._stopped.set()

    # ── threads ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def _submit(self) -> None:
        caller = Caller(self.urls, self.log)
        due = time.monotonic()
        while not self._no_more.is_set() and (self._total is None or self._next <= self._total):
            due = max(due + self._random.expovariate(self._rate), time.monotonic() - 2.0)  # catches up, a little
            if self._no_more.wait(max(due - time.monotonic(), 0.0)):
                return
            self._submit_one(caller, self._next)
            self._next += 1

    def _submit_one(self, caller: Caller, number: int) -> None:
        """Submit until there is an answer: the key makes it one task, however often an answer is lost."""
        kind = self._random.choices([*self._mix], [*self._mix.values()])[0]
        amount = self._amount(kind)
        kind = "sleep" if kind in ("long", "very long", "longest") else kind
        payload = dill.dumps(((str(self.folder), number, kind, amount), {}))
        body = {
            "function_id": self._function_id,
            "payload": base64.b64encode(payload).decode(),
            "idempotency_key": f"{self.group}-{number}",
            "group": self.group,
        }
        expected = functions.answer_to(kind, amount)
        self.log.write("submitting", number=number, kind=kind, expected=expected)
        while True:
            _, found = caller.call("POST", "/v1/tasks", body)
            if found is not None:
                break
            if self._stopped.wait(RETRY_S):
                return
        self.log.write("accepted", number=number, task_id=found["task_id"])
        with self._lock:
            self._open.add(found["task_id"])

    def _amount(self, kind: str) -> float | bytes:
        match kind:
            case "sleep":
                return round(self._random.uniform(0.02, 0.5), 3)
            case "long":
                return round(self._random.uniform(1.0, 3.0), 3)
            case "very long":
                return round(self._random.uniform(6.0, 9.0), 3)
            case "longest":
                return round(self._random.uniform(14.0, 16.0), 3)
            case "cpu":
                return float(self._random.randrange(1_000, 50_000))
            case "payload":
                return self._random.randbytes(self._random.choice((1_000, 100_000, 300_000)))
        return 0.0

    def _collect(self, which: int) -> None:
        caller = Caller(self.urls, self.log, first=which)
        while not self._stopped.is_set():
            with self._lock:
                mine = [one for one in self._open if self.log.accepted[one] % len(self.urls) == which][:IDS_MAX]
            if not mine:
                self._stopped.wait(0.01)
            elif not self._wait_for(caller, mine, WAIT_S):
                self._stopped.wait(RETRY_S)

    def _wait_for(self, caller: Caller, ids: Sequence[str], wait_s: float) -> bool:
        asked, found = caller.call("POST", "/v1/tasks:wait", {"task_ids": list(ids), "wait_s": wait_s}, wait_s)
        if found is None:
            return False
        for entry in found["ended"]:
            caller.see(asked, entry)
        with self._lock:
            self._open.difference_update(entry["task_id"] for entry in found["ended"])
        gone = found["unknown"] + found["expired"]
        if gone:
            for task_id in gone:
                self.log.write("gone", task_id=task_id)  # the checker will miss its end
            return False
        return True

    def _poll(self) -> None:
        """Look at single tasks as a v0 client does: is a status ever seen to go back?"""
        caller = Caller(self.urls, self.log, first=1)
        watched: list[str] = []
        while not self._stopped.wait(0.05):
            with self._lock:
                fresh = list(self._open)[-20:]
            watched = [*watched[-3:], *fresh[-1:]]
            for task_id in watched[-2:]:
                path = self._random.choice(("/status/", "/result/"))
                asked, found = caller.call("GET", path + task_id)
                if found is not None:
                    caller.see(asked, found)

    def _read_again(self) -> None:
        """Read every result once more: it must be the same bytes."""
        caller = Caller(self.urls, self.log)
        ids = list(self.log.accepted)
        for start in range(0, len(ids), IDS_MAX):
            left = set(ids[start : start + IDS_MAX])
            for _ in range(50):
                asked, found = caller.call("POST", "/v1/tasks:wait", {"task_ids": list(left), "wait_s": 0.0})
                if found is None:
                    time.sleep(RETRY_S)
                    continue
                for entry in found["ended"]:
                    caller.see(asked, entry)
                left.difference_update(entry["task_id"] for entry in found["ended"])
                if not found["more"]:
                    break


def main(arguments: Sequence[str]) -> None:
    """Be a client in a process of its own, to be killed: URL FOLDER RATE."""
    url, folder, rate = arguments
    load = Load([url], Path(folder), rate=float(rate), seed=1, group=Path(folder).name)
    load.begin()
    threading.Event().wait()


if __name__ == "__main__":
    main(sys.argv[1:])
