"""The command as a person uses it: through a pseudo-terminal, in IPython and in the standard library's prompt."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pexpect
import pytest

READY = {"ipython": "\x1b[?2004h", "plain": "ptwalk> "}  # IPython's prompt switches bracketed paste on
UP = "\x1b[A"


class Terminal:
    """One run of `ptwalk repl` in a home of its own."""

    def __init__(self, shell: str, home: Path, *arguments: str) -> None:
        self.shell = shell
        env = {
            **{name: x for name, x in os.environ.items() if name not in ("PYTHONSTARTUP", "NO_COLOR")},
            "HOME": str(home),
            "XDG_STATE_HOME": str(home / "state"),
            "IPYTHONDIR": str(home / "ipython"),
            "TERM": "xterm-256color",
            "PROMPT_TOOLKIT_NO_CPR": "1",
        }
        plain = ["--plain"] if shell == "plain" else []
        self.child: Any = pexpect.spawn(
            sys.executable, ["-W", "error", "-m", "ptwalk", "repl", *arguments, *plain],
            env=env, encoding="utf-8", dimensions=(60, 160), timeout=30,
        )  # fmt: skip

    def sees(self, *texts: str) -> None:
        """All of these appear, in this order."""
        for text in texts:
            self.child.expect_exact(text)

    def ask(self, line: str, *texts: str) -> str:
        """Type a line; its answer has these texts and no traceback."""
        self.child.send(line + "\r")
        seen = ""
        for text in texts:
            self.child.expect_exact(text)
            seen += self.child.before + text
        self.sees(READY[self.shell])
        seen += self.child.before
        assert "Traceback" not in seen
        assert 'File "' not in seen
        return seen

    def leave(self, line: str = "exit()") -> int:
        """The exit code after typing this."""
        self.child.send(line if line == "\x04" else line + "\r")
        self.child.expect(pexpect.EOF)
        self.child.close()
        return int(self.child.exitstatus)


@pytest.fixture(params=["ipython", "plain"])
def shell(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def terminal(shell: str, tmp_path: Path) -> Iterator[Terminal]:
    found = Terminal(shell, tmp_path)
    found.sees("layout description, x86_64, Linux 7.3", "in process parent; help() tells", READY[shell])
    yield found
    found.child.close(force=True)


def test_a_walk_is_stepped_edited_compared_and_undone(terminal: Terminal) -> None:
    terminal.ask("step(0x60_1000)", "PML4E, 4-level paging", "rights")
    terminal.ask("fwd()", "PDPTE/PUD", "va[38:30]")
    terminal.ask("back()", "PML4E/PGD", "va[47:39]")
    said = terminal.ask("pte.RW = 1", "0x8000000002401025 -> 0x8000000002401027", "user r--", "user rw-", "rmap")
    assert "\x1b[3" in said, "in colour on a terminal"
    terminal.ask("diff()", "user r--", "user rw-")
    terminal.ask("pte.P = 0", "FAULT #PF code 0x4", "folio_mapcount", "32 -> 31")
    terminal.ask("undo()", "undone: pte.P = 0", "31 -> 32")
    terminal.ask("cr4.SMEP = 0", "stays as it was")
    terminal.ask("python()", "write('parent', 0x104008")
    terminal.ask("edits()", "  1  pte.RW = 1", "  2  cr4.SMEP = 0")
    assert terminal.leave() == 0


def test_integers_are_hexadecimal(terminal: Terminal) -> None:
    terminal.ask("walk(0x60_1000)", "PA    0x0000000002401000")
    terminal.ask("pte.ADDR + 16", "0x2401010")
    terminal.ask("[1000, True, {'pa': 255}]", "[0x3e8, True, {'pa': 0xff}]")


def test_a_words_name_is_the_word(terminal: Terminal) -> None:
    """Assigning to the bare name writes the register or the entry; the shell's functions cannot be lost."""
    terminal.ask("walk(0x60_1000)", "PA    0x0000000002401000")
    terminal.ask("pte = 0", "FAULT #PF", "bit P")
    terminal.ask("pte.raw", "0x0")
    terminal.ask("cr4 = 0x2000a0", "0x00000000003000a0 -> 0x00000000002000a0")
    terminal.ask("walk = 3", "this name belongs to the shell")
    terminal.ask("walk(0x40_0000)", "PA    0x0000000002000000")


def test_bad_input_gets_one_sentence(terminal: Terminal) -> None:
    terminal.ask("fwd()", "error: no walk yet")
    terminal.ask("step('nonsense')", "error: va: not a 64-bit hexadecimal address")
    terminal.ask("pte.RW", "error: no walk yet")
    terminal.ask("cr4.SMELL", "a CR4 has no such field")
    terminal.ask("cr0.PG = 0", "error: EFER: EFER.LMA=1 needs CR0.PG=1")
    terminal.ask("load('/nowhere')", "error: /nowhere")
    terminal.ask("1 / 0", "error: ZeroDivisionError: division by zero")
    terminal.ask("no_such_name", "error: NameError: name 'no_such_name' is not defined")
    terminal.ask("1 +* 2", "SyntaxError")
    assert terminal.leave("\x04") == 0


def test_tab_completes_names_and_fields(terminal: Terminal) -> None:
    for typed, shown in (("cr4.SMX\t\r", "0x0"), ("regs.cr4.LA5\t\r", "0x0"), ("processe\t\r", "* parent")):
        terminal.child.send(typed[:-1])
        terminal.sees(typed.rstrip("\t\r"))
        terminal.ask("", shown)
    terminal.ask("walk(0x60_1000)", "PA    0x0000000002401000")
    terminal.child.send("pte.ADD\t")
    terminal.ask("", "0x2401000")


def test_help_is_grouped_by_task(terminal: Terminal) -> None:
    terminal.ask("?", "look around", "walk", "entries and registers", "edit", "account", "take away")
    terminal.ask("help()", "look around", "take away")
    terminal.ask("step?", "level by level")
    terminal.ask("undo", "undo()", "Take the latest edit back")
    terminal.ask("machine", "4-level paging", "SMAP NXE")
    terminal.ask("help(cr4)", "control register 4", "SMEP", "Intel SDM")


def test_history_lasts(shell: str, tmp_path: Path) -> None:
    first = Terminal(shell, tmp_path)
    first.sees(READY[shell])
    first.ask("walk(0x60_1000).pa", "0x2401000")
    first.child.send(UP)
    first.ask("", "0x2401000")
    first.leave()
    kept = {"ipython": "history.sqlite", "plain": "history"}[shell]
    assert (tmp_path / "state" / "ptwalk" / kept).stat().st_size
    second = Terminal(shell, tmp_path)
    second.sees(READY[shell])
    second.child.send(UP)
    second.child.send(UP)  # behind exit()
    second.ask("", "0x2401000")
    second.leave()


def test_without_ipython_the_standard_prompt_serves(tmp_path: Path) -> None:
    hidden = "import sys; sys.modules['IPython'] = None; from ptwalk.cli import run; sys.exit(run(['repl']))"
    env = {**os.environ, "XDG_STATE_HOME": str(tmp_path)}
    child = pexpect.spawn(sys.executable, ["-c", hidden], env=env, encoding="utf-8", timeout=30)
    child.expect_exact(READY["plain"])
    child.send("walk(0x60_1000).pa\r")
    child.expect_exact("0x2401000")
    child.send("\x04")
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 0


def repl(*arguments: str, text: str | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "error", "-m", "ptwalk", "repl", *arguments]
    return subprocess.run(command, input=text, capture_output=True, text=True, check=False)


def test_lines_from_the_command_line() -> None:
    ran = repl("-c", "for va in (0x40_0000, 0x60_0000):\n    print(hex(walk(va).pa))\n", "-c", "walk('7000').pa")
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "0x2000000\n0x2400000\n", "")
    ran = repl("-c", "walk(0x40_0000).pa", "-c", "walk(0x123).nothing", "-c", "print('not reached')")
    assert (ran.returncode, ran.stdout) == (2, "0x2000000\n")
    assert ran.stderr.count("\n") == 1
    assert "no attribute 'nothing'" in ran.stderr


def test_the_commands_own_errors() -> None:
    for arguments, sentence in (
        (["/nowhere"], "/nowhere"),
        (["--process", "nobody"], "there are: parent, child"),
        (["--process", "child", "--root", "1000"], "either --process or --root"),
    ):
        ran = repl(*arguments, "-c", "1")
        assert (ran.returncode, ran.stdout) == (2, "")
        assert ran.stderr.startswith("ptwalk: ")
        assert sentence in ran.stderr


def test_the_prompt_imports_neither_numpy_nor_numba() -> None:
    lines = "step(0x60_1000); pte.RW = 1; maps(); rmap(); python()"
    heavy = "print(sorted({'numpy', 'numba', 'IPython'} & set(__import__('sys').modules)))"
    ran = repl("-c", lines, "-c", heavy)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert ran.stdout.splitlines()[-1] == "[]"
