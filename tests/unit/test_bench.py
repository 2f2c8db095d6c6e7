"""The benchmarks measure what they say, on work so small that it takes no time. Nothing here asserts how fast it is."""

from __future__ import annotations

import json
import math
import statistics
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import pytest

from bench.e2e import ours, pool, startup
from bench.e2e.goals import GOALS, Goal
from bench.e2e.table import COMMAND, POOL, cell, met, table, with_ratios
from bench.e2e.work import Sizes
from bench.micro import __main__ as micro_main
from bench.micro import api, machine, slot, store, wire
from bench.micro.meter import Meter, shown
from bench.micro.meter import table as micro_table
from bench.plots import __main__ as plots_main
from bench.plots import backlog, draw, workers

TINY = Sizes(tasks=40, calls=3, naps=4, nap_s=0.01, spins=4, spin_s=0.001, echoes=2, echo_bytes=4096, idle_s=0.1)


# ── what figures are made of ─────────────────────────────────────────────────────────────────────────────────────────


def test_a_meter_gives_medians_for_one_operation() -> None:
    meter = Meter()
    for wall_s in (0.3, 0.1, 0.2):
        meter.add("it", 100_000, wall_s, {"own": wall_s / 2})
    (cost,) = meter.costs()
    assert [round(value, 9) for value in (cost.wall_us, cost.least_us, cost.most_us)] == [2.0, 1.0, 3.0]
    assert math.isclose(cost.cpu_us["own"], 1.0)
    assert "| it | 2.00 | 1.00 – 3.00 | 1.00 |" in micro_table("part", [cost])


def test_a_meter_counts_the_cpu_of_others_apart() -> None:
    used = iter([10.0, 10.5])
    meter = Meter(server=lambda: next(used))
    with meter.phase("call", 1000):
        pass
    (cost,) = meter.costs()
    assert math.isclose(cost.cpu_us["server"], 500.0)
    assert list(cost.as_dict()["cpu_us"]) == ["own", "server"]


@pytest.mark.parametrize(
    ("value", "text"), [(0.1234, "0.12"), (12.34, "12.3"), (1234.5, "1,234"), (70_580.0, "70,580")]
)
def test_figures_are_short_and_without_exponents(value: float, text: str) -> None:
    assert shown(value) == text


def test_goals_are_those_of_the_standard() -> None:
    assert len({goal.key for goal in GOALS}) == len(GOALS)
    least = {goal.key: goal.least for goal in GOALS if goal.least is not None}
    most = {goal.key: goal.most for goal in GOALS if goal.most is not None}
    assert least == {
        "batch_per_s": 12_000,
        "over_pool": 1.3,
        "cpu_percent": 93,
        "echo_mib_per_s": 200,
        "v0_per_s": 350,
    }
    assert most == {
        "cpu_us": 130,
        "sdk_p50_ms": 1.5,
        "sdk_p99_ms": 5,
        "v0_polls_beyond": 1,
        "sleeps_s": 2.55,
        "idle_percent": 0.5,
        "idle_mb": 110,
        "first_result_s": 1.5,
        "import_ms": 80,
        "help_ms": 150,
    }


def test_a_goal_is_judged_by_the_median_and_the_modes_that_miss_are_named() -> None:
    goal = Goal("x_ms", "x", digits=1, most=5)
    rounds = {"pull": [{"x_ms": 1.0}, {"x_ms": 9.0}, {"x_ms": 4.0}], "push": [{"x_ms": 6.0}]}
    assert cell(goal, rounds["pull"]) == "4.0 (1.0 – 9.0)"
    assert cell(goal, rounds["push"]) == "6.0"
    assert cell(goal, [{}]) == ""
    assert met(goal, rounds, ["pull"]) == "yes"
    assert met(goal, rounds, ["pull", "push"]) == "no: push"
    assert met(goal, rounds, ["push"]) == "no"
    assert met(Goal("x_ms", "x"), rounds, ["push"]) == ""
    assert (goal.text, Goal("y", "y", least=12_000).text, Goal("y", "y").text) == ("≤ 5", "≥ 12,000", "–")


def test_the_pool_of_the_same_round_is_what_a_round_is_compared_with() -> None:
    rounds = {
        "push": [{"batch_per_s": 10.0}, {"batch_per_s": 30.0}],
        POOL: [{"batch_per_s": 5.0}, {"batch_per_s": 10.0}],
    }
    found = with_ratios(rounds, ["push"])
    assert [one["over_pool"] for one in found["push"]] == [2.0, 3.0]
    assert "over_pool" not in rounds["push"][0]


# ── each benchmark, on next to nothing ───────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def rounds() -> dict[str, list[dict[str, float]]]:
    """One round of bench.e2e."""
    figures = {POOL: [pool.measure(TINY)], "push": [ours.measure("push", TINY)]}
    return with_ratios({**figures, COMMAND: [startup.measure()]}, ["push"])


@pytest.mark.xdist_group("bench-e2e")
def test_a_round_has_a_figure_for_every_goal(rounds: dict[str, list[dict[str, float]]]) -> None:
    measured = rounds["push"][0].keys() | rounds[COMMAND][0].keys()
    assert {goal.key for goal in GOALS} == measured
    assert rounds[POOL][0].keys() <= measured
    for name, (figures,) in rounds.items():
        assert all(math.isfinite(value) and value >= 0 for value in figures.values()), (name, figures)
    assert rounds["push"][0]["sleeps_s"] >= TINY.nap_s
    assert rounds["push"][0]["idle_mb"] > 10


@pytest.mark.xdist_group("bench-e2e")
def test_the_table_has_a_row_for_every_goal(rounds: dict[str, list[dict[str, float]]]) -> None:
    lines = table(rounds, ["push"]).splitlines()
    assert lines[0] == "| what | goal | push | met | ProcessPoolExecutor |"
    assert len(lines) == 2 + len(GOALS)
    assert {line.count("|") for line in lines} == {6}
    assert all(line.split("|")[3].strip() for line in lines[2:])


def test_micro_store(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "SIZES", {1: 3, 2: 6})
    costs = {cost.what: cost for cost in store.measure(2)}
    for name in ("submit", "claim, with lease", "requeue", "start", "adopt, with lease", "finish", "cancel", "results"):
        assert {f"{name}: one at a time", f"{name}: 2 a call"} <= costs.keys()
    assert {"group, a page of 50: one at a time", "retry: one at a time"} <= costs.keys()
    assert all(cost.wall_us > 0 and cost.cpu_us.keys() == {"own", "server"} for cost in costs.values())
    assert sum(cost.cpu_us["server"] for cost in costs.values()) > 0


def test_micro_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "FLEETS", (2, 5))
    monkeypatch.setattr(machine, "TASKS", 100)
    costs = machine.measure(1)
    assert [cost.what for cost in costs if "granted" in cost.what] == [
        "a task: granted, 2 workers",
        "a heartbeat: granted, 2 workers",
        "a task: granted, 5 workers",
        "a heartbeat: granted, 5 workers",
    ]
    assert len(costs) == 8
    assert all(cost.wall_us > 0 for cost in costs)


def test_micro_wire(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "ITEMS", 256)
    monkeypatch.setattr(wire, "LARGE_ITEMS", 16)
    costs = wire.measure(1)
    assert len(costs) == 4 * len(wire.SHAPES)
    assert all(cost.wall_us > 0 for cost in costs)


def test_micro_slot(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slot, "ROUND_TRIPS", 3)
    monkeypatch.setattr(slot, "STREAM", 20)
    monkeypatch.setattr(slot, "SLOT_COUNTS", (1, 2))
    costs = slot.measure(1)
    assert [cost.what for cost in costs] == [
        "round trip: one at a time",
        "a stream of 20: 1 slot",
        "a stream of 20: 2 slots",
    ]
    assert all(cost.cpu_us.keys() == {"own", "slots"} for cost in costs)


def test_micro_api(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api, "ONES", 3)
    monkeypatch.setattr(api, "BATCH", 5)
    monkeypatch.setattr(api, "BATCHES", 2)
    costs = {cost.what: cost for cost in api.measure(1)}
    assert list(costs) == [
        "healthz",
        "v0 submit, the task runs",
        "v0 result of an ended task",
        "v1 submit and wait, json",
        "v1 submit and wait, msgpack",
        "batch of 5, json, the tasks run",
        "tasks:wait of 5 ended, json",
        "batch of 5, msgpack, the tasks run",
        "tasks:wait of 5 ended, msgpack",
    ]
    assert costs["healthz"].cpu_us.keys() == {"own", "api", "store", "rest"}
    assert costs["v1 submit and wait, json"].cpu_us["api"] > 0


def test_micro_writes_what_it_prints(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(wire, "SHAPES", ((1, wire.SMALL_BYTES),))
    monkeypatch.setattr(wire, "ITEMS", 10)
    file = tmp_path / "figures.json"
    monkeypatch.setattr("sys.argv", ["micro", "--only", "wire", "--repeats", "3", "--json", str(file)])
    micro_main.main()
    kept = json.loads(file.read_text())
    assert kept["repeats"] == 3
    assert [cost["what"] for cost in kept["wire"]] == [
        line.split(" | ")[0].removeprefix("| ") for line in capsys.readouterr().out.splitlines() if " of 100" in line
    ]


@pytest.mark.parametrize("words", [["--only", "stores"], ["--repeats", "0"]])
def test_micro_refuses_what_it_does_not_know(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["micro", *words])
    with pytest.raises(SystemExit) as ended:
        micro_main.main()
    assert ended.value.code == 2


def test_a_backlog_is_drained_by_a_worker_that_comes_later(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backlog, "WARM_TASKS", 10)
    monkeypatch.setattr(backlog, "BATCH", 40)
    monkeypatch.setattr(backlog, "LAST", 20)
    monkeypatch.setattr(backlog, "SMALL_REPEATS", 1)
    (one,) = backlog.measure("pull", 100)
    assert (one.mode, one.backlog) == ("pull", 100)
    assert one.drained_per_s > 0
    assert 1 < one.dispatcher_start_mb <= one.dispatcher_peak_mb


def test_sleeps_are_never_faster_than_ideal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "NAPS_PER_SLOT", 3)
    one = workers.measure("local", 2)
    assert (one.slots, one.ideal_per_s) == (2, 20.0)
    assert 0 < one.per_s <= one.ideal_per_s


# ── plots ────────────────────────────────────────────────────────────────────────────────────────────────────────────

BACKLOG_ROWS: list[dict[str, Any]] = [
    {"mode": mode, "backlog": size, "drained_per_s": 5000.0 + size % 7, "dispatcher_peak_mb": 33.0}
    for mode in ("pull", "push")
    for size in (1000, 1000, 10_000)
]
WORKER_ROWS: list[dict[str, Any]] = [
    {"mode": mode, "slots": slots, "per_s": slots * 9.5, "ideal_per_s": slots * 10.0}
    for mode in ("local", "pull", "push")
    for slots in (1, 2, 4)
]


def test_plots_are_redrawn_from_what_was_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("matplotlib", reason="pip install 'everfaas[bench]'")
    (tmp_path / "backlog.json").write_text(json.dumps({"rows": BACKLOG_ROWS}))
    (tmp_path / "workers.json").write_text(json.dumps({"rows": WORKER_ROWS}))
    monkeypatch.setattr("sys.argv", ["plots", "--redraw", "--out", str(tmp_path)])
    plots_main.main()
    for name, words in {
        draw.BACKLOG: ["pull", "push", "no-op tasks/s"],
        draw.WORKERS: ["ideal", "local", "slots"],
    }.items():
        text = "".join(ElementTree.parse(tmp_path / name).getroot().itertext())
        assert all(word in text for word in words), name
    before = (tmp_path / draw.WORKERS).read_bytes()
    plots_main.main()
    assert (tmp_path / draw.WORKERS).read_bytes() == before, "the same figures give the same file"


def test_points_are_medians_in_order() -> None:
    rows = [{"mode": "pull", "slots": at, "per_s": value} for at, value in ((4, 1.0), (1, 2.0), (4, 3.0), (4, 9.0))]
    assert draw._medians(rows, "pull", "slots", "per_s") == ([1, 4], [2.0, statistics.median([1.0, 3.0, 9.0])])


def test_local_mode_has_no_backlog_without_slots(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["plots", "--only", "backlog", "--modes", "local"])
    with pytest.raises(SystemExit) as ended:
        plots_main.main()
    assert ended.value.code == 2
