"""What the benchmarks do over HTTP: `requests` and `dill`, nothing of ours."""

from __future__ import annotations

import codecs
import pickle
import time
from collections.abc import Callable
from typing import Any

import dill
import requests

BATCH = 1_000
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
        content: dict[str, Any] = answer.json()
        return content

    def register(self, function: Callable[..., Any], name: str) -> str:
        payload = codecs.encode(dill.dumps(function, recurse=True), "base64").decode()
        return str(self.post("/v1/functions", {"name": name, "payload": payload})["function_id"])

    def call(self, function_id: str) -> dict[str, Any]:
        body = {"function_id": function_id, "payload": NO_ARGUMENTS, "wait_s": 30}
        answer = self.post("/v1/tasks", body)
        if answer["status"] != "COMPLETED":
            raise RuntimeError(answer)
        return answer

    def polled(self, function_id: str, arguments: str, every_s: float) -> tuple[float, int]:
        """Call through v0 and poll, at once and then after each `every_s`; return the seconds it took and the polls."""
        started = time.perf_counter()
        body = {"function_id": function_id, "payload": arguments}
        task_id = self.post("/execute_function", body)["task_id"]
        polls = 1
        while self.session.get(f"{self.url}/result/{task_id}", timeout=30).json()["status"] not in TERMINAL:
            time.sleep(every_s)
            polls += 1
        return time.perf_counter() - started, polls

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
        """Submit all in batches, then take the results batch by batch, each one loaded; return tasks a second."""
        started = time.perf_counter()
        batches: list[list[str]] = []
        for begin in range(0, count, BATCH):
            tasks = [{"function_id": function_id, "payload": NO_ARGUMENTS}] * min(BATCH, count - begin)
            batches.append(self.post("/v1/tasks:batch", {"tasks": tasks})["task_ids"])
        for ids in batches:
            for task in self.wait_all(ids):
                pickle.loads(codecs.decode(task["result"].encode(), "base64"))
        return count / (time.perf_counter() - started)

    def wait_all(self, ids: list[str]) -> list[dict[str, Any]]:
        """Wait for all of them; return what came of each, in the order of their ends."""
        found: list[dict[str, Any]] = []
        pending = ids
        while pending:
            answer = self.post("/v1/tasks:wait", {"task_ids": pending[:5000], "wait_s": 30, "results": True})
            found += answer["ended"]
            ended = {task["task_id"] for task in answer["ended"]}
            if any(task["status"] != "COMPLETED" for task in answer["ended"]):
                raise RuntimeError("a task failed")
            pending = [one for one in pending if one not in ended]
        return found
