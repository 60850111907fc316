"""The progress bar: on a terminal after a second, gone at the end; nowhere else, and stdout stays as it is."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pexpect
import pytest

from ptwalk.cli.progress import Bar
from ptwalk.mmu.progress import listeners, tracked

CAPTURES = Path(__file__).parents[2] / "examples" / "captures"
LONG = ["rmap", "verify", str(CAPTURES / "x86_64-7.3.4-N.tar.xz")]  # takes some seconds
PTWALK = [sys.executable, "-m", "ptwalk"]


def test_a_long_command_shows_it_on_a_terminal_and_takes_it_away(tmp_path: Path) -> None:
    out = tmp_path / "out"
    shell = f"{' '.join(PTWALK)} {' '.join(LONG)} > {out}; echo status $?"
    child = pexpect.spawn("/bin/sh", ["-c", shell], timeout=120, dimensions=(24, 100), encoding="utf-8")
    child.expect("checkpoints (adopted|compared)")
    child.expect("status 0")
    child.close()
    plain = subprocess.run([*PTWALK, *LONG], capture_output=True, text=True, timeout=120, check=False)
    assert plain.returncode == 0
    assert plain.stderr == ""
    assert out.read_text() == plain.stdout


def test_a_short_command_shows_nothing() -> None:
    child = pexpect.spawn(sys.executable, ["-m", "ptwalk", "decode", "PTE", "0x67"], timeout=60, encoding="utf-8")
    said = child.read()
    child.close()
    assert "\x1b[?25l" not in said  # a bar hides the cursor
    assert child.exitstatus == 0


def test_rich_is_not_loaded_before_it_is_shown() -> None:
    code = (
        "import sys\nfrom ptwalk.cli.progress import Bar\nbar = Bar()\nbar('x', 1, 2)\nsys.exit('rich' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_bar_counts_what_it_is_told(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("ptwalk.cli.progress.DELAY", 0)
    bar = Bar()
    listeners.append(bar)
    try:
        assert list(tracked(range(5), "things")) == [0, 1, 2, 3, 4]
        assert bar._progress is not None
        (task,) = bar._progress.tasks
        assert (task.description, task.completed, task.total) == ("things", 5, 5)
    finally:
        listeners.remove(bar)
        bar.close()
    assert capsys.readouterr().out == ""
