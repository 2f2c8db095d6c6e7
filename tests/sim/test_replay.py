"""The same seed gives the same world, byte for byte; another seed another one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from everfaas_core.sim.tales import TALES

from .running import run, world

GOLDEN = Path(__file__).parent / "golden"


def test_a_seed_replays() -> None:
    first, again, other = [run("everything", seed, tasks=300) for seed in (5, 5, 6)]
    assert (first.digest, first.events, first.virtual_s) == (again.digest, again.events, again.virtual_s)
    assert first.digest != other.digest


def test_a_transcript_changes_nothing() -> None:
    written = world("flapping-workers", 3, written=True, tasks=200).run()
    assert written.digest == run("flapping-workers", 3, tasks=200).digest


def test_a_seed_replays_in_another_process_with_another_hash_seed() -> None:
    digests = {_by_command(hash_seed)["digest"] for hash_seed in ("0", "1", "4711")}
    assert len(digests) == 1


def _by_command(hash_seed: str) -> dict[str, object]:
    done = subprocess.run(
        [sys.executable, "-m", "everfaas_core.cli", "sim", "everything", "--seed", "2", "--tasks", "250", "--json"],
        env={**os.environ, "PYTHONHASHSEED": hash_seed},
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("name", sorted(TALES))
def test_a_tale_goes_as_it_was_written_down(name: str) -> None:
    """Regenerate with: everfaas sim NAME --transcript > tests/sim/golden/NAME.txt, and read the difference."""
    from everfaas_core.cli.sim import transcript

    told = world(name, 1, written=True)
    assert told.run().violation is None
    assert transcript(told) + "\n" == (GOLDEN / f"{name}.txt").read_text()
