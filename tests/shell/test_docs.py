"""docs/shell.md: every line typed there is typed into the real command, and it answers what the page says."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "shell.md"
PROMPT = "ptwalk> "
Session = tuple[str, list[tuple[str, str]]]


def sessions(text: str) -> list[Session]:
    """The page's sessions: arguments, then (what is typed, what it answers); the first answer is the banner."""
    found: list[Session] = []
    for block in re.findall(r"^```console\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        head, *turns = re.split(rf"^{re.escape(PROMPT)}", block, flags=re.MULTILINE)
        if head.startswith("$ ptwalk repl"):
            command, _, banner = head.partition("\n")
            found.append((command.removeprefix("$ ptwalk repl"), [("", banner)]))
        for turn in turns:
            typed, _, answer = turn.partition("\n")
            found[-1][1].append((typed, answer))
    return found


def answers(arguments: str, typed: list[str], home: Path) -> list[str]:
    """What the command says: its banner, then the answer to each line."""
    command = [sys.executable, "-u", "-m", "ptwalk", "repl", *arguments.split(), "--plain"]
    env = {**os.environ, "XDG_STATE_HOME": str(home)}
    ran = subprocess.run(
        command, input="\n".join([*typed, "exit()\n"]), stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True, cwd=ROOT, env=env, check=True,
    )  # fmt: skip
    return ran.stdout.split(PROMPT)[:-1]


SESSIONS = sessions(PAGE.read_text(encoding="utf-8"))


def test_the_page_has_sessions() -> None:
    assert len(SESSIONS) >= 2
    assert sum(len(turns) for _, turns in SESSIONS) > 12


@pytest.mark.parametrize("number", range(len(SESSIONS)))
def test_a_session_goes_as_the_page_says(number: int, tmp_path: Path) -> None:
    arguments, turns = SESSIONS[number]
    assert answers(arguments, [typed for typed, _ in turns[1:]], tmp_path) == [answer for _, answer in turns]
