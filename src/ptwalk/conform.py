"""Vector files of either architecture through our walkers."""

from __future__ import annotations

from pathlib import Path

from .arch.errors import InputError
from .mmu.conform import ConformReport
from .mmu.vectors import read_names

_MARKS = {"maxphyaddr": "x86_64", "feat": "arm64"}  # an array that only one architecture's files have
_DEFAULT = {"x86_64": "architecture", "arm64": "arm"}


def conform(
    path: Path | str, profile: str | None = None, engines: tuple[str, ...] = ("reference", "kernel")
) -> ConformReport:
    """Run a vector file of x86 or arm64 (told apart by its arrays) through the reference walker and the kernel.

    `profile` is a named behaviour of that architecture, by default the architecture's own. InputError where the file
    is neither kind, or cannot be used.
    """
    names = read_names(path)
    found = [arch for mark, arch in _MARKS.items() if mark in names]
    if len(found) != 1:
        raise InputError("neither an x86 nor an arm64 vector file", file=path, field=" or ".join(_MARKS))
    if found[0] == "x86_64":
        from .mmu.x86_64.conform import conform as run
    else:
        from .mmu.arm64.conform import conform as run
    return run(path, profile or _DEFAULT[found[0]], engines)
