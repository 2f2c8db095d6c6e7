"""The client that existing users have: `requests`, `dill`, and the four calls of v0."""

from __future__ import annotations

import codecs
import time
from collections.abc import Callable
from typing import Any

import dill
import requests

TERMINAL = ("COMPLETED", "FAILED", "CANCELLED")


def serialize(obj: Any) -> str:
    return codecs.encode(dill.dumps(obj), "base64").decode()


def deserialize(text: str) -> Any:
    return dill.loads(codecs.decode(text.encode(), "base64"))


class Classic:
    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/") + "/"
        self.session = requests.Session()

    def register(self, function: Callable[..., Any], name: str | None = None, payload: str | None = None) -> str:
        body = {"name": name or getattr(function, "__name__", "f"), "payload": payload or serialize(function)}
        answer = self.session.post(self.url + "register_function", json=body, timeout=30)
        assert answer.status_code == 201, answer.text
        return str(answer.json()["function_id"])

    def execute(self, function_id: str, *args: Any, **kwargs: Any) -> str:
        return self.execute_payload(function_id, serialize((args, kwargs)))

    def execute_payload(self, function_id: str, payload: str) -> str:
        body = {"function_id": function_id, "payload": payload}
        answer = self.session.post(self.url + "execute_function", json=body, timeout=30)
        assert answer.status_code == 201, answer.text
        return str(answer.json()["task_id"])

    def status(self, task_id: str) -> str:
        answer = self.session.get(self.url + f"status/{task_id}", timeout=30)
        assert answer.status_code == 200, answer.text
        assert answer.json()["task_id"] == task_id
        return str(answer.json()["status"])

    def wait(self, task_id: str, timeout_s: float = 60.0, poll_s: float = 0.02) -> dict[str, Any]:
        """The report's `wait_for_task_completion`: poll the result until the task has ended."""
        until = time.monotonic() + timeout_s
        while True:
            answer = self.session.get(self.url + f"result/{task_id}", timeout=30)
            assert answer.status_code == 200, answer.text
            body: dict[str, Any] = answer.json()
            if body["status"] in TERMINAL:
                return body
            assert body["result"] == ""
            assert time.monotonic() < until, f"{task_id} is still {body['status']} after {timeout_s} s"
            time.sleep(poll_s)

    def call(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> tuple[str, Any]:
        """Register, execute, wait; return the status and the value or exception."""
        body = self.wait(self.execute(self.register(function), *args, **kwargs))
        return body["status"], deserialize(body["result"])
