"""What the API's tests drive it with: a server in a thread, a tiny dispatcher, and payloads."""

from __future__ import annotations

import codecs
import os
import socket
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

import dill
import flask
import requests

from everfaas_core.api import ApiServer, ApiSettings, create_app
from everfaas_core.api import answers as answer_schemas
from everfaas_core.model.ids import RANDOM_BYTES, DispatcherId, TaskId, WorkerId, task_id
from everfaas_core.model.records import ClaimedTask, Finish, FleetReport, Start, Turn, WorkerInfo
from everfaas_core.model.states import Cause, Status
from everfaas_core.ports import Store
from everfaas_core.runtime.signals import StopRequest

UNKNOWN_ID = "00000000-0000-0000-0000-000000000000"
WORKER = WorkerId("worker-1")


def encode(thing: object) -> str:
    """Serialize as v0 clients do."""
    return codecs.encode(dill.dumps(thing), "base64").decode()


def double(x: int) -> int:
    return x * 2


FUNCTION = encode(lambda x: x * 2)
CALL = encode(((21,), {}))


def issued_id(store: Store) -> TaskId:
    """Return an id as this store's API would have issued it; there is no task of it (any more)."""
    return task_id(time.time_ns() // 1_000_000, os.urandom(RANDOM_BYTES), store.secret())


def eventually(condition: Callable[[], bool], *, within_s: float = 20.0) -> None:
    """Insist that something becomes true."""
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)


class Served:
    """An ApiServer in a thread."""

    def __init__(self, store: Store, settings: ApiSettings, blueprints: Iterable[flask.Blueprint] = ()) -> None:
        self.app = create_app(store, settings, blueprints)
        self.server = ApiServer(self.app, "127.0.0.1", 0, settings)
        self.url = self.server.address
        self.port = int(self.url.rpartition(":")[2])
        self.http = requests.Session()
        self.stop = StopRequest()
        self.thread = threading.Thread(target=self.server.run, args=(self.stop,))
        self.thread.start()

    def __enter__(self) -> Served:
        return self

    def __exit__(self, *_: object) -> None:
        self.http.close()
        self.stop.request()
        self.thread.join(30)
        assert not self.thread.is_alive(), "the server did not end"
        self.stop.close()

    def get(self, path: str, **kwargs: Any) -> requests.Response:
        return self.http.get(self.url + path, timeout=60, **kwargs)

    def post(self, path: str, body: object = None, **kwargs: Any) -> requests.Response:
        if body is not None:
            kwargs["json"] = body
        return self.http.post(self.url + path, timeout=60, **kwargs)

    def register(self, name: str = "double", payload: str = FUNCTION) -> str:
        answer = self.post("/register_function", {"name": name, "payload": payload})
        assert answer.status_code == 201, answer.text
        return str(answer.json()["function_id"])

    def execute(self, function_id: str, payload: str = CALL) -> str:
        answer = self.post("/execute_function", {"function_id": function_id, "payload": payload})
        assert answer.status_code == 201, answer.text
        return str(answer.json()["task_id"])

    def raw(self, sent: bytes, *, timeout_s: float = 30.0) -> bytes:
        """Send bytes over a socket and return all that comes back until the server closes."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=timeout_s) as connection:
            connection.sendall(sent)
            return read_all(connection)


def read_all(connection: socket.socket) -> bytes:
    parts = []
    while part := connection.recv(65536):
        parts.append(part)
    return b"".join(parts)


class TinyDispatcher:
    """Claims and finishes tasks through the store's own contract, without running anything."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.id = DispatcherId(f"tiny-{os.urandom(4).hex()}")

    def join(self, slots: int = 4, name: str = "host-1") -> tuple[WorkerId, ...]:
        """Prove to be alive, with one worker (none for 0 slots); return the workers that are to be drained."""
        worker = WorkerInfo(
            worker_id=WORKER,
            host=name,
            pid=1,
            slots=slots,
            busy=0,
            draining=False,
            python="3.12",
            dill="0.4",
            joined_ms=1,
        )
        report = FleetReport(
            dispatcher_id=self.id,
            mode="local",
            host=name,
            pid=1,
            started_ms=1,
            workers=(worker,) if slots else (),
        )
        return self.store.exchange(Turn(dispatcher_id=self.id, report=report, lease_s=600)).drains

    def claim(self, count: int) -> tuple[ClaimedTask, ...]:
        return self.store.exchange(Turn(dispatcher_id=self.id, claim=count)).claimed

    def start(self, *tasks: ClaimedTask) -> None:
        starts = tuple(Start(task_id=task.task_id, attempt=task.attempt + 1, worker=WORKER) for task in tasks)
        assert all(self.store.exchange(Turn(dispatcher_id=self.id, starts=starts)).started)

    def finish(
        self,
        *tasks: ClaimedTask,
        result: bytes = b"result",
        status: Status = Status.COMPLETED,
        cause: Cause = Cause.OK,
        error: str | None = None,
    ) -> None:
        finishes = tuple(
            Finish(
                task_id=task.task_id,
                attempt=task.attempt + 1,
                status=status,
                cause=cause,
                result=result,
                error=error,
                run_s=0.5,
            )
            for task in tasks
        )
        assert all(self.store.exchange(Turn(dispatcher_id=self.id, finishes=finishes)).finished)

    def run(self, count: int = 1, **outcome: Any) -> list[str]:
        """Claim, start and finish so many tasks; return their ids."""
        claimed: list[ClaimedTask] = []
        eventually(lambda: len(claimed) >= count or bool(claimed.extend(self.claim(count - len(claimed)))))
        self.start(*claimed)
        self.finish(*claimed, **outcome)
        return [str(task.task_id) for task in claimed]


def assert_fits(schema_name: str, body: object) -> None:
    """Insist that an answer is what the OpenAPI document says."""
    schema = getattr(answer_schemas, schema_name)()
    problems = schema.validate(body)
    assert not problems, (problems, body)


def assert_error(answer: requests.Response, status: int, code: str) -> dict[str, Any]:
    """Insist on the one shape of errors; return its `error`."""
    assert answer.status_code == status, (answer.status_code, answer.text[:500])
    assert answer.headers["Content-Type"] == "application/json"
    body = answer.json()
    assert_fits("ErrorAnswer", body)
    assert isinstance(body["detail"], str)
    assert body["detail"].startswith(body["error"]["message"])
    assert body["error"]["code"] == code, body
    error: dict[str, Any] = body["error"]
    return error
