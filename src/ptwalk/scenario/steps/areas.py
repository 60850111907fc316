"""Steps that make and change areas: file, folio, mmap, munmap, zap, dontneed, mremap, mprotect."""

from __future__ import annotations

from collections.abc import Callable

from ...rmap.folio import Kind
from ...rmap.levels import Level
from ...rmap.operations import rights, unmap
from ...rmap.runs import PageRuns
from ...rmap.space.area import GONE, READ_ONLY, WRITABLE, Area, File
from ...rmap.space.process import Process
from ...rmap.space.system import System
from ..operands import (
    addresses_of,
    area_of,
    huge_order,
    order_of,
    process_of,
    range_of,
    require_unused,
    size_in_pages,
)
from ..script import Words

_KINDS = {"file": Kind.FILE, "shmem": Kind.SHMEM, "hugetlb": Kind.HUGETLB_FILE}
_FIRST_AREA = 1 << 32


def _file(system: System, words: Words) -> list[str]:
    name, kind = words.name("file"), words.choice("the kind", tuple(_KINDS))
    if name in system.files:
        raise words.error("this file exists already", name)
    huge = huge_order(system, words) if kind == "hugetlb" else 0
    nr_pages = size_in_pages(system, words)
    _require_whole(words, nr_pages, huge)
    system.files[name] = File(name, _KINDS[kind], nr_pages, huge)
    return []


def _require_whole(words: Words, nr_pages: int, huge: int) -> None:
    if nr_pages % (1 << huge):
        raise words.error(f"not whole huge pages of {1 << huge} pages", nr_pages)


def _folio(system: System, words: Words) -> list[str]:
    name, file_name = words.name("folio"), words.name("file")
    if file_name not in system.files:
        raise words.error("no file of this name exists", file_name)
    file = system.files[file_name]
    first, end = words.pages() or (0, file.nr_pages)
    order = order_of(system, words, end - first)
    if file.huge and order != file.huge:
        raise words.error(f"a folio of {file.name} has {1 << file.huge} pages", end - first)
    if first % (1 << order) or end > file.nr_pages:
        where = f"inside the {file.nr_pages} pages of {file.name}"
        raise words.error(f"pages {first}..{end - 1} are not aligned to their number {where}")
    for start, other in file.folios.items():
        if start < end and first < start + other.nr_pages:
            raise words.error(f"pages {first}..{end - 1} overlap folio {system.name_of(other)}")
    require_unused(system, words, name)
    for page in range(first, end):
        file.swapped.pop(page, None)
    file.folios[first] = system.new_folio(name, order, file.kind)
    return []


def _mmap(system: System, words: Words) -> list[str]:
    name, area_name, what = words.name("process"), words.name("area"), words.name("anon, hugetlb or file")
    at, private, read_only = words.option("at"), words.flag("private"), words.flag("ro")
    file, offset, huge = None, 0, 0
    if what in ("anon", "hugetlb"):
        huge = huge_order(system, words) if what == "hugetlb" else 0
        nr_pages = size_in_pages(system, words)
        _require_whole(words, nr_pages, huge)
    elif what in system.files:
        file = system.files[what]
        huge = file.huge
        offset, end = words.pages() or (0, file.nr_pages)
        nr_pages = end - offset
        if end > file.nr_pages:
            raise words.error(f"pages {offset}..{end - 1} are not inside the {file.nr_pages} pages of {file.name}")
    else:
        raise words.error("neither anon, hugetlb nor a file", what)
    process = system.processes.get(name) or system.process(name)
    if area_name in process.areas:
        raise words.error(f"process {name} has an area of this name already", area_name)
    _require_whole(words, nr_pages | offset, huge)
    size = nr_pages * system.page_size
    start = _free_address(system, process, size, offset) if at is None else _address(system, process, words, at, size)
    _require_whole(words, start // system.page_size, huge)
    pages = PageRuns(nr_pages, READ_ONLY if read_only else WRITABLE)
    area = Area(area_name, start, nr_pages, system.page_size, pages, file, offset, private, huge=huge)
    process.areas[area_name] = area
    return []


def _free_address(system: System, process: Process, size: int, offset: int) -> int:
    """The first address behind all areas that is congruent to the file's offset, aligned for the largest leaf."""
    pmd, pud = (system.levels.size(level) * system.page_size for level in (Level.PMD, Level.PUD))
    align = min(max(1 << size.bit_length() - 1, pmd), pud)
    last = max((area.end for area in process.areas.values()), default=_FIRST_AREA)
    return -(-last // align) * align + offset * system.page_size % align


def _address(system: System, process: Process, words: Words, text: str, size: int) -> int:
    try:
        start = int(text.replace("_", ""), 16)
    except ValueError:
        raise words.error("not an address", text) from None
    end = process.tables.tree.va_end
    if start % system.page_size or not system.page_size <= start <= end - size:
        raise words.error(f"no page-aligned address below {end:#x}", text)
    for other in process.areas.values():
        if start < other.end and other.start < start + size:
            raise words.error(f"the range overlaps area {other.name}")
    return start


def _zap(system: System, words: Words) -> list[str]:
    process = process_of(system, words)
    return unmap.zap(system, process, *addresses_of(area_of(process, words), words))


def _munmap(system: System, words: Words) -> list[str]:
    process = process_of(system, words)
    area = area_of(process, words)
    first, end = range_of(area, words)
    notes = unmap.munmap(system, process, area.va(first), area.va(end))
    area.pages.fill(first, end - first, GONE)
    if area.pages.minimum(0, area.nr_pages) == GONE:
        del process.areas[area.name]
    return notes


def _mremap(system: System, words: Words) -> list[str]:
    at = words.option("at")
    process = process_of(system, words)
    area = area_of(process, words)
    if at is None:
        raise words.error("the new address is missing (at ADDRESS)")
    start = _address(system, process, words, at, area.nr_pages * system.page_size)
    _require_whole(words, start // system.page_size, area.huge)
    return rights.mremap(system, process, area, start)


def _mprotect(system: System, words: Words) -> list[str]:
    process = process_of(system, words)
    area = area_of(process, words)
    pages = range_of(area, words)
    return rights.mprotect(system, process, area, pages, words.choice("the right", ("ro", "rw")) == "rw")


def _clear_refs(system: System, words: Words) -> list[str]:
    return rights.clear_refs(process_of(system, words))


STEPS: dict[str, Callable[[System, Words], list[str]]] = {
    "file": _file,
    "folio": _folio,
    "mmap": _mmap,
    "zap": _zap,
    "dontneed": _zap,
    "munmap": _munmap,
    "mremap": _mremap,
    "mprotect": _mprotect,
    "clear-refs": _clear_refs,
}
"""MADV_DONTNEED is a zap."""
