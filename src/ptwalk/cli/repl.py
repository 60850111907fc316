"""`ptwalk repl [FILE]`."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from ..arch.errors import InputError
from . import common
from .source import DEFAULT, Source


def repl(
    file: Path | None = None,
    /,
    *,
    command: Annotated[list[str] | None, Parameter(name=["--command", "-c"])] = None,
    plain: bool = False,
    process: str | None = None,
    root: str | None = None,
    source: Annotated[Source, Parameter(name="*")] = DEFAULT,
) -> int:
    """A prompt for one machine: step through walks, edit entries and registers, see what changes.

    Args:
        file: A capture, ELF core, dump, raw image or layout description (default: a small example machine).
        command: Run these lines and exit; may be repeated. Exit code 2 at the first error.
        plain: The standard library's prompt even where IPython is installed.
        process: Whose address space to start in (see `ptwalk info`).
        root: Physical address of the root table instead.
    """
    from ..shell import EXAMPLE, Session, console
    from ..shell.names import MachineView, Names

    if process is not None and root is not None:
        raise InputError("give either --process or --root, not both")
    options = source.options() | ({} if root is None else {"root": common.address(root, "--root")})
    session = Session.open(EXAMPLE if file is None else file, process=process, **options)
    names = Names(session)
    session.on_edit = console.show
    if command:
        return console.Shell(names).run_lines("\n".join(command))
    where = f"in process {session.space}" if session.space is not None else "in the machine's own registers"
    banner = f"{MachineView(session.machine, brief=True)!r}\n{where}; help() tells what there is, step(va) begins"
    if not plain and importlib.util.find_spec("IPython") is not None:
        from ..shell.ipython import interact
    else:
        from ..shell.console import interact
    return interact(names, banner)
