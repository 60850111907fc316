"""The printed output of every shipped scenario. Figures are checked in test_stories.py; this pins the text.

goldens.py writes them anew.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from ptwalk.cli import run
from ptwalk.rmap.models import MODELS
from ptwalk.scenario.runner import run as run_scenario
from ptwalk.scenario.text import diff_text, text

SCENARIOS = Path(__file__).parents[2] / "examples" / "scenarios"
GOLDENS = Path(__file__).parent / "goldens"
NAMES = sorted(path.stem for path in SCENARIOS.glob("*.scn"))


@pytest.mark.parametrize("name", NAMES)
def test_printed_output(name: str) -> None:
    story = run_scenario(SCENARIOS / f"{name}.scn")
    assert text(story, list(MODELS)) + "\n" == (GOLDENS / f"{name}.run.txt").read_text()
    assert diff_text(story, list(MODELS)) + "\n" == (GOLDENS / f"{name}.diff.txt").read_text()


@pytest.mark.parametrize("command", ["run", "diff"])
def test_the_command_prints_it(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["rmap", command, str(SCENARIOS / "v24.scn")]) == 0
    assert capsys.readouterr().out == (GOLDENS / f"v24.{command}.txt").read_text()


def test_no_golden_without_a_scenario() -> None:
    assert {path.name.split(".")[0] for path in GOLDENS.iterdir()} == set(NAMES)


def test_nothing_shipped_is_unexplained() -> None:
    for path in GOLDENS.glob("*.diff.txt"):
        assert "UNEXPLAINED" not in path.read_text()


@pytest.mark.parametrize("number", range(1, 8))
def test_each_functional_change_is_shown_by_its_scenario(number: int) -> None:
    (path,) = GOLDENS.glob(f"change-{number}-*.diff.txt")
    assert f"  ({number})\n" in path.read_text()
