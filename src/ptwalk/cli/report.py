"""`ptwalk report FILE -o OUT.html`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from ..arch.errors import InputError
from ..mmu.walk import Access, AccessKind
from ..report.page import Wanted, default_walks, page
from . import common
from .source import DEFAULT, Source, open_machine


def report(
    file: Path,
    /,
    *,
    output: Annotated[str, Parameter(name=["--output", "-o"])],
    process: list[str] | None = None,
    walk: list[str] | None = None,
    source: Annotated[Source, Parameter(name="*")] = DEFAULT,
) -> int:
    """Write one self-contained HTML page: walks bit by bit, address spaces that open down to pages, lint.

    Args:
        file: A capture, ELF core, dump, raw image or layout description.
        output: The page to write; a file of this name is replaced.
        process: An address space to draw; may be repeated (default: the first).
        walk: An address to walk in the first of them, as user below the middle and as kernel above; may be repeated.
    """
    machine = open_machine(file, source)
    names = process or list(machine.spaces)[:1]
    for name in names:
        machine.space(name)
    if not names:
        raise InputError("the file names no address space", file=file)
    walks = default_walks(machine, names[0])
    if walk:
        addresses = [common.address(text, "--walk") for text in walk]
        walks = [Wanted(names[0], va, Access(AccessKind.READ, user=va >> 63 == 0)) for va in addresses]
    html = page(machine, names, walks)
    partial = Path(f"{output}.partial")
    try:
        partial.write_text(html, encoding="utf-8")
        partial.replace(output)
    except OSError as error:
        raise InputError(f"cannot be written: {error.strerror}", file=output) from error
    print(f"{output}: {len(html)} characters, {len(walks)} walks, address spaces {', '.join(names)}")
    return 0
