"""Requests to the API of a whole system, over one kept-alive connection: what each costs, and whose CPU it is."""

from __future__ import annotations

import base64
import http.client
import json
import os
import pickle
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import dill
import msgspec

from bench.e2e.system import running
from bench.e2e.usage import cpu_s, pids_of
from bench.micro.meter import Cost, Meter
from bench.peers.processes import descendants

TITLE = "API request"
ONES = 300  # requests of one repetition
BATCH = 1_000
BATCHES = 5
WAIT_S = 30.0
NO_ARGUMENTS = pickle.dumps(((), {}))
JSON, MSGPACK = "application/json", "application/msgpack"


def measure(repeats: int) -> list[Cost]:
    """Return what each request costs. CPU is that of this client, the API, the store, and all else (mode local)."""
    with running("local") as url:
        parts = Parts()
        meter = Meter(api=parts.api, store=parts.store, rest=parts.rest)
        client = _Client(url)
        for _ in range(repeats):
            client.measure(meter)
        return meter.costs()


class Parts:
    """The processes of the one system that runs below this process, by what they are for."""

    def __init__(self) -> None:
        self._api, self._store = pids_of("api"), pids_of("store")
        if not self._api or not self._store:
            raise RuntimeError("the API or the store of the system is not among the processes")

    def api(self) -> float:
        return cpu_s(self._api)

    def store(self) -> float:
        return cpu_s(self._store)

    def rest(self) -> float:
        """Dispatcher, nursery, slots, and the supervisor of them all."""
        return cpu_s([pid for pid in descendants(os.getpid()) if pid not in self._api + self._store])


class _Client:
    """http.client with prepared bodies, so that what the client packs does not count."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._connection = http.client.HTTPConnection(str(parts.hostname), parts.port, timeout=WAIT_S * 2)
        code = base64.b64encode(dill.dumps(lambda: None, recurse=True)).decode()
        self._function = self._post("/v1/functions", JSON, {"name": "no_op", "payload": code})["function_id"]
        self._run_all(MSGPACK)

    def measure(self, meter: Meter) -> None:
        """Make each request as often as a repetition asks for."""
        text = {"function_id": self._function, "payload": base64.b64encode(NO_ARGUMENTS).decode()}
        raw = {"function_id": self._function, "payload": NO_ARGUMENTS}
        with meter.phase("healthz", ONES):
            for _ in range(ONES):
                self._call("GET", "/healthz", JSON, None)
        with meter.phase("v0 submit, the task runs", ONES):
            ids = self._ones("/execute_function", JSON, text)
        self._wait_for(ids, JSON)
        with meter.phase("v0 result of an ended task", ONES):
            for task_id in ids:
                self._call("GET", f"/result/{task_id}", JSON, None)
        for kind, body in ((JSON, text), (MSGPACK, raw)):
            name = kind.partition("/")[2]
            with meter.phase(f"v1 submit and wait, {name}", ONES):
                self._ones("/v1/tasks", kind, body | {"wait_s": WAIT_S})
        for kind in (JSON, MSGPACK):
            self._run_all(kind, meter)

    def _run_all(self, kind: str, meter: Meter | None = None) -> None:
        """Submit batches, and when all have ended, ask for the results of a batch with each request.

        While the first is measured, tasks run already; while the second is, none do.
        """
        name = kind.partition("/")[2]
        payload = NO_ARGUMENTS if kind == MSGPACK else base64.b64encode(NO_ARGUMENTS).decode()
        body = _encoder(kind)({"tasks": [{"function_id": self._function, "payload": payload}] * BATCH})
        answers: list[bytes] = []

        def submit() -> None:
            answers.extend(self._call("POST", "/v1/tasks:batch", kind, body) for _ in range(BATCHES))

        def collect() -> None:
            for request in requests:
                self._call("POST", "/v1/tasks:wait", kind, request)

        _in_phase(meter, f"batch of {BATCH:,}, {name}, the tasks run", submit)
        batches = [_decoder(kind)(answer)["task_ids"] for answer in answers]
        for batch in batches:
            self._wait_for(batch, kind)
        requests = [_encoder(kind)({"task_ids": batch}) for batch in batches]
        _in_phase(meter, f"tasks:wait of {BATCH:,} ended, {name}", collect)

    def _ones(self, path: str, kind: str, body: dict[str, Any]) -> list[str]:
        packed, decode = _encoder(kind)(body), _decoder(kind)
        return [decode(self._call("POST", path, kind, packed))["task_id"] for _ in range(ONES)]

    def _wait_for(self, ids: list[str], kind: str) -> None:
        pending = ids
        while pending:
            answer = self._post("/v1/tasks:wait", kind, {"task_ids": pending, "wait_s": WAIT_S, "results": False})
            ended = {task["task_id"] for task in answer["ended"]}
            if any(task["status"] != "COMPLETED" for task in answer["ended"]):
                raise RuntimeError("a no-op failed")
            pending = [task_id for task_id in pending if task_id not in ended]

    def _post(self, path: str, kind: str, body: dict[str, Any]) -> Any:
        return _decoder(kind)(self._call("POST", path, kind, _encoder(kind)(body)))

    def _call(self, method: str, path: str, kind: str, body: bytes | None) -> bytes:
        self._connection.request(method, path, body, {"Content-Type": kind, "Accept": kind})
        answer = self._connection.getresponse()
        content = answer.read()
        if answer.status >= http.client.BAD_REQUEST:
            raise RuntimeError(f"{method} {path}: {answer.status} {content[:200]!r}")
        return content


def _in_phase(meter: Meter | None, what: str, work: Callable[[], None]) -> None:
    if meter is None:
        work()
        return
    with meter.phase(what, BATCHES):
        work()


def _encoder(kind: str) -> Callable[[Any], bytes]:
    return msgspec.msgpack.encode if kind == MSGPACK else lambda body: json.dumps(body).encode()


def _decoder(kind: str) -> Callable[[bytes], Any]:
    return msgspec.msgpack.decode if kind == MSGPACK else json.loads
