"""`everfaas sim` as a person and a script use it."""

from __future__ import annotations

import json

import pytest

from everfaas_core.cli import main
from everfaas_core.dispatch.machine import Machine


def test_a_summary_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sim", "flapping-workers", "--seed", "4", "--tasks", "100"]) == 0
    shown = capsys.readouterr().out
    assert "flapping-workers, seed 4: the promise was kept" in shown
    assert "100" in shown
    assert "digest" in shown


def test_a_summary_for_scripts(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sim", "calm", "--tasks", "30", "--workers", "2", "--slots", "2", "--json", "--seeds", "2"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["seed"] for line in lines] == [1, 2]
    assert lines[0]["ended"] == {"COMPLETED": 34}
    assert lines[0]["violation"] is None


def test_without_a_scenario_they_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sim"]) == 0
    assert "hang-and-return" in capsys.readouterr().out


def test_a_wrong_name_is_answered_with_the_right_ones(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sim", "clam"]) == 2
    assert "calm" in capsys.readouterr().err


def test_a_violation_ends_with_1_and_the_command_that_replays_it(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Machine, "_on_settled", lambda self, held: None)
    assert main(["sim", "calm", "--seed", "9", "--tasks", "40"]) == 1
    shown = capsys.readouterr()
    assert "BROKEN" in shown.out
    assert "replay:   everfaas sim calm --seed 9 --tasks 40" in shown.err
