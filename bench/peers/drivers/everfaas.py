"""Ours: `everfaas up` in one of its modes, through HTTP, as any client sees it. Nothing of ours in the client."""

from __future__ import annotations

import base64
import http.client
import pickle
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import urlsplit

from bench.peers.drivers.base import RESULT_TIMEOUT_S, WORKERS, Driver, Setting
from bench.peers.drivers.work import FUNCTIONS

ROOT = Path(__file__).parents[3]
BATCH = 1_000  # tasks in a request
BATCH_BYTES = 4 * 1024**2  # of payloads in a request, so that work begins while the rest is on its way
WAIT_S = 30
JOINED_BYTES_MAX = 64 * 1024
AGAIN = "runs again, up to 3 attempts; exactly one terminal record"


class Everfaas(Driver):
    requirements = ""
    distribution = "everfaas"
    durability = "store's append-only file, fsync every second; each task's submit, start and end are written"
    settings = (
        Setting("default", "`requests`, JSON and base64, dill; tasks:batch and tasks:wait", AGAIN),
        Setting("best", "http.client, msgpack, pickle; tasks:batch and tasks:wait", AGAIN),
    )
    mode: ClassVar[str]

    def start(self) -> None:
        command = [sys.executable, "-m", "everfaas_core.cli", "up", "-m", self.mode, "-w", str(WORKERS), "--port", "0"]
        command += ["--data", str(self.place.folder / "data"), "--path", str(ROOT)]
        process = self.place.run(*command, output=subprocess.PIPE)
        assert process.stdout is not None
        url = next((line.split()[1] for line in process.stdout if line.startswith(b"ready ")), b"").decode()
        if not url:
            raise RuntimeError("`everfaas up` did not become ready")
        self.http: _Json | _Msgpack = _Msgpack(url) if self.best else _Json(url)
        self.ids = {name: self._register(name) for name in FUNCTIONS}

    def _register(self, name: str) -> str:
        payload = self.http.pack(FUNCTIONS[name])
        return str(self.http.post("/v1/functions", {"name": name, "payload": payload})["function_id"])

    def call(self, function: str, *arguments: Any) -> Any:
        payload = self.http.pack((arguments, {}))
        body = {"function_id": self.ids[function], "payload": payload, "wait_s": WAIT_S}
        return self._value(self.http.post("/v1/tasks", body))

    def many(self, function: str, arguments: Sequence[tuple[Any, ...]]) -> list[Any]:
        batches: list[list[str]] = []
        tasks: list[dict[str, Any]] = []
        size = 0
        for one in arguments:
            tasks.append({"function_id": self.ids[function], "payload": self.http.pack((one, {}))})
            size += len(tasks[-1]["payload"])
            if len(tasks) == BATCH or size > BATCH_BYTES:
                batches.append(self.http.post("/v1/tasks:batch", {"tasks": tasks})["task_ids"])
                tasks, size = [], 0
        if tasks:
            batches.append(self.http.post("/v1/tasks:batch", {"tasks": tasks})["task_ids"])
        results: dict[str, Any] = {}
        for batch in batches:
            self._collect(batch, results)
        return [results[task_id] for batch in batches for task_id in batch]

    def _collect(self, task_ids: list[str], results: dict[str, Any]) -> None:
        """Take a batch's results: wait for the last task only, then ask for all; to be answered for each costs more."""
        pending = task_ids
        while pending:
            self.http.post("/v1/tasks:wait", {"task_ids": pending[-1:], "wait_s": WAIT_S, "results": False})
            answer = self.http.post("/v1/tasks:wait", {"task_ids": pending, "results": True})
            results.update((task["task_id"], self._value(task)) for task in answer["ended"])
            pending = [task_id for task_id in pending if task_id not in results]

    def _value(self, task: dict[str, Any]) -> Any:
        value = self.http.unpack(task["result"])
        if task["status"] != "COMPLETED":
            raise RuntimeError(f"a task is {task['status']}: {value}")
        return value


class _Json:
    """What a plain script does: `requests`, JSON, base64 text, dill."""

    def __init__(self, url: str) -> None:
        import requests

        self._url = url
        self._session = requests.Session()

    def pack(self, thing: Any) -> str:
        import dill

        return base64.b64encode(dill.dumps(thing)).decode()

    def unpack(self, text: str) -> Any:
        import dill

        return dill.loads(base64.b64decode(text))

    def post(self, path: str, body: dict[str, Any]) -> Any:
        answer = self._session.post(self._url + path, json=body, timeout=RESULT_TIMEOUT_S)
        answer.raise_for_status()
        return answer.json()


class JoinedSends(http.client.HTTPConnection):
    """Sends a request's header and its body in one piece, if that is small."""

    pieces: list[bytes] | None = None

    def request(self, *args: Any, **kwargs: Any) -> None:
        self.pieces = []
        super().request(*args, **kwargs)
        pieces, self.pieces = self.pieces, None
        small = sum(map(len, pieces)) <= JOINED_BYTES_MAX
        for piece in [b"".join(pieces)] if small else pieces:
            self.send(piece)

    def send(self, data: Any) -> None:
        if self.pieces is None:
            super().send(data)
        else:
            self.pieces.append(data)


class _Msgpack:
    """What a client that wants speed does: one connection, msgpack with raw bytes, pickle."""

    def __init__(self, url: str) -> None:
        import msgspec

        parts = urlsplit(url)
        self._connection = JoinedSends(str(parts.hostname), parts.port, timeout=RESULT_TIMEOUT_S)
        self._headers = {"Content-Type": "application/msgpack", "Accept": "application/msgpack"}
        self._encode = msgspec.msgpack.encode
        self._decode = msgspec.msgpack.decode

    def pack(self, thing: Any) -> bytes:
        return pickle.dumps(thing)

    def unpack(self, data: bytes) -> Any:
        import dill

        return dill.loads(data)

    def post(self, path: str, body: dict[str, Any]) -> Any:
        self._connection.request("POST", path, self._encode(body), self._headers)
        answer = self._connection.getresponse()
        content = answer.read()
        if answer.status >= 400:
            raise RuntimeError(f"HTTP {answer.status}: {content[:200]!r}")
        return self._decode(content)


class Local(Everfaas):
    title = "everfaas local"
    mode = "local"


class Pull(Everfaas):
    title = "everfaas pull"
    mode = "pull"


class Push(Everfaas):
    title = "everfaas push"
    mode = "push"
