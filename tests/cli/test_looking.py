"""ls, status, result, cancel, retry, workers, drain: against a running system."""

from __future__ import annotations

import json
import pickle
import socket
import uuid
from pathlib import Path
from typing import Any

import pytest

from tests.cli.driving import UNKNOWN_ID, Line, Screen, piped
from tests.cli.functions import MADE
from tests.unit.system import until

pytestmark = pytest.mark.xdist_group("cli")

HOSTILE = "\x1b]0;owned\x07\x1b[2J\r\u202egnp.exe"
WIDE = "数え上げ関数" * 4


def fresh(name: str) -> str:
    """Return a name of a group that no other test uses."""
    return f"{name}-{uuid.uuid4()}"


# ── ls ───────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_ls_in_a_pipe_prints_all_columns_newest_first(line: Line) -> None:
    group = fresh("ls")
    ids = [line.submit(MADE["double"], n, group=group) for n in range(3)]
    for task_id in ids:
        line.ended(task_id)
    lines = line("ls", "--group", group).lines
    assert [row.split("\t")[0] for row in lines] == ids[::-1]
    assert lines[0].split("\t")[1:3] == ["double", "COMPLETED"]
    assert len({row.count("\t") for row in lines}) == 1
    assert line("ls", "--group", group, "-q").lines == ids[::-1]
    assert line("ls", "--group", group, "-q", "--limit", "2").lines == ids[:0:-1]
    records = line("ls", "--group", group, "--json").objects
    assert [record["task_id"] for record in records] == ids[::-1]
    assert records[0] == line("status", "--json", ids[-1]).json


def test_ls_chooses_by_status_tag_and_function_in_all_its_versions(line: Line) -> None:
    group, name = fresh("choose"), fresh("twice")
    one = line.submit(MADE["double"], 1, name=name, group=group, tags=["a"])
    two = line.submit(MADE["same"], 2, name=name, group=group, tags=["b"])
    bad = line.submit(MADE["boom"], "no", group=group)
    for task_id in (one, two, bad):
        line.ended(task_id)
    assert line("ls", "-q", "--function", name).lines == [two, one]
    function_id = line.api.get(f"/v1/tasks/{one}")["function_id"]
    assert line("ls", "-q", "--function", function_id.upper(), "--group", group).lines == [one]
    assert line("ls", "-q", "--group", group, "--tag", "b").lines == [two]
    assert line("ls", "-q", "--group", group, "--status", "failed").lines == [bad]
    assert line("ls", "-q", "--group", group, "--dead").lines == []
    assert line("ls", "--group", fresh("nobody")).out == ""
    assert "no function is called 'nobody'" in line("ls", "--function", "nobody", status=8).err
    assert "'walking' is not one of" in line("ls", "--status", "walking", status=2).err


@pytest.mark.parametrize("name", [WIDE, "x" * 150])
def test_ls_fits_into_a_terminal(line: Line, tmp_path: Path, name: str) -> None:
    from rich.cells import cell_len

    group = fresh("wide")
    task_id = line.submit(MADE["double"], 1, name=name, group=group)
    line.ended(task_id)
    for width in (80, 120):
        with Screen(["ls", "--group", group], line.url, tmp_path, width=width) as screen:
            assert screen.end() == 0
        assert len(screen.text.splitlines()) == 2, screen.text
        head, row = screen.text.splitlines()
        assert task_id in row
        assert "COMPLETED" in row
        assert "…" in row or width == 120
        assert ("worker" in head) == (width == 120)
        assert cell_len(row) <= width
        assert "\x1b" not in screen.text  # NO_COLOR


def test_what_others_wrote_can_do_nothing_to_a_terminal(line: Line, tmp_path: Path) -> None:
    """The API refuses control characters in names; messages and results may have any."""
    task_id = line.submit(MADE["boom"], HOSTILE)
    line.ended(task_id)
    texts = line.submit(MADE["same"], HOSTILE)
    line.ended(texts)
    for words in (["status", task_id], ["result", task_id], ["result", texts]):
        with Screen(words, line.url, tmp_path) as screen:
            screen.end()
        assert "owned" in screen.text
        assert not set(screen.text) & {"\x1b", "\x07", "\r", "\u202e"}, screen.text


# ── status ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_status_tells_everything(line: Line) -> None:
    task_id = line.submit(MADE["boom"], "no way", timeout_s=90.0, group="g", tags=["a", "b"], priority=7)
    line.ended(task_id)
    text = line("status", task_id).out
    worker = line.api.get("/v1/workers")["workers"][0]["worker_id"]
    for wanted in (
        f"task        {task_id}",
        "function    boom (",
        "status      FAILED, raised",
        "priority 7, at most 3 attempts, timeout 1 min 30 s",
        "group       g",
        "tags        a, b",
        f" on {worker}, waited ",
        "  ValueError: no way",
    ):
        assert wanted in text, text


def test_status_of_several_and_of_none(line: Line) -> None:
    ids = [line.submit(MADE["double"], n) for n in range(2)]
    for task_id in ids:
        line.ended(task_id)
    text = line("status", *ids).out
    assert text.count("\n\ntask ") == 1
    assert f"everfaas result {ids[1]}" in text
    assert [one["task_id"] for one in line("status", "--json", *ids).objects] == ids
    assert f"there is no task {UNKNOWN_ID}" in line("status", UNKNOWN_ID, status=8).err
    said = line("status", ids[0][:13], status=2).err
    assert "36 characters" in said
    assert "everfaas ls" in said


def test_status_of_what_waits_and_runs(line: Line) -> None:
    later = line.submit(MADE["double"], 1, delay_s=1000.0, deadline_s=2000.0)
    text = line("status", later).out
    assert "status      QUEUED" in text
    assert "(in 16 min" in text
    assert ", deadline 2" in text
    running = line.submit(MADE["nap"], 60)
    until(lambda: line.api.get(f"/status/{running}")["status"] == "RUNNING")
    assert "status      RUNNING for " in line("status", running).out
    line("cancel", running, later)


# ── result ───────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("value", "printed", "fields"),
    [
        (42, "42\n", {"value": 42}),
        ("text", "'text'\n", {"value": "text"}),
        (None, "None\n", {"value": None}),
        ({"a": [1, 2.5]}, "{'a': [1, 2.5]}\n", {"value": {"a": [1, 2.5]}}),
        (float("inf"), "inf\n", {"repr": "inf"}),
        ({1, 2}, "{1, 2}\n", {"repr": "{1, 2}"}),
    ],
)
def test_result(line: Line, value: Any, printed: str, fields: dict[str, Any]) -> None:
    task_id = line.submit(MADE["same"], value)
    assert line("result", "--wait", "30", task_id).out == printed
    assert line("result", task_id, "--json").json == {"task_id": task_id, "status": "COMPLETED", **fields}


def test_result_as_bytes_and_into_a_file(line: Line, tmp_path: Path) -> None:
    out = tmp_path / "result"
    for value, written in ((b"\x00\xff", b"\x00\xff"), ("ä\n", "ä\n".encode()), ([1], b"[1]\n")):
        task_id = line.submit(MADE["same"], value)
        assert line("result", "--wait", "forever", task_id, "--out", str(out)).out == ""
        assert out.read_bytes() == written
        assert pickle.loads(line("result", task_id, "--raw").raw) == value
        line("result", task_id, "--raw", "--out", str(out))
        assert pickle.loads(out.read_bytes()) == value
    assert "No such file or directory" in line("result", task_id, "--out", str(tmp_path / "no" / "x"), status=1).err


def test_result_of_a_failure_is_the_exception_with_its_remote_traceback(line: Line) -> None:
    task_id = line.submit(MADE["boom"], "no way")
    shown = line("result", task_id, "--wait", "30", status=5)
    assert shown.out == ""
    assert shown.err.startswith("ValueError: no way\n")
    assert "functions.py" in shown.err
    found = line("result", task_id, "--json", status=5).json
    assert found["status"] == "FAILED"
    assert found["error"].startswith("ValueError: no way\n")


def test_result_before_the_end_of_a_cancelled_and_of_an_unknown_task(line: Line) -> None:
    task_id = line.submit(MADE["double"], 1, delay_s=1000.0)
    assert "QUEUED" in line("result", task_id, status=7).err
    assert line("result", task_id, "--wait", "0.1", "--json", status=7).json == {
        "task_id": task_id,
        "status": "QUEUED",
    }
    assert line("cancel", task_id).out == f"{task_id} cancelled\n"
    assert "was cancelled" in line("result", task_id, status=6).err
    line("result", task_id, "--raw", status=6)
    line("result", UNKNOWN_ID, status=8)
    assert "'soon'" in line("result", task_id, "--wait", "soon", status=2).err
    assert "--wait" in line("result", task_id, "--wait", "-1", status=2).err
    assert "--raw" in line("result", task_id, "--raw", "--json", status=2).err


class Elsewhere:
    """Its module will not be there when the result is loaded."""


def test_a_result_that_does_not_load_here(line: Line, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("class Thing: pass\nclass Bad(Exception): pass\n")
    source = """
def make(raised):
    import sys, types
    module = types.ModuleType("only_there")
    exec("class Thing: pass\\nclass Bad(Exception): pass", vars(module))
    sys.modules["only_there"] = module
    if raised:
        raise module.Bad("worse")
    return module.Thing()
"""
    space: dict[str, Any] = {"__name__": "__main__"}
    exec(source, space)
    returned, raised = (line.submit(space["make"], flag) for flag in (False, True))
    for task_id in (returned, raised):
        line.ended(task_id)
    if line.api.get(f"/v1/tasks/{returned}")["status"] == "COMPLETED":  # not shipped by value
        said = line("result", returned, status=1).err
        assert "does not load here" in said
        assert "--raw" in said
        assert "unloadable" in line("result", returned, "--json").json
    assert "worse" in line("result", raised, status=5).err


# ── cancel, retry ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_cancel_says_what_became_of_each(line: Line) -> None:
    done = line.submit(MADE["double"], 1)
    line.ended(done)
    waiting = line.submit(MADE["double"], 1, delay_s=1000.0)
    running = line.submit(MADE["nap"], 60)
    until(lambda: line.api.get(f"/status/{running}")["status"] == "RUNNING")
    shown = line("cancel", done, waiting, running, UNKNOWN_ID, status=8)
    assert shown.lines == [
        f"{done} had ended before: COMPLETED",
        f"{waiting} cancelled",
        f"{running} is being stopped",
    ]
    assert UNKNOWN_ID in shown.err
    assert line.ended(running)["status"] == "CANCELLED"
    assert line("cancel", "--json", running).objects == [{"task_id": running, "status": "CANCELLED"}]
    assert "Name tasks, or --group" in line("cancel", status=2).err
    assert "Name tasks, or --group" in line("cancel", running, "--group", "g", status=2).err


def test_cancel_a_group(line: Line) -> None:
    group = fresh("cancel")
    ids = [line.submit(MADE["double"], n, group=group, delay_s=1000.0) for n in range(5)]
    running = line.submit(MADE["nap"], 60, group=group)
    until(lambda: line.api.get(f"/status/{running}")["status"] == "RUNNING")
    assert line("cancel", "--group", group).out == "5 cancelled that had not begun, 1 that run are being stopped\n"
    line.ended(running)
    assert sorted(line("ls", "-q", "--group", group, "--status", "CANCELLED").lines) == sorted([*ids, running])
    assert line("cancel", "--group", group).out == "0 cancelled that had not begun, 0 that run are being stopped\n"


def test_retry(line: Line) -> None:
    bad, good = line.submit(MADE["boom"], "no"), line.submit(MADE["double"], 1)
    for task_id in (bad, good):
        line.ended(task_id)
    shown = line("retry", bad, good, UNKNOWN_ID, status=1)
    (text,) = shown.lines
    new = text.split()[0]
    assert text == f"{new} repeats {bad}"
    assert "COMPLETED" in shown.err
    assert UNKNOWN_ID in shown.err
    assert line.ended(new)["retry_of"] == bad
    assert line("retry", new, "--json").objects[0]["retry_of"] == new
    line("retry", UNKNOWN_ID, status=8)
    assert "--dead" in line("retry", status=2).err
    assert "--dead" in line("retry", bad, "--group", "g", status=2).err


def test_retry_of_dead_letters(line: Line) -> None:
    group = fresh("dead")
    dead = line.submit(MADE["crash"], group=group, max_attempts=1)
    assert line.ended(dead)["cause"] == "slot_crashed"
    assert line("ls", "-q", "--dead", "--group", group).lines == [dead]
    assert "slot crashed" in line("status", dead).out
    new = line("retry", "--dead", "--group", group, "--json").objects
    assert [one["retry_of"] for one in new] == [dead]
    line.ended(new[0]["task_id"])
    assert line("retry", "--dead", "--group", fresh("none")).out == "there are no dead letters\n"


# ── workers ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_workers(line: Line, tmp_path: Path) -> None:
    (row,) = line("workers").lines
    fleet = line("workers", "--json").json
    (worker,) = fleet["workers"]
    assert row.split("\t")[:3] == [worker["worker_id"], "pull", f"{worker['busy']}/2"]
    assert worker["python"] in row
    with Screen(["workers"], line.url, tmp_path, width=130) as screen:
        assert screen.end() == 0
    assert screen.text.splitlines()[0].split() == (
        ["worker", "mode", "busy", "state", "joined", "python", "dill", "host", "pid", "dispatcher"]
    )


# ── what can be wrong ────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("words", [["ls"], ["status", UNKNOWN_ID], ["workers"], ["retry", "--dead"], ["drain", "w"]])
def test_no_api_there_has_a_status_of_its_own(words: list[str], line: Line) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, not listening: every connection is refused
        shown = line(*words, "--url", f"http://127.0.0.1:{taken.getsockname()[1]}", status=4)
    assert "no API answers" in shown.err
    assert "everfaas up" in shown.err


def test_the_config_file_says_where_the_api_is(url: str, tmp_path: Path) -> None:
    (tmp_path / "everfaas.toml").write_text(f"url = {json.dumps(url)}\n")
    assert piped(["workers"], "", tmp_path).status == 0
    assert piped(["workers"], "http://127.0.0.1:9", tmp_path).status == 4  # the environment is stronger
    assert piped(["workers", "--url", url], "http://127.0.0.1:9", tmp_path).status == 0
    (tmp_path / "everfaas.toml").write_text('ulr = "http://127.0.0.1:9"\n')
    shown = piped(["workers"], "", tmp_path)
    assert shown.status == 2
    assert "did you mean url?" in shown.err


# ── completion ───────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts(line: Line, shell: str) -> None:
    script = line("completion", shell).out
    assert f"_EVERFAAS_COMPLETE={shell}_complete" in script


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("everfaas st", {"status", "store"}),
        ("everfaas ls --st", {"--status"}),
        ("everfaas ls --status ", {"QUEUED", "RUNNING", "COMPLETED", "FAILED", "CANCELLED"}),
        ("everfaas completion ", {"bash", "zsh", "fish"}),
    ],
)
def test_a_shell_completes_commands_flags_and_choices(url: str, tmp_path: Path, words: str, offered: set[str]) -> None:
    found = complete(words, url, tmp_path)
    assert {word.casefold() for word in found} == {word.casefold() for word in offered}


def test_a_shell_completes_ids_of_tasks_and_hears_nothing_when_no_api_is_there(line: Line, tmp_path: Path) -> None:
    task_id = line.submit(MADE["double"], 1)
    assert task_id in complete("everfaas status ", line.url, tmp_path)
    assert complete(f"everfaas logs {task_id[:30]}", line.url, tmp_path) == {task_id}
    assert complete("everfaas status ", "http://127.0.0.1:9", tmp_path) == set()


def complete(words: str, url: str, cwd: Path) -> set[str]:
    parts = words.split(" ")
    environ = {
        "_EVERFAAS_COMPLETE": "bash_complete",
        "COMP_WORDS": words,
        "COMP_CWORD": str(len(parts) - 1),
    }
    done = piped([], url, cwd, environ=environ)
    assert done.err == ""
    return {row.split(",", 1)[1] for row in done.lines if row}
