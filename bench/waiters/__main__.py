"""Hundreds of clients that wait: `python -m bench.waiters [--polls 500] [--streams 50] [--processes 1] [--hold 10]`.

Starts `everfaas up`, submits tasks that are due in a while, opens a long-poll for each of them and several streams for
each of a few groups, and leaves them waiting for `--hold` seconds. Then all tasks end at once. Meanwhile another
process asks /healthz fifty times a second, on a new connection each time. Prints the latencies, what the API process
costs in memory and CPU while they wait, and how long it took until the last one had its answer. Exits with 1 if a
waiter was lost, or /healthz took 100 ms or more while they waited or when they woke.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from dataclasses import dataclass

from bench.e2e.client import NO_ARGUMENTS, BenchClient
from bench.e2e.system import running
from bench.idle.gauge import Row, descendants, watch
from bench.soak.gauge import role_of
from bench.waiters.crowd import Client, Crowd, poll, stream
from bench.waiters.probe import Look, Probe
from everfaas_core.runtime.processes import allow_files

HEALTHZ_S_MAX = 0.1
OPENING_S = 5.0  # from the submit until all are open and the calm begins
CALM_BEFORE_S = 2.0
END_S = 30.0  # for all answers, once the tasks are due
GROUPS = 10
TASKS_OF_GROUP = 20


@dataclass(frozen=True)
class Figures:
    """What one run has seen. `before`, `waiting`, `waking`: the looks at /healthz in these stretches."""

    before: list[Look]
    waiting: list[Look]
    waking: list[Look]
    api_before: list[Row]
    api_waiting: list[Row]
    last_answer_s: float  # from the instant at which the tasks were due
    problems: list[str]


def submit(client: BenchClient, polls: int, streams: int, delay_s: float, wait_s: float) -> list[Client]:
    """Submit tasks that are due in `delay_s`, and return clients that wait for them."""
    function = client.register(lambda: None, "no_op")
    task = {"function_id": function, "payload": NO_ARGUMENTS, "delay_s": delay_s}
    waiters = []
    if polls:
        ids = client.post("/v1/tasks:batch", {"tasks": [task] * polls})["task_ids"]
        waiters += [poll(task_id, wait_s) for task_id in ids]
    groups = [f"bench {time.time_ns()} {number}" for number in range(min(GROUPS, streams))]
    for group in groups:
        client.post("/v1/tasks:batch", {"tasks": [{**task, "group": group}] * TASKS_OF_GROUP})
    waiters += [stream(groups[number % len(groups)], TASKS_OF_GROUP, wait_s) for number in range(streams)]
    return waiters


def api_rows(seconds: float, others: set[int]) -> list[Row]:
    """Look at the API processes for so long; not at those that were there before."""
    ours = [process for process in descendants() if process.pid not in others and role_of(process) == "api"]
    return watch(ours, seconds)


def measure(polls: int, streams: int, hold_s: float, *, mode: str = "local", processes: int = 1) -> Figures:
    """Run it once."""
    delay_s = OPENING_S + hold_s
    wait_s = delay_s + END_S
    others = {process.pid for process in descendants()}
    with running(mode, "--processes", str(processes)) as url:
        bench = BenchClient(url)
        bench.call(bench.register(lambda: None, "no_op"))
        probe = Probe(url)
        probe.start()
        time.sleep(CALM_BEFORE_S / 2)
        api_before = api_rows(CALM_BEFORE_S, others)
        opening_at = time.monotonic()
        clients = submit(bench, polls, streams, delay_s, wait_s)
        due_at = time.monotonic() + delay_s
        crowd = Crowd(url, clients)
        try:
            crowd.open()
            crowd.attend(max(0.0, opening_at + OPENING_S - time.monotonic()))
            problems = [] if crowd.waiting() == len(clients) else ["some did not wait"]
            hold_at = time.monotonic()
            api_waiting = api_rows(max(0.5, due_at - 1 - hold_at), others)
            crowd.attend(due_at - time.monotonic())
            crowd.attend(END_S)
            last = max((client.ended_at or due_at + END_S for client in clients), default=due_at)
        finally:
            crowd.close()
        looks = probe.end()
    problems += [verdict for client in clients if (verdict := client.verdict())]
    return Figures(
        before=[look for look in looks if look[0] < opening_at],
        waiting=[look for look in looks if hold_at <= look[0] < due_at - 0.5],
        waking=[look for look in looks if due_at - 0.5 <= look[0] <= last],
        api_before=api_before,
        api_waiting=api_waiting,
        last_answer_s=last - due_at,
        problems=problems,
    )


def _ms(looks: list[Look]) -> str:
    times = [took_s * 1e3 for _, took_s in looks]
    return f"{statistics.median(times):.1f} | {max(times):.1f} | {len(times)}" if times else "– | – | 0"


def _memory(rows: list[Row]) -> str:
    each = (f"{row.pss_bytes / 1e6:.1f} MB, {row.threads} threads, {row.cpu_percent:.1f} % CPU" for row in rows)
    return "; ".join(each)


def main() -> int:
    """Print a table."""
    parser = argparse.ArgumentParser(prog="python -m bench.waiters", description=__doc__.split("\n")[0])
    parser.add_argument("--polls", type=int, default=500)
    parser.add_argument("--streams", type=int, default=50)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--mode", default="local")
    parser.add_argument("--hold", type=float, default=10.0, help="seconds for which all of them wait")
    arguments = parser.parse_args()
    allow_files(arguments.polls + arguments.streams + 100)
    figures = measure(
        arguments.polls, arguments.streams, arguments.hold, mode=arguments.mode, processes=arguments.processes
    )
    count = arguments.polls + arguments.streams
    print(f"{arguments.polls} long-polls and {arguments.streams} streams, {arguments.processes} API process(es)\n")
    print("| /healthz | p50, ms | max, ms | asked |\n|---|---|---|---|")
    print(f"| before | {_ms(figures.before)} |")
    print(f"| while all wait | {_ms(figures.waiting)} |")
    print(f"| while all wake | {_ms(figures.waking)} |")
    print(f"\nAPI before: {_memory(figures.api_before)}\nAPI while all wait: {_memory(figures.api_waiting)}")
    grown = sum(row.pss_bytes for row in figures.api_waiting) - sum(row.pss_bytes for row in figures.api_before)
    if count:
        print(f"that is {grown / count / 1024:.0f} KiB for each who waits")
    print(f"all tasks due → last answer in hand: {figures.last_answer_s:.2f} s")
    print(f"answered as they should be: {count - len(figures.problems)} of {count}")
    slow = [took_s for _, took_s in figures.waiting + figures.waking if took_s >= HEALTHZ_S_MAX]
    for problem in sorted(set(figures.problems)):
        print(f"- MISS: {figures.problems.count(problem)} × {problem}")
    if slow:
        print(f"- MISS: /healthz took {HEALTHZ_S_MAX * 1e3:g} ms or more {len(slow)} times")
    return int(bool(figures.problems or slow))


if __name__ == "__main__":
    sys.exit(main())
