"""The operands of a scenario's steps, each checked against the system."""

from __future__ import annotations

from itertools import chain, count

from ..rmap.space.area import GONE, Area
from ..rmap.space.process import Leaf, Process
from ..rmap.space.system import System
from .script import Words


def process_of(system: System, words: Words) -> Process:
    """The process that the next word names."""
    name = words.name("process")
    if name not in system.processes:
        raise words.error("no process of this name exists", name)
    return system.processes[name]


def area_of(process: Process, words: Words) -> Area:
    """The area of a process that the next word names."""
    name = words.name("area")
    if name not in process.areas:
        raise words.error(f"process {process.name} has no area of this name", name)
    return process.areas[name]


def range_of(area: Area, words: Words) -> tuple[int, int]:
    """The pages that the next word names, by default all; they must be inside the area."""
    first, end = words.pages() or (0, area.nr_pages)
    if end > area.nr_pages or area.pages.count(first, end - first, GONE):
        raise words.error(f"pages {first}..{end - 1} are not all inside {area.name}, which has {extent(area)}")
    return first, end


def require_one_vma(words: Words, area: Area, pages: tuple[int, int]) -> None:
    """Refuse pages between which the rights change: they lie in several VMAs."""
    first, end = pages
    if len(list(area.pages.runs(first, end - first))) > 1:
        raise words.error(f"pages {first}..{end - 1} of {area.name} have different rights: no VMA holds them all")


def addresses_of(area: Area, words: Words) -> tuple[int, int]:
    """The addresses of the pages that the next word names."""
    first, end = range_of(area, words)
    return area.va(first), area.va(end)


def extent(area: Area) -> str:
    """The pages an area still has, in words."""
    left: list[tuple[int, int]] = []
    for first, n, rights in area.pages.runs():
        if rights != GONE and left and left[-1][1] == first:
            left[-1] = left[-1][0], first + n
        elif rights != GONE:
            left.append((first, first + n))
    parts = [f"{first}..{end - 1}" for first, end in left]
    return f"pages {', '.join(parts)}" if parts else "no page left"


def page_of(process: Process, words: Words) -> int:
    """The address of the one page that `v page` names."""
    area = area_of(process, words)
    if not (words.left and words.left[0][0].isdecimal()):
        raise words.error("a page of the area is missing")
    first, end = range_of(area, words)
    if end != first + 1:
        raise words.error("one page is wanted, not a range")
    return area.va(first)


def locate(system: System, words: Words) -> tuple[Process, Leaf, int]:
    """The process, the entry and the address of `A v page`, which must be mapped."""
    process = process_of(system, words)
    va = page_of(process, words)
    leaves = process.leaves(va, va + 1)
    if not leaves:
        area = process.area(va)
        raise words.error(f"page {area.page(va)} of {area.name} is not mapped by {process.name}")
    return process, leaves[0], va


def order_of(system: System, words: Words, nr_pages: int) -> int:
    """The order of a folio with that many pages."""
    order = nr_pages.bit_length() - 1
    if nr_pages != 1 << order or order > system.levels.pud:
        raise words.error(f"a folio has a power of two of pages, up to {1 << system.levels.pud}", nr_pages)
    return order


def require_unused(system: System, words: Words, name: str) -> None:
    """The name of a folio that is to be made."""
    if name in system.folios:
        raise words.error("a folio of this name exists already", name)


def next_name(system: System) -> str:
    """What a new anonymous folio is called if nobody says: F, F2, ..."""
    return next(name for name in chain(["F"], (f"F{nth}" for nth in count(2))) if name not in system.folios)
