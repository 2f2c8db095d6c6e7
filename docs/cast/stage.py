"""A real terminal in which things are typed: tmux in a pseudo-terminal whose output is recorded."""

from __future__ import annotations

import codecs
import fcntl
import os
import pty
import random
import select
import shlex
import signal
import struct
import subprocess
import termios
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

POLL_S: Final = 0.05
KEYS: Final = {"C-c": "\x03", "C-d": "\x04", "C-l": "\x0c"}

TMUX: Final = """\
set -g status off
set -g escape-time 0
set -g history-limit 10000
set -g default-terminal screen-256color
set -g pane-border-style fg=colour240
set -g pane-active-border-style fg=colour240
"""

BASH: Final = """\
PS1='\\[\\e[1;36m\\]$\\[\\e[0m\\] '
HISTFILE=
PROMPT_COMMAND='echo "$?" >> "$STAGE_ENDS/$TMUX_PANE"'
"""


class Failed(Exception):
    """The play did not go as it is written; the message says what was waited for, and what is on the screen."""


class Stage:
    """One terminal, with one or two shells in it. `events` has what was shown and typed, with times in seconds."""

    def __init__(self, folder: Path, place: Path, environ: Mapping[str, str], columns: int, rows: int) -> None:
        """Open it with a shell in `place`; `folder` is for what the stage needs itself."""
        self.events: list[tuple[float, str, str]] = []
        self._ends = folder / "ends"
        self._ends.mkdir()
        (folder / "tmux.conf").write_text(TMUX)
        (folder / "bashrc").write_text(BASH)
        self._socket = folder / "tmux"
        shell = f"bash --noprofile --rcfile {shlex.quote(str(folder / 'bashrc'))} -i"
        self._environ = {**environ, "TERM": "screen-256color", "STAGE_ENDS": str(self._ends)}
        self._dice = random.Random(1)
        self._began = time.monotonic()
        self._lock = threading.Lock()
        self._closed = False  # what tmux says when it is ended is no part of the play
        words = ["tmux", "-S", str(self._socket), "-f", str(folder / "tmux.conf"), "new-session", "-s", "cast", shell]
        self._pid, self._master = pty.fork()
        if self._pid == 0:
            os.chdir(place)
            fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
            os.execvpe(words[0], words, self._environ)
        self._shell = shell
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self._panes = ["%0"]
        self.pane = "%0"
        self._await(lambda: self.ends() > 0, 10, "the first prompt")

    # ── what a person does ───────────────────────────────────────────────────────────────────────────────────────────

    def type(self, text: str) -> None:
        """Type a text, key by key, into the shell that has the keyboard."""
        for key in text:
            self._send(key)
            time.sleep(self._dice.uniform(0.03, 0.075) + (0.05 if key == " " else 0))

    def paste(self, text: str) -> None:
        """Have the whole text arrive at once."""
        self._send(text)
        time.sleep(0.3)

    def press(self, key: str) -> None:
        """Press a key by its name: Enter, C-c, …"""
        self._send("\r" if key == "Enter" else KEYS[key])

    def split(self, rows_above: int, place: Path) -> None:
        """Open a second shell below; the keyboard stays where it is."""
        rows = str(len(self._tmux("capture-pane", "-p", "-t", self.pane).splitlines()) - rows_above - 1)
        made = self._tmux("split-window", "-d", "-P", "-F", "#{pane_id}", "-l", rows, "-c", str(place), self._shell)
        pane = made.strip()
        self._panes.append(pane)
        self._await(lambda: self.ends(pane) > 0, 10, "the prompt of the second shell")

    def go(self, where: str) -> None:
        """Give the keyboard to the shell `above` or `below`."""
        self.pane = self._panes[("above", "below").index(where)]
        self._tmux("select-pane", "-t", self.pane)
        time.sleep(0.3)

    # ── what is seen ─────────────────────────────────────────────────────────────────────────────────────────────────

    def text(self, pane: str | None = None) -> str:
        """Return all that a shell's terminal has shown, with lines that were wrapped in one piece."""
        shown = self._tmux("capture-pane", "-p", "-J", "-S", "-", "-t", pane or self.pane)
        return "\n".join(line.rstrip() for line in shown.splitlines()).rstrip() + "\n"

    def texts(self) -> list[str]:
        """Return the texts of all shells, from above."""
        return [self.text(pane) for pane in self._panes]

    def ends(self, pane: str | None = None) -> int:
        """Return how many commands of a shell have ended (its start counts as one)."""
        return len(self._statuses(pane))

    def status(self) -> int:
        """Return the exit status of the last command that has ended."""
        return self._statuses()[-1]

    def mark(self, label: str) -> None:
        """Put a mark into the recording."""
        self._note("m", label)

    def await_end(self, before: int, wait_s: float, what: str) -> None:
        """Wait until one more command has ended than `before`. Raises Failed."""
        self._await(lambda: self.ends() > before, wait_s, f"the end of {what}")

    def await_text(self, text: str, seen: int, wait_s: float) -> None:
        """Wait until the text appears behind the first `seen` characters. Raises Failed."""
        self._await(lambda: text.rstrip() in self.text()[seen:], wait_s, repr(text))

    def close(self) -> None:
        """End all that runs in it. Idempotent."""
        if self._pid:
            self._closed = True
            subprocess.run(["tmux", "-S", self._socket, "kill-server"], capture_output=True, check=False)
            os.kill(self._pid, signal.SIGHUP)
            os.waitpid(self._pid, 0)
            self._reader.join(5)
            os.close(self._master)
            self._pid = 0

    # ── plumbing ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def _statuses(self, pane: str | None = None) -> list[int]:
        try:
            return [int(line) for line in (self._ends / (pane or self.pane)).read_text().splitlines()]
        except FileNotFoundError:
            return []

    def _await(self, holds: Callable[[], bool], wait_s: float, what: str) -> None:
        deadline = time.monotonic() + wait_s
        while not holds():
            if time.monotonic() > deadline:
                raise Failed(f"waited {wait_s:g} s for {what}; on the screen:\n{self.text()}")
            time.sleep(POLL_S)

    def _tmux(self, *words: str) -> str:
        done = subprocess.run(
            ["tmux", "-S", self._socket, *words], env=self._environ, capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise Failed(f"tmux {shlex.join(words)}: {done.stderr.strip()}")
        return done.stdout

    def _send(self, text: str) -> None:
        self._note("i", text)
        os.write(self._master, text.encode())

    def _note(self, kind: str, text: str) -> None:
        with self._lock:
            if self._closed:
                return
            self.events.append((time.monotonic() - self._began, kind, text))

    def _read(self) -> None:
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        while True:
            select.select([self._master], [], [])
            try:
                data = os.read(self._master, 65536)
            except OSError:  # the other end is closed
                return
            if not data:
                return
            if text := decoder.decode(data):
                self._note("o", text)
