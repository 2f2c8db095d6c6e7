"""What the benchmarks do over HTTP: `requests` and `dill`, nothing of ours."""

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


NO_ARGUMENTS = serialize(((), {}))


class BenchClient:
    def __init__(self, url: str) -> None:
        self.url = url
        self.session = requests.Session()

    def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        answer = self.session.post(self.url + path, json=body, timeout=120)
        answer.raise_for_status()
        return answer.json()

    def register(self, function: Callable[..., Any], name: str) -> str:
        payload = codecs.encode(dill.dumps(function, recurse=True), "base64").decode()
        return str(self.post("/v1/functions", {"name": name, "payload": payload})["function_id"])

    def call(self, function_id: str) -> dict[str, Any]:
        body = {"function_id": function_id, "payload": NO_ARGUMENTS, "wait_s": 30}
        answer = self.post("/v1/tasks", body)
        if answer["status"] != "COMPLETED":
            raise RuntimeError(answer)
        return answer

    def timed_call(self, function_id: str) -> float:
        started = time.perf_counter()
        self.call(function_id)
        return time.perf_counter() - started

    def sleeps(self, function_id: str, count: int, seconds: float) -> float:
        payload = serialize(((seconds,), {}))
        started = time.perf_counter()
        ids = [
            self.post("/execute_function", {"function_id": function_id, "payload": payload})["task_id"]
            for _ in range(count)
        ]
        self.wait_all(ids)
        return time.perf_counter() - started

    def classic_rate(self, function_id: str, count: int) -> float:
        started = time.perf_counter()
        for _ in range(count):
            body = {"function_id": function_id, "payload": NO_ARGUMENTS}
            task_id = self.post("/execute_function", body)["task_id"]
            while True:
                answer = self.session.get(f"{self.url}/result/{task_id}", timeout=30).json()
                if answer["status"] in TERMINAL:
                    break
        return count / (time.perf_counter() - started)

    def batch_rate(self, function_id: str, count: int) -> float:
        started = time.perf_counter()
        ids: list[str] = []
        for begin in range(0, count, 1000):
            tasks = [{"function_id": function_id, "payload": NO_ARGUMENTS}] * min(1000, count - begin)
            ids += self.post("/v1/tasks:batch", {"tasks": tasks})["task_ids"]
        self.wait_all(ids)
        return count / (time.perf_counter() - started)

    def wait_all(self, ids: list[str]) -> None:
        """Wait for all of them, results in hand."""
        pending = ids
        while pending:
            answer = self.post("/v1/tasks:wait", {"task_ids": pending[:5000], "wait_s": 30, "results": True})
            ended = {task["task_id"] for task in answer["ended"]}
            if any(task["status"] != "COMPLETED" for task in answer["ended"]):
                raise RuntimeError("a task failed")
            pending = [one for one in pending if one not in ended]
