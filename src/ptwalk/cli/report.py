"""`ptwalk report FILE -o OUT.html`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from ..arch.errors import InputError
from ..mmu.walk import Access, AccessKind
from ..report.page import page
from ..report.wanted import Wanted, default_walks
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
    """Write one self-contained HTML page: walks bit by bit, address spaces that open down to pages, folios, lint.

    Of a scenario (a file named .scn) the page shows each step: folios, the three models' counters, entries written.

    Args:
        file: A capture, ELF core, dump, raw image, layout description or scenario.
        output: The page to write; a file of this name is replaced.
        process: An address space to draw; may be repeated (default: the first).
        walk: An address to walk in the first of them, as user below the middle and as kernel above; may be repeated.
    """
    if file.suffix == ".scn":
        if process or walk or source != DEFAULT:
            raise InputError("a scenario's page takes no other options than --output", file=file)
        return _story(file, output)
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
    html = page(machine, names, walks, source.checkpoint)
    _write(output, html)
    print(f"{output}: {len(html)} characters, {len(walks)} walks, address spaces {', '.join(names)}")
    return 0


def _story(file: Path, output: str) -> int:
    from ..report.story import story_page
    from ..scenario.runner import run

    story = run(file, entries=True)
    html = story_page(story)
    _write(output, html)
    print(f"{output}: {len(html)} characters, {len(story.steps)} steps")
    return 0


def _write(output: str, html: str) -> None:
    """All of the page or nothing."""
    partial = Path(f"{output}.partial")
    try:
        partial.write_text(html, encoding="utf-8")
        partial.replace(output)
    except OSError as error:
        raise InputError(f"cannot be written: {error.strerror}", file=output) from error
