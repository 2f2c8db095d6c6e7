"""The goals of PERFORMANCE.md as data: what is measured, how it is shown, and when a goal is met."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Goal:
    """One row. At least `least`, or at most `most`, or neither: shown for comparison."""

    key: str
    what: str
    digits: int = 0
    least: float | None = None
    most: float | None = None

    @property
    def text(self) -> str:
        """Return the goal as it is shown."""
        if self.least is not None:
            return f"≥ {self.least:,g}"
        return "–" if self.most is None else f"≤ {self.most:,g}"

    def is_met(self, value: float) -> bool:
        """Tell whether a median is good enough."""
        return (self.least is None or value >= self.least) and (self.most is None or value <= self.most)


RATIO = "over_pool"
GOALS = (
    Goal("batch_per_s", "no-ops in batches, results in hand, msgpack, tasks/s", least=12_000),
    Goal(RATIO, "the same, × ProcessPoolExecutor in the same round", digits=2, least=1.3),
    Goal("json_per_s", "the same by `requests` and JSON, tasks/s"),
    Goal("cpu_us", "CPU per such task (msgpack), all processes and the client, µs", most=130),
    Goal("sdk_map_per_s", "the same by the Python client's `map`, tasks/s"),
    Goal("sdk_submit_per_s", "the same by its `submit`, one future each, tasks/s"),
    Goal("sdk_cpu_us", "CPU per task of that `map`, all processes and the client, µs"),
    Goal("sdk_p50_ms", "single call by the Python client: submit → result in hand, p50, ms", digits=2, most=1.5),
    Goal("sdk_p99_ms", "the same, p99, ms", digits=2, most=5),
    Goal("call_p50_ms", "the same by a bare exchange (http.client, msgpack), p50, ms", digits=2),
    Goal("call_p99_ms", "the same, p99, ms", digits=2),
    Goal("v0_polls_beyond", "v0, polled every 10 ms: polls beyond the work itself", digits=2, most=1),
    Goal("sleeps_s", "20 × sleep(0.5) on 4 slots, s (ideal 2.50)", digits=3, most=2.55),
    Goal("cpu_percent", "1,000 × 5 ms of CPU, % of the ideal for the cores", digits=1, least=93),
    Goal("echo_mib_per_s", "200 × 1 MiB echoed, MiB/s", least=200),
    Goal("idle_percent", "idle, % of one core", digits=2, most=0.5),
    Goal("idle_mb", "idle, proportional set size, MB", digits=1, most=110),
    Goal("after_mb", "the same after all this work, MB", digits=1),
    Goal("first_result_s", "`everfaas up` → first result, s", digits=2, most=1.5),
    Goal("import_ms", "`import everfaas_core`, ms", digits=1, most=80),
    Goal("help_ms", "`everfaas --help`, whole process, ms", digits=1, most=150),
    Goal("v0_per_s", "v0 by one `requests` session, POST and GET until done, tasks/s", least=350),
)
