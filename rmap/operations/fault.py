"""Page faults on what is not mapped: anonymous memory, the zero page, files, with fault-around."""

from __future__ import annotations

from ...arch.linux import LinuxFlags
from ...mmu.editor import Reason
from ..errors import CounterOverflow
from ..folio import Folio
from ..levels import Level
from ..observer import Intent
from ..space.area import GONE, Area
from ..space.process import READ, WRITE, WRITTEN, Process
from ..space.system import ZERO_PFN, System

FAULT_AROUND_BYTES = 64 << 10
"""fault_around_bytes: what a read fault on a file maps at most."""
_NEW = Intent(exclusive=True, exempt=True)


def anon(system: System, process: Process, va: int, folio: Folio, level: Level | None = None) -> list[str]:
    """do_anonymous_page and do_huge_pmd_anonymous_page: the first mapping of a whole new folio, written.

    Another level than the kernel's choice maps it as swap-in would: an anonymous folio that was mapped before.
    """
    chosen, area = system.acct.driver.new_level(folio), process.area(va)
    area.anon_vma = True
    flags = WRITTEN if area.writable(va) else WRITTEN & ~WRITE  # maybe_mkwrite, for collapse and for copies by fork
    if level is None or level == chosen:
        with process.editor.batch(_NEW):
            process.install(va, chosen, folio, 0, folio.nr_pages, flags)
        if chosen == Level.PMD and folio.order == system.levels.pmd:
            system.acct.deferred_split_folio(folio, partially_mapped=False)
        return []
    step = system.levels.size(Level(max(level, Level.PMD)))
    for page in range(0, folio.nr_pages, step):
        with process.editor.batch(_NEW):  # one page table after the other
            at = va + page * process.page_size
            process.install(at, level, folio, page, min(step, folio.nr_pages - page), flags)
    return []


def zero_page(process: Process, va: int) -> None:
    """do_anonymous_page of a read fault: a special entry of the zero page, which rmap does not count."""
    flags = LinuxFlags.USER | LinuxFlags.YOUNG | LinuxFlags.SPECIAL
    number = process.editor.level(va, 0).number
    process.put_entry(va, process.linux.page(number, ZERO_PFN, flags), Reason.FAULT)


def file(system: System, process: Process, area: Area, first: int, end: int, level: Level) -> list[str]:
    """filemap_map_pages, do_set_pmd and a PUD fault: mappings of page-cache folios, stopped by the soft limit."""
    assert area.file is not None
    step = system.levels.size(Level(max(level, Level.PMD)))
    at = first
    while at < end:
        found = area.file.at(area.offset + at)
        assert found is not None
        start, folio = found
        page = area.offset + at - start
        n = min(end - at, folio.nr_pages - page, step - (area.start // system.page_size + at) % step)
        n = min(n, system.acct.may_map(folio, level) << system.levels.order(level))
        if n == 0:
            return [f"VM_FAULT_OOM: the soft limit is reached, pages {at}..{end - 1} stay unmapped"]
        try:
            with process.editor.batch():
                process.install(area.va(at), level, folio, page, n, READ)
        except CounterOverflow as refusal:
            return [f"VM_FAULT_OOM: {refusal.problem}"]
        at += n
    return []


def fault_around(system: System, process: Process, area: Area, page: int) -> list[str]:
    """do_fault_around: the aligned 64K window around a page, cut to the VMA and the page table, as far as cached."""
    assert area.file is not None
    n = max(FAULT_AROUND_BYTES // system.page_size, 1)
    table = system.levels.size(Level.PMD)
    before = area.start // system.page_size
    low = (before + page) // min(n, table) * min(n, table) - before
    window = range(max(low, 0), min(low + n, area.nr_pages))
    notes: list[str] = []
    for first, end in _empty_and_cached(system, process, area, window):
        notes += file(system, process, area, first, end, Level.PTE)
    return notes


def _empty_and_cached(system: System, process: Process, area: Area, window: range) -> list[tuple[int, int]]:
    """The parts of a window in whose pages nothing stands and which the page cache holds, not locked for migration."""
    assert area.file is not None
    taken = {area.page(entry.va) for entry in process.entries(area.va(window.start), area.va(window.stop))}
    parts: list[tuple[int, int]] = []
    for page in window:
        found = area.file.at(area.offset + page)
        if page in taken or area.pages[page] == GONE or found is None or system.isolated[found[1]]:
            continue
        if parts and parts[-1][1] == page:
            parts[-1] = parts[-1][0], page + 1
        else:
            parts.append((page, page + 1))
    return parts
