"""Play the first five minutes in a real terminal, on a fresh copy of this tree, and record them.

    python docs/cast/record.py

Needs tmux, git, the package index (for `pip install .`) and the extra `docs`; takes about two minutes. Writes
first-minutes.cast (the recording), first-minutes.svg (drawn from it) and first-minutes.txt (its text).
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

from asciicast import Cast
from draw import draw
from scenario import FIRST_MINUTES, Go, Press, Split, Step, Still, Type
from stage import Failed, Stage

HERE: Final = Path(__file__).resolve().parent
ROOT: Final = HERE.parents[1]
COLUMNS: Final = 100
ROWS: Final = 26
IDLE_S: Final = 2.0
HOME: Final = Path("/tmp/ada")
PORT: Final = 8000
END_S: Final = 15.0
"""How long the processes of the play may take to end."""
STAGE_HANDS: Final = frozenset({"bash", "tmux: server", "tmux: client"})
TITLE: Final = "The first five minutes of EverythingFaaS"


def main() -> int:
    """Record, or say why not."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--to", type=Path, default=HERE / "first-minutes", help="The files' path without suffix.")
    parser.add_argument("--idle", type=float, default=IDLE_S, help="Longest pause when it is played, in seconds.")
    parser.add_argument("--port", type=int, default=PORT, help="The API's port; another one is seen in the recording.")
    given = parser.parse_args()
    to: Path = given.to
    if not free(given.port):
        print(f"port {given.port} is taken, end what listens there or name another one: --port N", file=sys.stderr)
        return 1
    try:
        HOME.mkdir(mode=0o700)
    except FileExistsError:
        print(f"{HOME} is there already: another recording, or what is left of one? Remove it.", file=sys.stderr)
        return 1
    try:
        cast, texts = play(given.idle, surroundings(given.port))
    except Failed as failed:
        print(f"nothing is recorded: {failed}", file=sys.stderr)
        return 1
    finally:
        shutil.rmtree(HOME)
    cast.write(to.with_suffix(".cast"))
    to.with_suffix(".txt").write_text(texts, encoding="utf-8")
    drawn = draw(to.with_suffix(".cast"))
    to.with_suffix(".svg").write_text(drawn, encoding="utf-8")
    played_s = list(cast.played())[-1][0]
    print(f"{to}.svg: {played_s:.0f} s, {len(drawn) / 1000:.0f} KB")
    return 0


def play(idle_s: float, environ: dict[str, str]) -> tuple[Cast, str]:
    """Play the scenario; return the recording and what both terminals showed. Raises Failed."""
    clone = HOME / "everfaas"
    copy_tree(clone)
    with tempfile.TemporaryDirectory() as folder:
        stage = Stage(Path(folder), clone, environ, COLUMNS, ROWS)
        try:
            perform(stage, FIRST_MINUTES, clone)
            texts = "\n".join(
                f"── {title} {'─' * (COLUMNS - 4 - len(title))}\n\n{text}"
                for title, text in zip(("first terminal", "second terminal"), stage.texts(), strict=True)
            )
            if left := running(END_S, besides=STAGE_HANDS):
                raise Failed(f"processes are left behind: {' '.join(left)}")
        finally:
            stage.close()
            running(END_S)  # after a failure, what still runs would write into the folder that is removed next
    nothing_is_told(texts)
    return Cast(COLUMNS, ROWS, idle_s, TITLE, stage.events), texts


def perform(stage: Stage, steps: tuple[Step, ...], place: Path) -> None:
    """Do one step after the other. Raises Failed."""
    remembered: dict[str, str] = {}
    for step in steps:
        match step:
            case Split(rows_above=rows):
                stage.split(rows, place)
            case Go(where=where):
                stage.go(where)
            case Still():
                stage.mark("still")
            case Type():
                seen, ends = len(stage.text()), stage.ends()
                for part in re.split(r"(\{\w+\})", step.line):
                    if part.startswith("{") and part[1:-1] in remembered:
                        stage.paste(remembered[part[1:-1]])
                    else:
                        stage.type(part)
                seen += len(step.line)
                time.sleep(0.25)
                stage.press("Enter")
                settle(stage, step, step.line, seen, ends)
                for name, pattern in step.remember.items():
                    remembered[name] = find(pattern, stage.text()[seen:])
            case Press():
                seen, ends = len(stage.text()), stage.ends()
                stage.press(step.key)
                settle(stage, step, step.key, seen, ends)


def settle(stage: Stage, step: Type | Press, what: str, seen: int, ends: int) -> None:
    """Wait for what the step waits for, then look at it. Raises Failed."""
    if step.until is None:
        stage.await_end(ends, step.wait_s, what)
        if stage.status() != step.status:
            raise Failed(f"{what} ended with status {stage.status()}, not {step.status}:\n{stage.text()}")
    else:
        stage.await_text(step.until, seen, step.wait_s)
    for text in step.says if isinstance(step, Type) else ():
        stage.await_text(text, seen, 1.0)
    time.sleep(step.look_s)


def find(pattern: str, text: str) -> str:
    """Return the first match. Raises Failed."""
    match = re.search(pattern, text)
    if match is None:
        raise Failed(f"nothing matches {pattern} in:\n{text}")
    return match[0]


def copy_tree(clone: Path) -> None:
    """Copy the files of this tree that git knows or would take, as they are now."""
    words = ["git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    for name in subprocess.run(words, check=True, capture_output=True, text=True).stdout.split("\0"):
        if name and (ROOT / name).is_file():
            (clone / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, clone / name)
    for path in (HERE / "files").iterdir():
        shutil.copy2(path, clone / path.name)


def surroundings(port: int) -> dict[str, str]:
    """Return the environment of the shells: Ada's, with what pip needs here to reach its index."""
    environ = {name: value for name, value in os.environ.items() if name.startswith(("PIP_", "SSL_"))}
    base = Path(sys.executable).resolve().parent
    environ |= {
        "HOME": str(HOME),
        "PATH": f"{base}:/usr/local/bin:/usr/bin:/bin",
        "LANG": "C.UTF-8",
        "VIRTUAL_ENV_DISABLE_PROMPT": "1",
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "PIP_ROOT_USER_ACTION": "ignore",
        "PIP_QUIET": "1",  # with the -q of the scenario: no warnings about this machine's mirrors
        "PYTHON_BASIC_REPL": "1",  # no colours and no menus in Python's own prompt, also on 3.13
    }
    user = Path.home() / ".config" / "pip" / "pip.conf"
    if user.exists() and "PIP_CONFIG_FILE" not in environ:
        environ["PIP_CONFIG_FILE"] = str(user)
    if port != PORT:
        environ |= {"EVERFAAS_PORT": str(port), "EVERFAAS_URL": f"http://127.0.0.1:{port}"}
    return environ


def free(port: int) -> bool:
    """Tell whether nobody listens on this port of loopback."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


def running(wait_s: float, besides: frozenset[str] = frozenset()) -> list[str]:
    """Wait until no process of the play runs, or only such as are called so; return those that are still there."""
    deadline = time.monotonic() + wait_s
    while True:
        found = []
        for process in Path("/proc").iterdir():
            with contextlib.suppress(OSError):  # it has ended, or is another user's
                if process.name.isdigit() and f"HOME={HOME}\0".encode() in (process / "environ").read_bytes():
                    name = (process / "comm").read_text().strip()
                    if name not in besides:
                        found.append(f"{name} ({process.name})")
        if not found or time.monotonic() > deadline:
            return found
        time.sleep(0.1)


def nothing_is_told(texts: str) -> None:
    """Raise Failed if this machine's name, or the places of its user, of this tree or of its Python are to be read."""
    python = Path(sys.executable).resolve().parents[1]
    for private in (socket.gethostname(), str(Path.home()), str(ROOT), str(python)):
        if len(private) > 3 and private in texts:
            raise Failed(f"the recording would tell {private!r}:\n{texts}")


if __name__ == "__main__":
    sys.exit(main())
