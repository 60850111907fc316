"""Writes the goldens of test_goldens.py anew; run it as a script and read the diff before committing it."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path

from ptwalk.cli import run

SCENARIOS = Path(__file__).parents[2] / "examples" / "scenarios"
GOLDENS = Path(__file__).parent / "goldens"


def main() -> None:
    for old in GOLDENS.glob("*.txt"):
        old.unlink()
    for scenario in sorted(SCENARIOS.glob("*.scn")):
        for command in ("run", "diff"):
            with contextlib.redirect_stdout(io.StringIO()) as out:
                assert run(["rmap", command, str(scenario)]) == 0, scenario
            (GOLDENS / f"{scenario.stem}.{command}.txt").write_text(out.getvalue())


if __name__ == "__main__":
    main()
