"""khugepaged and MADV_COLLAPSE: the PTEs of one PMD's pages give way to one folio of PMD size."""

from __future__ import annotations

from ...arch.linux import EntryKind
from ...mmu.editor import Reason
from ..folio import Folio, Kind
from ..levels import Level
from ..space.area import Area, File
from ..space.process import Process
from ..space.system import System
from .fault import anon
from .migrate import is_busy, mappings
from .swap import swapin
from .unmap import zap


def collapse(system: System, process: Process, va: int, name: str) -> list[str]:
    """collapse_huge_page: swapped pages are read in, every old PTE goes, then a new folio called `name` is mapped.

    Pages that may be pinned stop it: -EAGAIN, and nothing but the swap-in has happened.
    """
    end = va + system.levels.size(Level.PMD) * system.page_size
    notes: list[str] = []
    for other in process.nonpresent(va, end):
        if other.entry.kind is EntryKind.SWAP:
            cached = system.swap_cached(other.entry.offset or 0)
            if cached is not None and system.isolated[cached]:
                return [*notes, f"-EAGAIN: {system.name_of(cached)} is under migration"]
            notes += swapin(
                system, process, other.va, system.unused_name(f"{name}+{(other.va - va) // system.page_size}")
            )
        elif not other.entry.present:  # a zero page counts as a hole
            return [*notes, f"-EAGAIN: {other.entry.text()} stands at {other.va:#018x}"]
    for leaf in process.leaves(va, end):
        if is_busy(system, leaf.folio):
            return [*notes, f"-EAGAIN: {system.name_of(leaf.folio)} may be pinned and stays"]
    with process.editor.batch():
        process.clear(va, end - va, Reason.COLLAPSE)
        process.free_table(va)
    return notes + anon(system, process, va, system.new_folio(name, system.levels.pmd, Kind.ANON))


def collapse_file(system: System, area: Area, first: int, name: str) -> list[str]:
    """collapse_file and retract_page_tables: one folio takes the place of a file's small ones, mapped by nobody yet.

    Every mapping of the old folios goes, in all processes; pages that the cache did not hold are read. Folios that may
    be pinned stop it before anything changed. The pages fault in again, by a PMD where an area is aligned for it.
    """
    file = area.file
    assert file is not None
    start, size = area.offset + first, system.levels.size(Level.PMD)
    old = [folio for page, folio in file.folios.items() if start <= page < start + size]
    for folio in old:
        if is_busy(system, folio):
            return [f"-EAGAIN: {system.name_of(folio)} may be pinned and stays"]
    for folio in old:
        for process, leaf in mappings(system, folio):
            zap(system, process, leaf.va, leaf.va + leaf.nr_pages * process.page_size)
    names = [system.name_of(folio) for folio in old]
    for folio in old:
        drop_from_cache(system, file, folio)
    file.folios[start] = system.new_folio(name, system.levels.pmd, file.kind)
    return [f"{', '.join(names[:4])}{' ...' if len(names) > 4 else ''} gave way to {name}, which nobody maps yet"]


def drop_from_cache(system: System, file: File, folio: Folio) -> None:
    """A folio that nobody maps leaves the page cache and is freed."""
    del file.folios[file.first_page(folio)]
    system.acct.free(folio)
    system.forget(folio)
