"""`everfaas map` against a running system: results, resuming, being stopped, being killed."""

from __future__ import annotations

import collections
import json
import resource
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.cli.driving import Line, Screen, environment, piped
from tests.unit.system import until

pytestmark = pytest.mark.xdist_group("cli-map")

SOURCE = '''
import os, time
def twice(x): return x * 2
def pair(a, b=0): return [a, b]
def odd(x):
    if x % 2: raise ValueError(f"{x} is odd")
    return x
def marked(x):
    """Leave a mark for each time that it has run to its end."""
    time.sleep(0.02)
    with open(os.path.join(MARKS, str(x)), "a") as file: file.write("x")
    return x
def strange(x): return {x}
'''


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a module of functions, as the current one."""
    (tmp_path / "marks").mkdir()
    (tmp_path / "work.py").write_text(SOURCE.replace("MARKS", repr(str(tmp_path / "marks"))))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(path: Path, *lines: object) -> str:
    path.write_text("".join(f"{line}\n" for line in lines))
    return str(path)


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def each_once(path: Path, count: int) -> list[dict[str, Any]]:
    """Insist on one line for each input; return them in the order of the inputs."""
    found = sorted(rows(path), key=lambda row: row["index"])
    assert [row["index"] for row in found] == list(range(count))
    return found


# ── results ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_results_are_lines_as_they_come(line: Line, place: Path) -> None:
    over = write(place / "in", "3", "", "[1, 2]", "x y", "  ", "'q'")
    shown = line("map", "work.py::twice", "--over", over)
    assert {row["index"]: row["value"] for row in shown.objects} == {0: 6, 1: [1, 2, 1, 2], 2: "x yx y", 3: "qq"}
    assert {row["status"] for row in shown.objects} == {"COMPLETED"}
    assert line.api.get(f"/v1/tasks/{shown.objects[0]['task_id']}")["function_name"] == "twice"
    assert "4 completed, 0 failed in" in shown.err
    assert "everfaas ls --group map-" in shown.err


def test_what_fails_has_its_error_and_the_exit_status_tells(line: Line, place: Path) -> None:
    over, out = write(place / "in", 1, 2, 3), place / "out"
    shown = line("map", "work.py::odd", "--over", over, "--out", str(out), "--json", status=5)
    assert shown.json["completed"] == 1
    assert (shown.json["failed"], shown.json["inputs"], shown.json["out"]) == (2, 3, str(out))
    first, second, _ = each_once(out, 3)
    assert (first["status"], first["error"]) == ("FAILED", "ValueError: 1 is odd")
    assert ", in odd" in first["traceback"]
    assert second["value"] == 2
    again = line("map", "work.py::odd", "--over", over, "--out", str(out), "--resume", "--json", status=5).json
    assert (again["completed"], again["failed"], again["earlier"], again["earlier_failed"]) == (0, 0, 3, 2)


@pytest.mark.parametrize(
    ("flags", "content", "values"),
    [
        (["--jsonl"], '{"a": [1]}\n\n"x"\n', ['{"a": [1]}', "x"]),
        (["--jsonl", "--star"], '[1, 2]\n{"b": 3, "a": 4}\n', [[1, 2], [4, 3]]),
        (["--star"], "(1, 2)\n{'a': 5}\n", [[1, 2], [5, 0]]),
        (["--csv"], 'a,b\n1,x\n"2, 3",[4]\n', [[1, "x"], [[2, 3], [4]]]),
    ],
)
def test_forms_of_inputs(line: Line, place: Path, flags: list[str], content: str, values: list[Any]) -> None:
    (place / "in").write_text(content)
    function = "pair" if "--star" in flags or "--csv" in flags else "twice"
    if function == "twice":
        (place / "work.py").write_text("import json\ndef twice(x): return x if isinstance(x, str) else json.dumps(x)\n")
    found = line("map", f"work.py::{function}", "--over", "in", *flags).objects
    expected = [[list(one) if isinstance(one, tuple) else one for one in value] for value in values]
    got = [row["value"] for row in sorted(found, key=lambda row: row["index"])]
    assert got == [value if isinstance(value, str) else expected[n] for n, value in enumerate(values)]


def test_stdin_and_values_that_json_has_no_word_for(url: str, place: Path) -> None:
    shown = piped(["map", "work.py::strange", "--over", "-"], url, place, stdin=b"1\n2\n")
    assert shown.status == 0, shown.err
    assert sorted(row["repr"] for row in shown.objects) == ["{1}", "{2}"]


def test_a_bad_line_of_stdin_cancels_what_was_submitted(line: Line, place: Path) -> None:
    content = "".join(f"{number}\n" for number in range(150)) + "no json\n"
    shown = piped(["map", "work.py::marked", "--over", "-", "--jsonl"], line.url, place, stdin=content.encode())
    assert shown.status == 2
    assert "stdin, line 151 is no JSON" in shown.err
    group = shown.err.split("--group ")[1].split()[0]
    for status in ("QUEUED", "RUNNING"):
        assert line("ls", "-q", "--group", group, "--status", status).out == ""


def test_a_reader_of_results_who_leaves_cancels_the_rest(line: Line, place: Path) -> None:
    write(place / "in", *range(300))
    done = subprocess.run(
        f"{sys.executable} -m everfaas_core.cli map work.py::marked --over in | head -n 1",
        shell=True,
        cwd=place,
        env=environment(line.url, place),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stdout.count("\n") == 1
    assert "Traceback" not in done.stderr
    group = done.stderr.split("--group ")[1].split()[0]
    assert line("ls", "-q", "--group", group, "--status", "CANCELLED").out != ""
    for status in ("QUEUED", "RUNNING"):
        assert line("ls", "-q", "--group", group, "--status", status).out == ""


def test_no_api_there_leaves_no_files_behind(place: Path) -> None:
    over = write(place / "in", 1)
    shown = piped(["map", "work.py::twice", "--over", over, "--out", "out"], "http://127.0.0.1:9", place)
    assert shown.status == 4
    assert not (place / "out").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["work.py::twice", "--over", "nowhere"], "nowhere: No such file or directory"),
        (["work.py::twice", "--over", "bad", "--jsonl"], "bad, line 2 is no JSON"),
        (["work.py::twice", "--over", "bad", "--star"], "bad, line 1 can't be spread: it is a int"),
        (["work.py::twice", "--over", "bad", "--csv"], "'1' is no name of an argument"),
        (["work.py::twice", "--over", "short.csv", "--csv"], "line 3 has 1 values for 2 names"),
        (["work.py::twice", "--over", "latin"], "latin is not UTF-8"),
        (["work.py::twice", "--over", "bad", "--resume"], "--out FILE"),
        (["work.py::twice", "--over", "bad", "--json"], "--out FILE"),
        (["work.py::twice", "--over", "bad", "--csv", "--star"], "leave --star out"),
        (["work.py::twice", "--over", "bad", "--out", "bad"], "bad is there already"),
        (["work.py::twice", "--over", "bad", "--out", "bad", "--resume"], "something else than results"),
        (["work.py::twice", "--over", "bad", "--out", "/dev/null", "--resume"], "/dev/null is no file"),
        (["work.py::twice", "--over", "bad", "--out", "no/where"], "no/where can't be used: No such file"),
        (["work.py::nothing", "--over", "bad"], "work.py has no 'nothing'"),
        (["work.py::twice"], "Missing option '--over'"),
    ],
)
def test_what_is_wrong_is_said_before_anything_runs(line: Line, place: Path, words: list[str], said: str) -> None:
    write(place / "bad", "1", "x")
    write(place / "short.csv", "a,b", "1,2", "3")
    (place / "latin").write_bytes(b"a\n\xff\n")
    before = line("ls", "-q", "--limit", "1").out
    shown = line("map", *words, status=2)
    assert said in shown.err
    assert line("ls", "-q", "--limit", "1").out == before


# ── stopping and going on ────────────────────────────────────────────────────────────────────────────────────────────


def started(url: str, place: Path, *flags: str) -> subprocess.Popen[str]:
    """Begin a map over 300 inputs of 20 ms on two slots, and wait for its first results."""
    write(place / "in", *range(300))
    words = ["map", "work.py::marked", "--over", "in", "--out", "out", *flags]
    process = subprocess.Popen(
        [sys.executable, "-m", "everfaas_core.cli", *words],
        cwd=place,
        env=environment(url, place),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    until(lambda: (place / "out").exists() and len((place / "out").read_bytes().splitlines()) > 20)
    return process


def ran(place: Path) -> dict[int, int]:
    """Return how often each input was run to its end."""
    return {int(mark.name): len(mark.read_text()) for mark in (place / "marks").iterdir()}


def test_ctrl_c_cancels_what_is_left_and_resume_goes_on(line: Line, place: Path) -> None:
    process = started(line.url, place)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 130, errors
    assert "stopping: cancelling what is left" in errors
    assert "go on with: everfaas map work.py::marked --over in --out out --resume" in errors
    first = rows(place / "out")
    assert 20 < len(first) < 300
    group = errors.split("--group ")[1].split()[0]
    for status in ("QUEUED", "RUNNING"):
        assert line("ls", "-q", "--group", group, "--status", status).out == ""
    cancelled = set(line("ls", "-q", "--all", "--group", group, "--status", "CANCELLED").lines)
    assert f"{len(first)} completed, 0 failed, {len(cancelled)} cancelled, " in errors

    shown = line("map", "work.py::marked", "--over", "in", "--out", "out", "--resume")
    assert f"{len(first)} had a result before" in shown.err
    assert each_once(place / "out", 300)[7]["value"] == 7
    assert rows(place / "out")[: len(first)] == first
    times = ran(place)
    assert sorted(times) == list(range(300))
    assert all(times[row["index"]] == 1 for row in first)
    again = line("map", "work.py::marked", "--over", "in", "--out", "out", "--resume", "--json").json
    assert (again["completed"], again["earlier"]) == (0, 300)
    assert ran(place) == times


def test_killed_in_the_middle_nothing_is_run_twice_or_lost(line: Line, place: Path) -> None:
    """Killed twice, at whatever instant: the tasks run on, and those who go on find their results."""
    for _ in range(2):
        process = started(line.url, place, "--resume")
        process.kill()
        process.communicate(timeout=30)
    with (place / "out").open("a") as file:
        file.write('{"index": 299, "sta')  # torn by the kill
    line("map", "work.py::marked", "--over", "in", "--out", "out", "--resume")
    found = each_once(place / "out", 300)
    assert [row["value"] for row in found] == list(range(300))
    assert collections.Counter(ran(place).values()) == {1: 300}


def test_a_second_ctrl_c_leaves_at_once(line: Line, place: Path) -> None:
    """The first one is not answered: the system stands still."""
    with Screen(["map", "work.py::marked", "--over", "in", "--out", "out"], line.url, place) as screen:
        write(place / "in", *range(300))
        screen.until("running")
        until(lambda: (place / "out").exists() and (place / "out").stat().st_size)
        screen.type("\x03")
        screen.until("Ctrl-C again: leave at once")
        screen.type("\x03")
        assert screen.end() == 130
    line("map", "work.py::marked", "--over", "in", "--out", "out", "--resume")
    each_once(place / "out", 300)


def test_what_somebody_else_cancels_is_told_and_runs_with_the_next_resume(line: Line, place: Path) -> None:
    process = started(line.url, place)
    group = json.loads((place / "out.map").read_text().splitlines()[0])["run"]
    line("cancel", "--group", f"map-{group}")
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 6, errors
    assert " cancelled in " in errors
    assert "go on with: " in errors
    line("map", "work.py::marked", "--over", "in", "--out", "out", "--resume")
    each_once(place / "out", 300)


def test_other_inputs_or_another_function_are_not_gone_on_with(line: Line, place: Path) -> None:
    over = write(place / "in", 1, 2)
    line("map", "work.py::twice", "--over", over, "--out", "out", "--resume")  # there is nothing to resume: it begins
    write(place / "in", 1, 2, 3)
    said = line("map", "work.py::twice", "--over", over, "--out", "out", "--resume", status=2).err
    assert "inputs was" in said
    write(place / "in", 1, 2)
    said = line("map", "work.py::odd", "--over", over, "--out", "out", "--resume", status=2).err
    assert "'work.py::twice', and is 'work.py::odd'" in said
    (place / "out.map").unlink()
    assert (
        "out.map, which belongs to out, is gone"
        in line("map", "work.py::twice", "--over", over, "--out", "out", "--resume", status=2).err
    )


def test_a_mended_function_goes_on_where_the_old_one_was_stopped(line: Line, place: Path) -> None:
    over = write(place / "in", *range(4))
    line("map", "work.py::odd", "--over", over, "--out", "out", status=5)
    lines = (place / "out").read_text().splitlines(keepends=True)
    (place / "out").write_text("".join(lines[:2]))
    state = (place / "out.map").read_text().splitlines(keepends=True)
    (place / "out.map").write_text(state[0])
    (place / "work.py").write_text("def odd(x): return x * 10\n")
    shown = piped(["map", "work.py::odd", "--over", over, "--out", "out", "--resume"], line.url, place)
    assert shown.status in (0, 5), shown.err
    found = each_once(place / "out", 4)
    kept = {json.loads(one)["index"] for one in lines[:2]}
    assert all(row["value"] == row["index"] * 10 for row in found if row["index"] not in kept)


# ── the bar ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("width", [80, 120])
def test_the_bar_fits_into_a_terminal(line: Line, place: Path, width: int) -> None:
    write(place / "in", *range(60))
    words = ["map", "work.py::marked", "--over", "in", "--out", "out"]
    with Screen(words, line.url, place, width=width) as screen:
        assert screen.end() == 0, screen.text
    bars = [part for part in screen.text.replace("\r", "\n").split("\n") if "━" in part]
    assert any("/60" in bar and "running" in bar and "/s" in bar for bar in bars), screen.text
    assert "60 completed, 0 failed in" in screen.text


def test_a_file_that_can_not_grow_ends_the_map_and_says_why(url: str, place: Path) -> None:
    over = write(place / "in", *range(300))
    words = [sys.executable, "-m", "everfaas_core.cli", "map", "work.py::twice", "--over", over, "--out", "out"]
    done = subprocess.run(
        words,
        cwd=place,
        env=environment(url, place),
        capture_output=True,
        text=True,
        timeout=60,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000)),
    )
    assert done.returncode == 2, done.stderr
    assert "can't be written: File too large" in done.stderr
    assert "Traceback" not in done.stderr
    piped([*words[3:], "--resume"], url, place)
    assert [row["value"] for row in each_once(place / "out", 300)] == list(range(0, 600, 2))
