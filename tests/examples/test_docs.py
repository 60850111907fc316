"""Every `console` block of the tutorial and the how-to pages is run, and what it shows is compared.

The blocks of a page run in order in one empty folder that holds nothing but `examples/`. After `$ command` stands what
it prints; a line `...` stands for any lines left out, `...` inside a line for a part of it. A command with nothing
behind it may print what it likes, but must succeed; one whose output is shown may end in a negative answer (1).
"""

from __future__ import annotations

import itertools
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from ptwalk.cli import run

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = [
    ROOT / "README.md",
    DOCS / "tutorial.md",
    DOCS / "scenarios.md",
    *sorted((DOCS / "howto").glob("*.md")),
]
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass
class Command:
    """A command of a page and the lines shown behind it."""

    text: str
    shown: list[str] = field(default_factory=list)


def fences(page: Path, kind: str) -> list[str]:
    return [body for name, body in _FENCE.findall(page.read_text(encoding="utf-8")) if name == kind]


def commands(page: Path) -> Iterator[Command]:
    for block in fences(page, "console"):
        found: list[Command] = []
        for line in block.splitlines():
            if line.startswith("$ "):
                found.append(Command(line[2:]))
            elif found and found[-1].text.endswith("\\"):
                found[-1].text = f"{found[-1].text[:-1]} {line.strip()}"
            else:
                assert found, f"{page.name}: output before the first command"
                found[-1].shown.append(line)
        yield from found


def execute(text: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, list[str]]:
    """Exit code and output lines: ptwalk itself in this process, anything else by bash."""
    words = shlex.split(text)
    if words[0] == "ptwalk" and not {"|", ">", ";", "&&"} & set(words):
        capsys.readouterr()
        code = run(words[1:])
        return code, capsys.readouterr().out.splitlines()
    path = f"{Path(sys.executable).parent}:/usr/bin:/bin"
    environment = {"PATH": path, "HOME": str(folder)}
    shell = ["bash", "-euo", "pipefail", "-c", text]
    result = subprocess.run(shell, cwd=folder, env=environment, capture_output=True, text=True)
    return result.returncode, result.stdout.splitlines()


def alike(shown: list[str], printed: list[str]) -> bool:
    """Whether the lines are equal, `...` standing for any number of them or for a part of one."""
    if not shown:
        return not printed
    if shown[0] == "...":
        return any(alike(shown[1:], printed[i:]) for i in range(len(printed) + 1))
    pattern = ".*".join(map(re.escape, shown[0].rstrip().split("...")))
    return bool(printed and re.fullmatch(pattern, printed[0].rstrip())) and alike(shown[1:], printed[1:])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_commands_of_a_page(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    monkeypatch.chdir(tmp_path)
    for source in fences(page, "text"):
        if name := re.match(r"# (\S+\.(?:scn|toml|py))\n", source):
            (tmp_path / name[1]).write_text(source)
    for source in fences(page, "python"):
        if name := re.match(r"# (\S+\.py)\n", source):
            (tmp_path / name[1]).write_text(source)
    for command in commands(page):
        code, printed = execute(command.text, tmp_path, capsys)
        assert code in ((0, 1) if command.shown else (0,)), f"{command.text}: exit code {code}\n" + "\n".join(printed)
        if command.shown:
            assert alike(command.shown, printed), "\n".join([command.text, *printed])


def test_every_page_has_commands() -> None:
    """The index has none; a page that lost its console blocks would pass silently."""
    without = [page.name for page in PAGES if not any(commands(page))]
    assert without == ["README.md", "index.md"]


def test_the_first_screen_of_the_readme(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """`The first command prints` what follows; the gate runs the block itself in a new environment."""
    monkeypatch.chdir(ROOT)
    block = next(body for body in fences(ROOT / "README.md", "sh") if body.startswith("# main-job\n"))
    first, second = (line for line in block.splitlines() if "ptwalk walk" in line)
    for line in (first, second):
        words = shlex.split(line)
        at = len(words) - 1 - words[::-1].index(next(word for word in words if word.endswith("bin/ptwalk")))
        assert run(words[at + 1 :]) == 0
        printed = capsys.readouterr().out
        if line is first:
            assert printed == fences(ROOT / "README.md", "text")[0]


@pytest.mark.parametrize("page", [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))], ids=lambda page: page.stem)
def test_the_python_of_a_page(page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every `python` block runs, those of one page in one namespace; files that a block names are left to its page."""
    monkeypatch.chdir(ROOT)
    names: dict[str, object] = {}
    for block in fences(page, "python"):
        if not block.startswith("# "):
            exec(compile(block, str(page), "exec"), names)


def test_links_between_pages_lead_somewhere() -> None:
    links = itertools.chain.from_iterable(
        [(page, target) for target in re.findall(r"\]\((?!https?:)([^)#\s]+)", page.read_text(encoding="utf-8"))]
        for page in PAGES
    )
    assert not [f"{page.name}: {target}" for page, target in links if not (page.parent / target).exists()]
