"""One function is one function, in whatever run of its program it is packed; and another one is another."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from everfaas_core.shipping import Shipper

PROGRAM = """
import dataclasses, enum, hashlib, typing
import mylib
from everfaas_core.shipping import Shipper

class Color(enum.Enum):
    RED = 1

@dataclasses.dataclass
class Settings:
    rate: float = 1.5
    WORDS = frozenset({"a", "b", "cc", "dd"})

class Pair(typing.NamedTuple):
    left: int
    right: int

NAMES = {"one", "two", "three", "four"}
FROZEN = frozenset(NAMES)

def helper(x):
    return mylib.scaled(x), Color.RED, NAMES, Pair(1, 2)

def work(x, settings=Settings()):
    return helper(x), settings, x in {"m", "n", "o"}, FROZEN

print(hashlib.sha256(Shipper().pack_function(work).payload).hexdigest())
"""
LIBRARY = """
SCALES = {"small", "large", "huge"}

class Point:
    KINDS = {"p", "q", "r"}

def scaled(x):
    return Point(), SCALES
"""


def test_each_run_of_a_program_packs_the_same(tmp_path: Path) -> None:
    (tmp_path / "mylib.py").write_text(LIBRARY)
    script = tmp_path / "program.py"
    script.write_text(PROGRAM)

    def packed(seed: int) -> str:
        environ = {**os.environ, "PYTHONHASHSEED": str(seed)}
        done = subprocess.run([sys.executable, script], cwd=tmp_path, env=environ, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert len({packed(seed) for seed in (1, 2, 3)}) == 1
    (tmp_path / "mylib.py").write_text(LIBRARY.replace('"huge"', '"tiny"'))
    script.write_text(PROGRAM)
    changed = packed(1)
    (tmp_path / "mylib.py").write_text(LIBRARY)
    assert changed != packed(1)


def test_classes_of_one_name_are_told_apart() -> None:
    def made(value: int) -> type:
        class Same:
            number = value

        return Same

    one, two = made(1), made(2)
    packed = {Shipper().pack_function(lambda one=one: one.number).payload}
    packed |= {Shipper().pack_function(lambda one=two: one.number).payload}
    assert len(packed) == 2


def test_a_set_that_others_hold_stays_one_with_theirs(tmp_path: Path) -> None:
    program = """
import pickle
from everfaas_core.shipping import Shipper

SHARED = {"a", "b"}
LISTED = [SHARED]

def work():
    SHARED.add("c")
    return sorted(LISTED[0])

work_ = pickle.loads(Shipper().pack_function(work).payload)
print(work_(), sorted(SHARED))
"""
    script = tmp_path / "program.py"
    script.write_text(program)
    done = subprocess.run([sys.executable, script], cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout == "['a', 'b', 'c'] ['a', 'b']\n", done.stderr
