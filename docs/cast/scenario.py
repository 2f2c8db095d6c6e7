"""What is played: a list that reads like the README's first five minutes.

`Type` types a command and waits for its end, which has to have the exit status `status`; with `until` it waits for that
text instead, of a program that goes on. `remember` keeps what a pattern finds in what the command said: `{name}` in a
later step is pasted at once, as a person would. Where `until` is `PYTHON`, the line belongs to Python.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

PYTHON: Final = ">>> "
"""What Python shows when it waits for a line."""

TASK_ID: Final = r"\b[0-9a-f]{8}-[0-9a-f-]{27}\b"


@dataclass(frozen=True)
class Type:
    """Type a line and Enter. `until` and `says` have to appear behind it within `wait_s`; then it is looked at."""

    line: str
    until: str | None = None
    says: tuple[str, ...] = ()
    status: int = 0
    remember: dict[str, str] = field(default_factory=dict)
    wait_s: float = 30.0
    look_s: float = 0.8


@dataclass(frozen=True)
class Press:
    """Press one key, such as C-c or C-d; otherwise like `Type`."""

    key: str
    until: str | None = None
    status: int = 0
    wait_s: float = 30.0
    look_s: float = 0.8


@dataclass(frozen=True)
class Split:
    """Open a second terminal below, and leave so many rows to the first."""

    rows_above: int


@dataclass(frozen=True)
class Go:
    """Type on in the terminal `above` or `below`."""

    where: str


@dataclass(frozen=True)
class Still:
    """What is on the screen now is the picture for those who want no motion."""


Step = Type | Press | Split | Go | Still


def python(line: str, *says: str, until: str = PYTHON, look_s: float = 0.4) -> Type:
    """Type a line to Python."""
    return Type(line, until=until, says=says, look_s=look_s)


FIRST_MINUTES: Final[tuple[Step, ...]] = (
    Type("python3 -m venv .venv && . .venv/bin/activate", wait_s=120),
    Type("pip install -q .", wait_s=600),
    Type("everfaas up", until="stop     Ctrl-C", says=("ready", "local, 4 slots"), look_s=1.5),
    Split(rows_above=8),
    Go("below"),
    Type(". .venv/bin/activate", look_s=0.3),
    # Python: a call, many calls, an exception.
    Type("python", until=PYTHON, look_s=0.5),
    python("from everfaas_core import Client"),
    python("client = Client()"),
    python("client.submit(pow, 2, 10).result()", "1024", look_s=0.8),
    python("list(client.map(pow, range(12), [2] * 12))", "[0, 1, 4, 9, 16, 25, 36, 49, 64, 81, 100, 121]", look_s=1.2),
    python("def share(parts):", until="... ", look_s=0.1),
    python("    return 1 / parts", until="... ", look_s=0.1),
    python("", look_s=0.1),
    python("client.submit(share, 0).result()", "Remote traceback", "ZeroDivisionError: division by zero", look_s=2.5),
    Press("C-d", look_s=0.3),
    Press("C-l", until="", look_s=0.3),
    # The command line: a function of a file, once and many times.
    Type("cat pi.py", look_s=2.5),
    Type("everfaas run pi.py::estimate 25000000", says=("100%", "3.14"), look_s=1.5),
    Press("C-l", until="", look_s=0.3),
    Type("seq 100000 4000 900000 > sizes.txt", look_s=0.3),
    Type("everfaas map pi.py::estimate --over sizes.txt --out pi.jsonl", says=("201 completed",), wait_s=90),
    Type("tail -n 1 pi.jsonl", says=("3.1",)),
    Type(
        "everfaas ls --status FAILED",
        says=("share",),
        remember={"failed": TASK_ID},
        look_s=1.2,
    ),
    Still(),
    Press("C-l", until="", look_s=0.3),
    Type("everfaas status {failed}", says=("ZeroDivisionError",), look_s=3.0),
    # The end: nothing is left behind.
    Go("above"),
    Press("C-c", look_s=1.0),
    Go("below"),
    Press("C-l", until="", look_s=0.3),
    Type("everfaas ls", says=("everfaas up",), status=4, look_s=2.0),
)
