"""The pure parts of bench/peers: statistics, table, plot data, sizes and order; and that nothing is left running."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from bench.peers import environments, figures, plot, rounds, table
from bench.peers.catalog import DRIVERS, OURS, System, load, systems
from bench.peers.figures import BY_KEY, FIGURES, Spread
from bench.peers.processes import CpuTime, cpu_used_s
from bench.peers.rounds import Record, Sizes

ROOT = Path(__file__).parents[2]
META = {
    "rounds": 3,
    "workers": 4,
    "cores": 2,
    "processor": "a processor",
    "python": "3.11.7",
    "date": "2026-11-23",
    "scale": 1.0,
    "versions": {"celery": "5.7.0", "everfaas-pull": "0.1.0"},
}


def noop(system: str, setting: str, number: int, seconds: float, cpu_s: float = 1.0) -> Record:
    record: dict[str, Any] = {"round": number, "system": system, "setting": setting, "cores": 2}
    return record | {"work": "noop", "count": 1000, "seconds": seconds, "cpu_s": cpu_s}


def failed(system: str, setting: str, number: int, work: str, why: str) -> Record:
    return {"round": number, "system": system, "setting": setting, "cores": 2, "work": work, "error": why}


RECORDS = [
    noop("everfaas-pull", "best", 1, 0.1),
    noop("celery", "best", 1, 2.0),
    noop("pool", "default", 1, 0.2),
    noop("everfaas-pull", "best", 2, 0.2),
    noop("celery", "best", 2, 2.0),
    noop("everfaas-pull", "best", 3, 0.4),
    failed("celery", "best", 3, "noop", "ConnectionError: gone"),
    failed("celery", "best", 3, "echo", "ConnectionError: gone"),
]


@pytest.mark.parametrize(
    ("values", "percent", "expected"),
    [([3.0, 1.0, 2.0], 50, 2.0), ([5.0], 99, 5.0), (range(1, 301), 99, 297), (range(1, 101), 100, 100)],
)
def test_percentile_is_the_nearest_rank(values: Any, percent: float, expected: float) -> None:
    assert figures.percentile(values, percent) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (11_937.0, "11,900"),
        (2.517, "2.52"),
        (0.0412, "0.041"),
        (99.96, "100"),
        (0, "0"),
        (334.2, "334"),
        (0.5, "0.500"),
    ],
)
def test_figures_are_written_with_three_digits(value: float, expected: str) -> None:
    assert figures.short(value) == expected


def test_a_spread_is_the_median_with_the_least_and_the_most() -> None:
    found = figures.rows(RECORDS)
    assert figures.spread(found["everfaas-pull", "best"], BY_KEY["noop_per_s"]) == Spread(5000.0, 2500.0, 10000.0, 3)
    assert figures.spread(found["celery", "best"], BY_KEY["echo_mib_per_s"]) is None


def test_a_ratio_is_taken_round_by_round_and_only_where_both_were_measured() -> None:
    found = figures.rows(RECORDS)
    ours = found["everfaas-pull", "best"]
    assert figures.ratio(ours, found["celery", "best"], BY_KEY["noop_per_s"]) == Spread(15.0, 10.0, 20.0, 2)
    assert figures.ratio(ours, found["pool", "default"], BY_KEY["noop_per_s"]) == Spread(2.0, 2.0, 2.0, 1)
    assert figures.ratio(ours, found["celery", "best"], BY_KEY["idle_mb"]) is None


@pytest.mark.parametrize(
    ("key", "record", "expected"),
    [
        ("noop_cpu_us", {"count": 1000, "seconds": 1.0, "cpu_s": 0.13}, 130),
        ("p50_ms", {"latencies_s": [0.001, 0.002, 0.009]}, 2.0),
        ("p99_ms", {"latencies_s": [0.001, 0.002, 0.009]}, 9.0),
        ("cpu_percent", {"count": 1000, "seconds": 2.5, "cores": 2}, 100),
        ("cpu_percent", {"count": 1000, "seconds": 5.0, "cores": 2}, 50),
        ("echo_mib_per_s", {"count": 200, "seconds": 2.0}, 100),
        ("idle_mb", {"memory_mb": 85.0}, 85.0),
        ("first_s", {"seconds": 1.5}, 1.5),
    ],
)
def test_each_figure_is_made_of_its_record(key: str, record: Record, expected: float) -> None:
    assert BY_KEY[key].of(record) == pytest.approx(expected)


def test_each_work_has_a_figure() -> None:
    assert {figure.work for figure in FIGURES} == set(rounds.WORKS)


def test_errors_say_what_they_cost_and_when() -> None:
    assert figures.errors(RECORDS) == {"ConnectionError: gone": ["noop (3)", "echo (3)"]}


def test_every_system_has_its_turn_before_any_has_another() -> None:
    chosen = systems(["pool", "loky"], ["default"])
    turns = [(number, system.name) for number, system in rounds.interleaved(chosen, 2)]
    assert turns == [(1, "pool"), (1, "loky"), (2, "pool"), (2, "loky")]


def test_the_number_of_no_ops_follows_the_rate_within_limits() -> None:
    sizes = Sizes(noop_s=4.0, noop_min=1_000, noop_max=20_000)
    assert [sizes.noops(rate) for rate in (10, 1_000, 100_000)] == [1_000, 4_000, 20_000]
    assert sizes.scaled(0.1).noop_max == 2_000


def test_names_and_settings_choose_rows() -> None:
    assert [str(one) for one in systems(["celery", "huey"], ["acks"])] == ["Celery · acks"]
    assert {one.name for one in systems(["everfaas"], ["best"])} == set(OURS)
    with pytest.raises(ValueError, match="kafka"):
        systems(["kafka"], ["best"])
    with pytest.raises(ValueError, match="worst"):
        systems(["celery"], ["worst"])


@pytest.mark.parametrize("name", DRIVERS)
def test_each_driver_says_what_it_is_without_importing_its_peer(name: str) -> None:
    driver = load(name)
    assert {one.name for one in driver.settings} >= {"default", "best"}
    assert all(one.says and one.delivery for one in driver.settings)
    assert driver.title
    assert driver.durability
    if driver.requirements:
        assert (environments.REQUIREMENTS / driver.requirements).is_file()
    assert name not in sys.modules  # a peer; ours and the pool have other names


def test_every_pin_is_one() -> None:
    for path in environments.REQUIREMENTS.glob("*.txt"):
        pins = [line for line in path.read_text().splitlines() if line and not line.startswith("#")]
        assert all("==" in pin for pin in pins), path


def test_the_table_has_figures_ratios_settings_and_failures() -> None:
    text = table.markdown(META, RECORDS)
    assert "| everfaas pull | best | 5,000 (2,500 – 10,000) |" in text
    assert "| Celery | best | 500 (500 – 500) |" in text
    assert "| everfaas pull · best | Celery · best | 15.0 (10.0 – 20.0) × |" in text  # the fastest durable queue here
    assert "| everfaas pull · best | ProcessPoolExecutor · default | 2.00 × |" in text
    assert "| Celery 5.7.0 | best |" in text
    assert "- Celery · best: ConnectionError: gone – noop (3), echo (3)" in text


@pytest.mark.parametrize(("cores", "believed"), [(0.02, True), (1.2, False)])
def test_the_table_says_when_the_machine_was_not_quiet(cores: float, believed: bool) -> None:
    text = table.markdown(META, [record | {"others_cores": cores} for record in RECORDS])
    assert f"Other processes used {cores:.2f} cores" in text
    assert ("not worth much" not in text) is believed


def test_a_cell_tells_failed_from_not_asked_for() -> None:
    celery = figures.rows(RECORDS)["celery", "best"]
    assert table.cell(celery, "echo_mib_per_s") == "failed"
    assert table.cell(celery, "idle_mb") == "–"


def test_a_peer_that_cannot_be_installed_has_pips_reason_in_every_row() -> None:
    missing = environments.Environment(Path("/nowhere/python"), reason="No matching distribution found for rq==3.0.0")
    records = rounds.measure(System("rq", "default"), missing, "", Sizes(), ["noop", "echo"], print)
    assert [record["work"] for record in records] == ["noop", "echo"]
    assert all("No matching distribution" in record["error"] for record in records)


def test_pips_reason_is_its_errors_without_its_warnings() -> None:
    output = "WARNING: Location is ignored\nERROR: Could not find a version\nERROR: No matching distribution found\n"
    assert environments.why(output) == "Could not find a version No matching distribution found"
    assert environments.why("one\ntwo") == "one two"


def test_bars_are_sorted_best_first_and_ours_are_marked() -> None:
    best_first = plot.bars(RECORDS, "noop_per_s")
    assert [bar.label for bar in best_first] == [
        "everfaas pull · best",
        "ProcessPoolExecutor · default",
        "Celery · best",
    ]
    assert [bar.ours for bar in best_first] == [True, False, False]
    assert plot.bars(RECORDS, "idle_mb") == []


def test_the_plot_is_an_svg_file(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    plot.draw(RECORDS, tmp_path / "peers.svg")
    assert "<svg" in (tmp_path / "peers.svg").read_text()


def run_python(code: str) -> Any:
    """Run code in an interpreter of its own, which becomes the reaper of orphans, and return the JSON it prints."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return json.loads(done.stdout)


def test_a_detached_process_is_counted_and_killed() -> None:
    found = run_python(
        """
        import json, os, subprocess, time
        from bench.peers import processes

        processes.adopt_orphans()
        script = "setsid sleep 60 >/dev/null & echo $!"  # its parent, the shell, is gone at once
        orphan = int(subprocess.run(["sh", "-c", script], stdout=subprocess.PIPE, text=True).stdout)
        below = processes.descendants(os.getpid())
        processes.kill_all(os.getpid())
        print(json.dumps({"seen": orphan in below, "left": processes.descendants(os.getpid())}))
        """
    )
    assert found == {"seen": True, "left": []}


def test_cpu_time_of_those_that_ended_is_found_with_their_parent_or_left_out() -> None:
    before = {1: CpuTime(1.0, 0.0), 2: CpuTime(5.0, 0.0)}
    waited_for = {1: CpuTime(1.5, 5.25)}  # 2 used a quarter of a second more, then 1 waited for it
    collected_by_kernel = {1: CpuTime(1.5, 0.0), 3: CpuTime(0.25, 0.0)}
    assert cpu_used_s(before, waited_for) == pytest.approx(0.75)
    assert cpu_used_s(before, collected_by_kernel) == pytest.approx(0.75)


def test_the_cpu_time_of_a_child_that_has_ended_is_kept() -> None:
    spent = run_python(
        """
        import json, os, subprocess, sys
        from bench.peers import processes

        spin = "import time\\nwhile time.process_time() < 0.2: pass"
        parent = "import subprocess as s, sys; s.run([sys.executable, '-c', sys.argv[1]]); print(); sys.stdin.read()"
        command = [sys.executable, "-S", "-c", parent, spin]
        child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        child.stdout.readline()  # its own child has ended
        print(json.dumps(processes.cpu_used_s({}, processes.cpu_times(processes.descendants(os.getpid())))))
        processes.kill_all(os.getpid())
        """
    )
    assert spent >= 0.2
