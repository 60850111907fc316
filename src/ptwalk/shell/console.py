"""The standard library's console, for interactive use and for `-c`."""

from __future__ import annotations

import builtins
import code
import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from ..arch.errors import PtwalkError
from .names import Names, picture
from .shown import Shown, hex_text

if TYPE_CHECKING:
    from rich.console import Console

HISTORY = 2000  # lines kept


def state_folder() -> Path:
    """Where history is kept: $XDG_STATE_HOME/ptwalk, made if it is missing."""
    base = os.environ.get("XDG_STATE_HOME", "")
    folder = (Path(base) if base else Path.home() / ".local" / "state") / "ptwalk"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def terminal() -> Console:
    """Where pictures go: stdout, in colour on a terminal."""
    from rich.console import Console

    return Console(highlight=False, soft_wrap=True)


def show(x: object) -> None:
    """Print a value as the prompt does: pictures in colour, integers in hexadecimal."""
    x = picture(x)
    if isinstance(x, Shown) and sys.stdout.isatty():
        terminal().print(x)
    else:
        print(repr(x) if isinstance(x, Shown) else hex_text(x))


def sentence(error: BaseException) -> str:
    """An error as one line.

    >>> sentence(NameError("name 'x' is not defined")), sentence(PtwalkError("no memory"))
    ("NameError: name 'x' is not defined", 'no memory')
    """
    if isinstance(error, PtwalkError):
        return str(error)
    lines = "".join(traceback.format_exception_only(error)).splitlines()
    return " ".join(line for line in lines if not line.startswith(" "))  # a syntax error quotes its line, indented


class Shell(code.InteractiveConsole):
    """Reads lines, runs them, shows values; an error is one sentence, and the first one ends `-c`."""

    def __init__(self, names: Names) -> None:
        super().__init__(names, "<ptwalk>")
        self.names, self.failure = names, 0

    def push(self, line: str, *arguments: Any, **keywords: Any) -> bool:
        """One line; `?` and `NAME?` ask for help, a semicolon at the end keeps values from being shown."""
        asked = line.strip()
        if asked.endswith("?") and not self.buffer:
            line = f"help({asked.rstrip('?').strip()})"
        with _displaying(quiet=asked.endswith(";")):
            return super().push(line, *arguments, **keywords)

    def showtraceback(self) -> None:
        """One sentence; traceback.print_last() has the rest."""
        kind, error, trace = sys.exc_info()
        self._fail(error, kind, trace)

    def showsyntaxerror(self, *arguments: Any, **keywords: Any) -> None:
        """One sentence."""
        self.showtraceback()

    def _fail(self, error: BaseException | None, kind: Any, trace: TracebackType | None) -> None:
        assert error is not None
        sys.last_type, sys.last_value, sys.last_traceback = kind, error, trace
        self.failure = 2 if isinstance(error, PtwalkError) else 1
        sys.stdout.flush()
        print(f"error: {sentence(error)}", file=sys.stderr, flush=True)

    def run_lines(self, text: str) -> int:
        """Run lines as if they had been typed; the exit code: 0, or 2 at the first error."""
        for line in [*text.splitlines(), ""]:
            try:
                self.push(line)
            except SystemExit as end:
                return end.code if isinstance(end.code, int) else 0
            if self.failure:
                return 2
        return 0


@contextmanager
def _displaying(*, quiet: bool) -> Iterator[None]:
    def display(x: object) -> None:
        if x is not None and not quiet:
            builtins._ = x  # type: ignore[attr-defined]
            show(x)

    before, sys.displayhook = sys.displayhook, display
    try:
        yield
    finally:
        sys.displayhook = before


def interact(names: Names, banner: str) -> int:
    """The standard library's prompt, with completion and history where readline is there."""
    try:
        import readline
        import rlcompleter
    except ImportError:  # Windows, small builds of Python
        return _loop(names, banner)
    history = state_folder() / "history"
    readline.set_completer(rlcompleter.Completer(names).complete)
    editline = "libedit" in (readline.__doc__ or "")
    readline.parse_and_bind("bind ^I rl_complete" if editline else "tab: complete")
    readline.set_history_length(HISTORY)
    if history.exists():
        readline.read_history_file(history)
    try:
        return _loop(names, banner)
    finally:
        readline.write_history_file(history)


def _loop(names: Names, banner: str) -> int:
    sys.ps1, sys.ps2 = "ptwalk> ", "    ... "
    try:
        Shell(names).interact(banner, exitmsg="")
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 0
    return 0
