"""Removal: zap, exit, and the splits of large leaves."""

from __future__ import annotations

from ...mmu.editor import Reason
from ..levels import Level
from ..observer import Intent
from ..space.process import Process
from ..space.system import System
from .entries import split_migration


def zap(system: System, process: Process, start: int, end: int) -> list[str]:
    """zap_page_range: clear entries, one run of a folio under one lock; leaves that the range cuts are split first."""
    notes = split_at_edges(system, process, start, end)
    for run in process.runs(start, end):
        process.clear(run.va, run.nr_pages * process.page_size)
    for other in process.nonpresent(start, end):
        process.clear(other.va, process.page_size)
    return notes


def munmap(system: System, process: Process, start: int, end: int) -> list[str]:
    """do_munmap of page tables: zap, then free_pgtables."""
    notes = zap(system, process, start, end)
    process.free_tables(start, end)
    return notes


def exit_mm(system: System, process: Process) -> list[str]:
    """exit_mmap, then the mm's id is free again."""
    notes = []
    for area in process.areas.values():
        notes += munmap(system, process, area.start, area.end)
    system.drop(process)
    return notes


def split_at_edges(system: System, process: Process, start: int, end: int) -> list[str]:
    """Split leaves that reach across either end of a range of addresses."""
    notes = []
    for _ in (Level.PUD, Level.PMD):
        for edge in (start, end):
            for leaf in process.leaves(edge, edge + 1):
                if leaf.va < edge:
                    notes += split(system, process, leaf.va)
            for other in process.nonpresent(edge, edge + 1):
                if other.va < edge:
                    split_migration(process, other)
    return notes


def split(system: System, process: Process, va: int) -> list[str]:
    """__split_huge_pmd and the PUD's: anonymous leaves become entries one level down, those of files are unmapped."""
    leaf = process.leaf(va)
    folio, n = leaf.folio, leaf.nr_pages
    if not folio.is_anon:
        process.clear(leaf.va, n * process.page_size, Reason.SPLIT)
        return [f"the {leaf.level.name} of {system.name_of(folio)} is unmapped as a whole, its pages fault in again"]
    exclusive = bool(folio.exclusive[leaf.page])
    entries = process.leaf_entries(leaf.va, Level(leaf.level - 1), folio, leaf.page, n, leaf.flags)
    with process.editor.batch(Intent(exclusive=exclusive, exempt=True)):
        process.put_table(leaf.va, leaf.level, entries, Reason.SPLIT)
    return []


def split_down(system: System, process: Process, start: int, end: int) -> list[str]:
    """Split every large leaf of a range down to PTEs."""
    notes = []
    for _ in (Level.PUD, Level.PMD):
        for leaf in process.leaves(start, end):
            if leaf.level != Level.PTE:
                notes += split(system, process, leaf.va)
    return notes
