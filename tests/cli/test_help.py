"""`--help` of every command says what each argument and option is for."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from cyclopts import App

from ptwalk.cli import app


def commands(found: App, path: tuple[str, ...] = ()) -> Iterator[tuple[str, App]]:
    for name in found:
        if not name.startswith("-"):
            below = found[name]
            yield " ".join((*path, name)), below
            yield from commands(below, (*path, name))


@pytest.mark.parametrize(("name", "command"), list(commands(app)), ids=[name for name, _ in commands(app)])
def test_every_parameter_is_explained(name: str, command: App) -> None:
    assert command.help, f"{name} has no help"
    if command.default_command is None:
        return
    silent = [
        argument.name
        for argument in command.assemble_argument_collection(parse_docstring=True)
        if not argument.parameter.help and not argument.children
    ]
    assert not silent, f"{name}: {', '.join(silent)}"
