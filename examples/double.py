"""The smallest client: register a function, call it, fetch the result. Uses the four calls of v0 and nothing else.

    pip install requests dill
    python examples/double.py [URL]

The address is the first argument, or EVERFAAS_URL, or http://127.0.0.1:8000.
"""

from __future__ import annotations

import codecs
import os
import sys
import time
from typing import Any

import dill
import requests

URL = sys.argv[1] if len(sys.argv) > 1 else os.environ.get("EVERFAAS_URL", "http://127.0.0.1:8000")
POLL_S = 0.05
PATIENCE_S = 60.0


def pack(thing: object) -> str:
    return codecs.encode(dill.dumps(thing), "base64").decode()


def unpack(text: str) -> Any:
    return dill.loads(codecs.decode(text.encode(), "base64"))


def post(path: str, **body: object) -> Any:
    try:
        answer = requests.post(f"{URL}{path}", json=body, timeout=30)
    except requests.ConnectionError:
        sys.exit(f"nobody answers at {URL}: start a system with `everfaas up`, or name another address")
    if not answer.ok:
        sys.exit(f"{path}: {answer.json()['detail']}")
    return answer.json()


def double(x: int) -> int:
    return x * 2


def main() -> None:
    function_id = post("/register_function", name="double", payload=pack(double))["function_id"]
    task_id = post("/execute_function", function_id=function_id, payload=pack(((21,), {})))["task_id"]

    until = time.monotonic() + PATIENCE_S
    task = requests.get(f"{URL}/result/{task_id}", timeout=30).json()
    while task["status"] in ("QUEUED", "RUNNING"):
        if time.monotonic() > until:
            sys.exit(f"task {task_id} is still {task['status']} after {PATIENCE_S:g} s: is a worker running?")
        time.sleep(POLL_S)
        task = requests.get(f"{URL}/result/{task_id}", timeout=30).json()

    result = unpack(task["result"])
    if task["status"] != "COMPLETED":  # then the result is the exception
        raise result
    print(f"double(21) = {result}")


if __name__ == "__main__":
    main()
