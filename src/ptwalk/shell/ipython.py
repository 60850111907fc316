"""The same prompt in IPython."""

from __future__ import annotations

import sys
from types import MethodType
from typing import Any

from ..mmu.machine import Machine
from .console import sentence, state_folder, terminal
from .names import Names, picture
from .shown import Shown


def interact(names: Names, banner: str) -> int:
    """IPython with these names; ImportError where it is not installed."""
    from IPython.terminal.ipapp import TerminalIPythonApp
    from traitlets.config import Config

    config = Config()
    config.TerminalIPythonApp.display_banner = False
    config.InteractiveShell.xmode = "Minimal"
    config.TerminalInteractiveShell.confirm_exit = False
    config.Completer.use_jedi = False
    config.Completer.evaluation = "unsafe"  # registers and entries complete their fields
    config.HistoryManager.hist_file = str(state_folder() / "history.sqlite")
    app: Any = TerminalIPythonApp.instance(config=config, user_ns=names)
    app.initialize([])
    _dress(app.shell)
    print(banner)
    app.start()
    return 0


def _dress(shell: Any) -> None:
    """Pictures in colour, integers in hexadecimal, errors as one sentence, `?` for help."""
    plain = shell.display_formatter.formatters["text/plain"]
    for kind in (Shown, Machine, MethodType):
        plain.for_type(kind, lambda x, p, cycle: p.text(_drawn(picture(x))))
    plain.for_type(int, lambda x, p, cycle: p.text(f"{x:#x}" if type(x) is int else repr(x)))
    shell.set_custom_exc((Exception,), _told)  # %tb has the rest
    shell.input_transformers_cleanup.append(_asked)


def _drawn(x: object) -> str:
    if not sys.stdout.isatty():
        return repr(x)
    console = terminal()
    with console.capture() as captured:
        console.print(x)
    return captured.get().rstrip("\n")


def _told(shell: Any, kind: type[BaseException], error: BaseException, trace: Any, tb_offset: Any = None) -> list[str]:
    text = f"error: {sentence(error)}"
    print(text, file=sys.stderr)
    return [text]


def _asked(lines: list[str]) -> list[str]:
    return ["help()\n"] if "".join(lines).strip() == "?" else lines
