"""The operands of a scenario's steps, each checked against the system."""

from __future__ import annotations

from itertools import chain, count

from ..rmap.operations.hugetlb import orders
from ..rmap.space.area import GONE, Area
from ..rmap.space.process import Leaf, Process
from ..rmap.space.system import System
from ..rmap.views.inputs import State
from .script import Words

MAX_AREA = 1 << 38
"""Bytes of an area or a file."""


def size_text(size: int) -> str:
    """A size as people write it: 64K, 2M, 16G."""
    for unit, name in ((1 << 30, "G"), (1 << 20, "M")):
        if size % unit == 0:
            return f"{size // unit}{name}"
    return f"{size >> 10}K"


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
    if (first | end) % (1 << area.huge):
        raise words.error(f"pages {first}..{end - 1} are not whole huge pages of {1 << area.huge} pages")
    if end > area.nr_pages or area.pages.count(first, end - first, GONE):
        raise words.error(f"pages {first}..{end - 1} are not all inside {area.name}, which has {extent(area)}")
    return first, end


def require_one_vma(words: Words, area: Area, pages: tuple[int, int]) -> None:
    """Refuse pages between which the rights change: they lie in several VMAs."""
    first, end = pages
    if len(list(area.pages.runs(first, end - first))) > 1:
        raise words.error(f"pages {first}..{end - 1} of {area.name} have different rights: no VMA holds them all")


def size_in_pages(system: System, words: Words) -> int:
    """The next word, a size that is a multiple of the page size, in pages."""
    size = words.size()
    if not 0 < size <= MAX_AREA or size % system.page_size:
        raise words.error(f"the size is no multiple of {system.page_size} bytes up to 256G", size)
    return size // system.page_size


def huge_order(system: System, words: Words) -> int:
    """The order of the hugetlb page that `page SIZE` names, by default that of a PMD."""
    text = words.option("page")
    if text is None:
        return system.levels.pmd
    offered = {size_text(system.page_size << order): order for order in orders(system)}
    if text not in offered:
        raise words.error(f"hugetlb pages of {system.settings.arch} have {', '.join(offered)}", text)
    return offered[text]


def require_base_pages(words: Words, area: Area) -> None:
    """Refuse what the kernel does not do to hugetlb pages."""
    if area.huge:
        raise words.error("not done to hugetlb pages", area.name)


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
    first, end = words.pages() or (0, area.nr_pages)
    if end != first + 1:
        raise words.error("one page is wanted, not a range")
    if end > area.nr_pages or area.pages[first] == GONE:
        raise words.error(f"page {first} is not inside {area.name}, which has {extent(area)}")
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


def require_present(system: System, words: Words, *leaves: Leaf) -> None:
    """Refuse device entries: the page would be faulted back first."""
    for leaf in leaves:
        if leaf.state is not State.PRESENT:
            raise words.error(f"the entry is {leaf.state.value}; read brings the page back", system.name_of(leaf.folio))


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
