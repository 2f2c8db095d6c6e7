"""The work that `everfaas bench` has a running system do, through its API, and how long that takes.

Results are pickles, and nothing here loads one: they are compared as bytes, and why a task failed is read from its
record.
"""

from __future__ import annotations

import pickle
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

import dill

from everfaas_core.client.errors import ApiFailed
from everfaas_core.client.http import Api
from everfaas_core.model.states import TERMINAL

RESULT_TTL_S: Final = 60.0  # nothing of a measurement is kept for longer
BATCH_TASKS: Final = 1_000
BATCH_BYTES: Final = 8 * 1024 * 1024  # of payloads in one request: a quarter of what a server takes by default
AHEAD_BATCHES: Final = 10
"""Batches that are submitted and not yet in hand: so much is queued at once, whatever --tasks says."""

WAIT_S: Final = 30.0  # of one long-poll
WARM_NAP_S: Final = 0.01
WARM_BYTES: Final = 64
STALLED_S: Final = 120.0
"""When nothing has ended for so long, the measurement is given up."""

Function = Callable[..., Any]
Call = tuple[tuple[Any, ...], bytes]  # arguments, and bytes that the pickle of the result has to contain
NONE: Final = b"N."  # the end of None's pickle, in every protocol


class Workload:
    """Registers its functions when it is made, `further` ones too; every measurement checks the results.

    All times are wall clock seconds and include the pickling of arguments. `take` is called with each result, for
    clients that load them.
    """

    def __init__(
        self,
        api: Api,
        further: Mapping[str, Function] | None = None,
        take: Callable[[bytes], object] = lambda result: None,
    ) -> None:
        self._api = api
        self._take = take
        self._functions = {
            name: self._register(name, function) for name, function in {**functions(), **(further or {})}.items()
        }

    def warm_up(self, slots: int) -> None:
        """Have each slot load the code."""
        self.batches_s(slots)
        self.echoes_s(slots, WARM_BYTES)
        self.naps_s(slots, WARM_NAP_S)

    def batches_s(self, count: int) -> float:
        """Run `count` no-ops in batches; return how long it took until all results were in hand."""
        return self.run_s("noop", [((), NONE)] * count)

    def calls_s(self, count: int) -> list[float]:
        """Make single calls of the no-op, one after the other, and return how long each took."""
        return [self._call_s() for _ in range(count)]

    def naps_s(self, count: int, seconds: float) -> float:
        """Run `count` naps of so many seconds; return how long it took until all had ended."""
        return self.run_s("nap", [((seconds,), NONE)] * count)

    def echoes_s(self, count: int, size_bytes: int) -> float:
        """Send `count` different arguments of this size, and return how long it took to have all of them back."""
        blobs = [number.to_bytes(8, "big") * (size_bytes // 8) for number in range(count)]
        return self.run_s("echo", [((blob,), blob) for blob in blobs])

    def run_s(self, name: str, calls: Sequence[Call]) -> float:
        """Run calls of one function in batches; return the seconds from the first submit to the last result."""
        function_id = self._functions[name]
        began = time.perf_counter()
        results: list[bytes] = []
        ahead: deque[list[str]] = deque()
        for batch in _batches(calls):
            tasks = [{"function_id": function_id, "payload": payload} for payload in batch]
            ahead.append(self._api.post("/v1/tasks:batch", {"tasks": tasks})["task_ids"])
            if len(ahead) == AHEAD_BATCHES:
                results += self._collect(ahead.popleft())
        while ahead:
            results += self._collect(ahead.popleft())
        took_s = time.perf_counter() - began
        if any(expected not in result for result, (_, expected) in zip(results, calls, strict=True)):
            raise ApiFailed("a result is not the one that was to come back", hint="please report this as a bug")
        return took_s

    def _register(self, name: str, function: Function) -> str:
        """Register with a short retention as the function's option, so that tasks need none of their own."""
        body = {
            "name": f"everfaas-bench-{name}",
            "payload": dill.dumps(function, recurse=True),
            "result_ttl_s": RESULT_TTL_S,
            "python": f"{sys.version_info.major}.{sys.version_info.minor}",
        }
        return str(self._api.post("/v1/functions", body)["function_id"])

    def _call_s(self) -> float:
        began = time.perf_counter()
        body = {"function_id": self._functions["noop"], "payload": packed(), "wait_s": WAIT_S}
        answer = self._api.post("/v1/tasks", body)
        if answer.get("status") in TERMINAL:
            self._result(answer)
        else:  # no place for a waiting request was free
            self._collect([answer["task_id"]])
        return time.perf_counter() - began

    def _collect(self, task_ids: Sequence[str]) -> list[bytes]:
        """Return the results of a batch, in order. Raises ApiFailed for a task that failed, and when nothing ends.

        Each time it waits for the last task only, and then asks for all: to be answered whenever any of a thousand has
        ended costs more than the tasks.
        """
        results: dict[str, bytes] = {}
        pending = list(task_ids)
        heard_at = time.perf_counter()
        while pending:
            self._api.post("/v1/tasks:wait", {"task_ids": pending[-1:], "wait_s": WAIT_S, "results": False})
            answer = self._api.post("/v1/tasks:wait", {"task_ids": pending, "results": True})
            for ended in answer["ended"]:
                results[ended["task_id"]] = self._result(ended)
            if answer["unknown"] or answer["expired"]:
                raise ApiFailed(
                    "the system has lost or dropped tasks of this measurement",
                    hint="was its store flushed, or this process stopped for a minute? Measure again",
                )
            if answer["ended"]:
                heard_at = time.perf_counter()
                pending = [task_id for task_id in pending if task_id not in results]
            elif time.perf_counter() - heard_at > STALLED_S:
                raise ApiFailed(
                    f"nothing has ended for {STALLED_S:g} s: {len(pending)} tasks wait",
                    hint="is there a worker, and is it busy with other work? See GET /v1/workers",
                )
        return [results[task_id] for task_id in task_ids]

    def _result(self, ended: Mapping[str, Any]) -> bytes:
        """Return a task's result. Raises ApiFailed, with the reason, if it has none."""
        if ended["status"] == "COMPLETED":
            result: bytes = ended["result"]
            self._take(result)
            return result
        record = self._api.get(f"/v1/tasks/{ended['task_id']}")
        last = str(record["error"] or record["cause"]).strip().splitlines()[-1]
        raise ApiFailed(
            f"a task of the measurement ended {ended['status']}: {last}",
            hint=f"its record says more: GET /v1/tasks/{ended['task_id']}",
        )


def functions() -> dict[str, Function]:
    """Make the functions to run. Made in here they travel by value: a worker needs nothing of ours to load them."""

    def noop() -> None:
        return None

    def nap(seconds: float) -> None:
        import time

        time.sleep(seconds)

    def echo(blob: bytes) -> bytes:
        return blob

    return {"noop": noop, "nap": nap, "echo": echo}


def packed(*arguments: Any) -> bytes:
    """Return the payload of a call; plain data, for which pickle does what dill would."""
    return pickle.dumps((arguments, {}))


def _batches(calls: Sequence[Call]) -> Iterator[list[bytes]]:
    batch: list[bytes] = []
    size = 0
    for arguments, _ in calls:
        payload = packed(*arguments)
        if batch and (len(batch) == BATCH_TASKS or size + len(payload) > BATCH_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(payload)
        size += len(payload)
    if batch:
        yield batch
