"""Steps that fault: `fault` maps what it is told to, `read` and `write` do what the access needs."""

from __future__ import annotations

from collections.abc import Callable

from ...arch.linux import EntryKind
from ...rmap.folio import Kind
from ...rmap.levels import Level
from ...rmap.operations import fault, hugetlb
from ...rmap.operations.write import access, write_fault
from ...rmap.space.area import Area
from ...rmap.space.process import Process
from ...rmap.space.system import System
from ..operands import (
    area_of,
    locate,
    next_name,
    order_of,
    page_of,
    process_of,
    range_of,
    require_one_vma,
    require_unused,
)
from ..script import Words

MAX_ENTRIES = 1 << 16
"""PTEs that one fault may write."""
_LEVELS = ("pte", "pmd", "pud")


def _fault(system: System, words: Words) -> list[str]:
    name, order = words.option("as"), words.option("order")
    process = process_of(system, words)
    area = area_of(process, words)
    first, end = range_of(area, words)
    chosen = words.maybe(_LEVELS.__contains__)
    level = None if chosen is None else Level(_LEVELS.index(chosen))
    if area.huge:
        return _fault_huge(system, words, process, area, range(first, end, 1 << area.huge), name)
    _check_level(system, words, area, (first, end), level)
    _check_empty(system, words, process, area, (first, end))
    if area.file is not None:
        if name or order:
            raise words.error("the folios of a file are declared with `folio`")
        _check_cached(system, words, area, (first, end), level or Level.PTE)
        return fault.file(system, process, area, first, end, level or Level.PTE)
    if not all(area.writable(area.va(start)) for start, _, _ in area.pages.runs(first, end - first)):
        raise words.error("the area is read-only there, a read would find the zero page")
    size = end - first if order is None else 1 << _small(words, order)
    folio_order = order_of(system, words, size)
    if (area.start // system.page_size + first) % size or (end - first) % size:
        raise words.error(f"pages {first}..{end - 1} are not aligned to a folio of {size} pages")
    return _fault_anon(system, words, process, area, range(first, end, size), folio_order, level, name)


def _fault_huge(
    system: System, words: Words, process: Process, area: Area, pages: range, name: str | None
) -> list[str]:
    _check_empty(system, words, process, area, (pages.start, pages.stop))
    notes: list[str] = []
    for page in pages:
        writable = area.writable(area.va(page)) and area.is_cow
        notes += hugetlb.fault(system, process, area, area.va(page), write=writable, name=name or next_name(system))
        name = None
    return notes


def _small(words: Words, text: str) -> int:
    if not text.isdecimal() or int(text) > 30:
        raise words.error("not an order", text)
    return int(text)


def _fault_anon(
    system: System,
    words: Words,
    process: Process,
    area: Area,
    pages: range,
    order: int,
    level: Level | None,
    name: str | None,
) -> list[str]:
    if name is not None:
        require_unused(system, words, name)
        if len(pages) > 1:
            raise words.error("one name for several folios", name)
    if level is not None and system.levels.order(level) > order:
        raise words.error(f"a {level.name} is larger than a folio of order {order}")
    for page in pages:
        folio = system.new_folio(name or next_name(system), order, Kind.ANON)
        fault.anon(system, process, area.va(page), folio, level)
    return []


def _check_level(system: System, words: Words, area: Area, pages: tuple[int, int], level: Level | None) -> None:
    first, end = pages
    if level in (None, Level.PTE):
        if end - first > MAX_ENTRIES and (area.file is not None or level is not None):
            raise words.error(f"at most {MAX_ENTRIES} PTEs in one step", end - first)
        return
    assert level is not None
    require_one_vma(words, area, pages)
    size = system.levels.size(level)
    if (area.start // system.page_size + first) % size or (end - first) % size:
        raise words.error(f"pages {first}..{end - 1} are not whole {level.name}s of {size} pages")


def _check_empty(system: System, words: Words, process: Process, area: Area, pages: tuple[int, int]) -> None:
    start, end = (area.va(page) for page in pages)
    leaves = process.leaves(start, end)
    if leaves:
        page = area.page(max(leaves[0].va, start))
        raise words.error(f"page {page} of {area.name} is mapped already (folio {system.name_of(leaves[0].folio)})")
    for other in process.nonpresent(start, end):
        page = area.page(max(other.va, start))
        raise words.error(f"page {page} of {area.name} holds an entry already: {other.entry.kind.value}; see read")


def _check_cached(system: System, words: Words, area: Area, pages: tuple[int, int], level: Level) -> None:
    """Every page has a folio, and each large leaf lies in one folio, aligned as the leaf is."""
    assert area.file is not None
    size = system.levels.size(level)
    at = pages[0]
    while at < pages[1]:
        found = area.file.at(area.offset + at)
        if found is None:
            raise words.error(f"page {area.offset + at} of {area.file.name} has no folio")
        start, folio = found
        if system.isolated[folio]:
            raise words.error(f"{system.name_of(folio)} is under migration: the fault waits")
        page = area.offset + at - start
        if level != Level.PTE and (page % size or page + size > folio.nr_pages):
            name = system.name_of(folio)
            raise words.error(f"a {level.name} at page {at} of {area.name} does not lie inside folio {name}")
        at += max(size, folio.nr_pages - page) if level == Level.PTE else size


def _access(system: System, words: Words, *, write: bool) -> list[str]:
    name = words.option("as") or next_name(system)
    process = process_of(system, words)
    va = page_of(process, words)
    require_unused(system, words, name)
    return access(system, process, va, write=write, name=name)


def _read(system: System, words: Words) -> list[str]:
    return _access(system, words, write=False)


def _swapin(system: System, words: Words) -> list[str]:
    """A read that must find a swap entry."""
    name = words.option("as") or next_name(system)
    process = process_of(system, words)
    va = page_of(process, words)
    if not any(other.entry.kind is EntryKind.SWAP for other in process.nonpresent(va, va + 1)):
        area = process.area(va)
        raise words.error(f"page {area.page(va)} of {area.name} is not swapped out by {process.name}")
    require_unused(system, words, name)
    return access(system, process, va, write=False, name=name)


def _write(system: System, words: Words) -> list[str]:
    return _access(system, words, write=True)


def _cow(system: System, words: Words) -> list[str]:
    """A write that must find the page mapped."""
    process, leaf, va = locate(system, words)
    if not process.area(va).is_cow:
        raise words.error(f"folio {system.name_of(leaf.folio)} is a shared file's, which is never copied")
    return write_fault(system, process, va)


STEPS: dict[str, Callable[[System, Words], list[str]]] = {
    "fault": _fault,
    "read": _read,
    "swapin": _swapin,
    "write": _write,
    "cow": _cow,
}
