"""`everfaas run` and `everfaas logs`: a function of a file, its output, its outcome."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from everfaas_core.cli.targets import keywords, literal
from tests.cli.driving import UNKNOWN_ID, Line, Screen, environment, piped
from tests.unit.system import running, until
from tests.unit.test_cli_up import ready, up

pytestmark = pytest.mark.xdist_group("cli-map")

SOURCE = """
import sys, time
from everfaas_core import function

CONSTANT = 10

def told(*args, **kwargs): return [list(args), kwargs]
def scaled(x): return x * CONSTANT
def nothing(): return None
def prints(n):
    for number in range(n):
        print("out", number, flush=True)
        print("err", number, file=sys.stderr, flush=True)
    return "done"
def boom(x):
    raise ValueError(f"no {x}")
def nap(s):
    print("asleep", flush=True)
    time.sleep(s)
def steps():
    from everfaas_core import progress
    progress(3, 10, "third\\x1b[2J")
    time.sleep(60)
def hostile():
    sys.stdout.write("\\x1b[31mred\\x1b[0m \\x1b]0;owned\\x07 \\x1b[2J\\n")
    return "\\x1b[2Jx"
def dies():
    import os
    print("last words", flush=True)
    os._exit(3)
@function(timeout_s=0.3)
def late(): time.sleep(60)
class Tools:
    @staticmethod
    def half(x): return x / 2
lock = __import__("threading").Lock()
def locked(): return lock
"""

IMPATIENT = """
import sys
from everfaas_core.cli import main, outcomes
outcomes.Patience.__init__.__defaults__ = (1.0,)
sys.exit(main())
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a module of functions, as the current one."""
    (tmp_path / "work.py").write_text(SOURCE)
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / "__init__.py").touch()
    (tmp_path / "parts" / "base.py").write_text("def base(): return 40\n")
    (tmp_path / "parts" / "top.py").write_text("from .base import base\ndef more(x): return base() + x\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


# ── arguments and results ────────────────────────────────────────────────────────────────────────────────────────────


def test_arguments_are_literals_where_they_can_be_read_so(line: Line, place: Path) -> None:
    words = ["run", "work.py::told", "3", "-4", "-.5", "[1, 2]", "x y", "'q'", "None", "--kw", "a=1", "--kw", "b=c=d"]
    assert line(*words).out == "[[3, -4, -0.5, [1, 2], 'x y', 'q', None], {'a': 1, 'b': 'c=d'}]\n"


def test_where_functions_are_found(line: Line, place: Path) -> None:
    assert line("run", "work.py::scaled", "4").out == "40\n"
    assert line("run", str(place / "work.py") + "::Tools.half", "3").out == "1.5\n"
    assert piped(["run", "parts.top::more", "2"], line.url, place).out == "42\n"
    assert piped(["run", "parts/top.py::more", "2"], line.url, place).out == "42\n"
    (place / "json.py").write_text("def f(): return __name__ != 'json'\n")
    assert line("run", "json.py::f").out == "True\n"


def test_results_as_the_interpreter_and_as_json_show_them(line: Line, place: Path) -> None:
    assert line("run", "work.py::nothing").out == ""
    found = line("run", "work.py::scaled", "1", "--json", "--name", "ten", "--priority", "9").json
    assert (found["status"], found["value"]) == ("COMPLETED", 10)
    record = line("status", "--json", found["task_id"]).json
    assert (record["function_name"], record["priority"]) == ("ten", 9)


def test_options_of_a_decorated_function_hold_unless_a_flag_says_otherwise(line: Line, place: Path) -> None:
    shown = line("run", "work.py::late", status=5)
    assert "exceeded deadline" in shown.err
    task_id = line("run", "work.py::late", "--timeout", "50", "--detach").out.strip()
    assert line("status", "--json", task_id).json["timeout_s"] == 50
    line("cancel", task_id)


def test_an_exception_is_shown_with_the_remote_traceback(line: Line, place: Path) -> None:
    shown = line("run", "work.py::boom", "way", status=5)
    assert shown.out == ""
    assert shown.err.startswith("ValueError: no way\n")
    assert ", in boom" in shown.err
    found = line("run", "work.py::boom", "way", "--json", status=5).json
    assert found["error"].startswith("ValueError: no way\n")


# ── output ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_what_it_writes_streams_to_where_it_belongs(line: Line, place: Path) -> None:
    shown = line("run", "work.py::prints", "3")
    assert shown.out == "out 0\nout 1\nout 2\n'done'\n"
    assert shown.err == "err 0\nerr 1\nerr 2\n"


def test_output_comes_while_the_task_runs(line: Line, place: Path) -> None:
    with Screen(["run", "work.py::nap", "60"], line.url, place) as screen:
        screen.until("asleep")
        task_id = line("ls", "-q", "--status", "RUNNING").lines[0]
        screen.type("\x03")
        screen.until("cancelling task")
        assert screen.end() == 130
        assert f"cancelling task {task_id}" in screen.text.replace("\n", "")
        assert "the task is cancelled" in screen.text
    assert line.ended(task_id)["status"] == "CANCELLED"


def test_a_second_interrupt_leaves_at_once(everything: tuple[str, object], line: Line, place: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "everfaas_core.cli", "run", "work.py::nap", "60"],
        cwd=place,
        env=environment(line.url, place),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "asleep\n"
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=30)
    assert process.returncode == 130
    for task_id in line("ls", "-q", "--status", "RUNNING").lines:
        line("cancel", task_id)


def test_progress_is_shown(line: Line, place: Path) -> None:
    task_id = line("run", "work.py::steps", "--detach").out.strip()
    until(lambda: line("status", "--json", task_id).json["progress"])
    assert r"progress    3/10 30 % third\x1b[2J (told " in line("status", task_id).out
    with Screen(["ls", "--status", "RUNNING"], line.url, place, width=140) as screen:
        assert screen.end() == 0
    assert r"3/10 30 % third\x1b[2J" in screen.text
    line("cancel", task_id)


def test_a_task_can_colour_a_terminal_and_nothing_else(line: Line, place: Path) -> None:
    with Screen(["run", "work.py::hostile"], line.url, place) as screen:
        assert screen.end() == 0
    assert "\x1b[31mred\x1b[0m" in screen.text
    assert r"\x1b]0;owned\x07" in screen.text
    assert r"'\x1b[2Jx'" in screen.text
    assert "\x1b[2J" not in screen.text
    assert "\x07" not in screen.text
    assert "\x1b]0;owned\x07" in line("run", "work.py::hostile").out  # a pipe gets what was written


def test_each_attempt_is_told(line: Line, place: Path) -> None:
    shown = line("run", "work.py::dies", "--max-attempts", "2", status=5)
    assert shown.out == "last words\nlast words\n"
    assert "[attempt 2]\n" in shown.err
    assert "SlotCrashed" in shown.err or "WorkerFailure" in shown.err
    task_id = line("ls", "-q", "--dead", "--limit", "1").out.strip()
    assert line("logs", task_id).out == "last words\nlast words\n"
    assert line("logs", task_id, "--attempt", "1").out == "last words\n"


def test_logs(line: Line, place: Path) -> None:
    task_id = line("run", "work.py::prints", "2", "--detach").out.strip()
    shown = line("logs", "-f", task_id)
    assert (shown.out, shown.err) == ("out 0\nout 1\n", "err 0\nerr 1\n")
    pieces = line("logs", "--json", task_id).objects
    assert "".join(piece["text"] for piece in pieces if piece["stream"] == "stderr") == "err 0\nerr 1\n"
    assert {piece["attempt"] for piece in pieces} == {1}
    assert line("logs", "-t", task_id).lines[0].split(" ", 1)[1] == "out 0"
    assert f"there is no task {UNKNOWN_ID}" in line("logs", UNKNOWN_ID, status=8).err


def test_logs_follow_until_the_end(line: Line, place: Path) -> None:
    task_id = line("run", "work.py::nap", "60", "--detach").out.strip()
    with Screen(["logs", "-f", task_id], line.url, place) as screen:
        screen.until("asleep")
        assert screen.process.poll() is None
        line("cancel", task_id)
        assert screen.end() == 0
    until(lambda: line.ended(task_id))


# ── what can be wrong ────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["work.py"], "'work.py' does not name a function\nHint: for example: everfaas run examples/pi.py::estimate"),
        (["::f"], "'::f' does not name a function"),
        (["nowhere.py::f"], "there is no file nowhere.py"),
        (["nowhere.module::f"], "there is no module 'nowhere.module'"),
        (["work.py::scald", "1"], "work.py has no 'scald'\nHint: did you mean scaled?"),
        (["work.py::CONSTANT"], "work.py::CONSTANT is no function but a int"),
        (["broken.py::f"], "broken.py can't be imported:"),
        (["raises.py::f"], "ZeroDivisionError: division by zero"),
        (["missing.py::f"], "No module named 'no_such_module'"),
        (["work.py::told", "--kw", "a"], "--kw a: write it as NAME=VALUE."),
        (["work.py::told", "--timout", "3"], "No such option '--timout'"),
        (["work.py::told", "--timeout", "0"], "0"),
        (["work.py::locked"], "lock"),
        ([], "Missing argument"),
    ],
)
def test_what_is_wrong_is_the_users_to_mend(line: Line, place: Path, words: list[str], said: str) -> None:
    (place / "broken.py").write_text("def f(:\n")
    (place / "raises.py").write_text("1 / 0\n")
    (place / "missing.py").write_text("import no_such_module\n")
    shown = line("run", *words, status=2)
    assert said in shown.err
    assert shown.out == ""
    assert "everfaas_core/cli" not in shown.err  # none of our own frames


def test_an_api_that_goes_away_leaves_the_task_alone(
    place: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path_factory.mktemp("away")
    with running(up("-w", "1", "--path", str(place), data=home / "data"), home) as command:
        url = ready(command)[0]
        process = subprocess.Popen(
            [sys.executable, "-c", IMPATIENT, "run", "work.py::nap", "60"],
            cwd=place,
            env=environment(url, place),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        assert process.stdout.readline() == "asleep\n"
        command.process.kill()
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 4, errors
    assert "goes on without us: everfaas logs -f " in errors
    assert "no API answers" in errors


def test_no_api_there(place: Path) -> None:
    assert piped(["run", "work.py::nothing"], "http://127.0.0.1:9", place).status == 4


@pytest.mark.parametrize("word", ["3", "-1e3", "(1, 'a')", "{'a': [1]}", "True", "b'x'"])
def test_words_that_are_literals(word: str) -> None:
    assert literal(word) == eval(word)


@pytest.mark.parametrize("word", ["x", "1 2", "f()", "", "[1", "-", "a.b", "__import__('os')", "(" * 10_000])
def test_words_that_are_texts(word: str) -> None:
    assert literal(word) == word


def test_keywords() -> None:
    assert keywords(["a=1", "b=", "c=x=y"]) == {"a": 1, "b": "", "c": "x=y"}
