"""Operations that move entries or change their rights: no counter moves."""

from __future__ import annotations

from ...arch.linux import EntryKind, LinuxFlags
from ...mmu.editor import Reason
from ..folio import Flags
from ..levels import Level
from ..space.area import GONE, READ_ONLY, WRITABLE, Area
from ..space.process import WRITE, Process
from ..space.system import System
from ..views.inputs import State
from .device import restore_exclusive
from .entries import rewrite_migration, split_migration, write_protect
from .unmap import split, split_at_edges


def mremap(system: System, process: Process, area: Area, start: int) -> list[str]:
    """move_page_tables: entries go to another address unchanged; rmap is not told. Misaligned PMDs are split first."""
    notes: list[str] = []
    for level in (Level.PUD, Level.PMD):
        if (start - area.start) % (system.levels.size(level) * system.page_size):
            for leaf in process.leaves(area.start, area.end):
                notes += split(system, process, leaf.va) if leaf.level == level else []
            for other in process.nonpresent(area.start, area.end):
                if other.level == level:
                    split_migration(process, other)
    restore_exclusive(process, area.start, area.end)
    moved, others = process.runs(area.start, area.end, alike=True), process.nonpresent(area.start, area.end)
    with process.editor.batch():
        process.clear(area.start, area.end - area.start, Reason.MOVE)
        for run in moved:
            va = start + run.va - area.start
            process.install_like(run, va, run.flags, Reason.MOVE)
        for other in others:
            process.put_entry(start + other.va - area.start, other.entry.raw, Reason.MOVE, other.level)
        process.free_tables(area.start, area.end)
    area.start = start
    return notes


def clear_refs(process: Process) -> list[str]:
    """echo 1 > /proc/PID/clear_refs: the accessed bit of every present entry goes, and PG_referenced and PG_young."""
    with process.editor.batch():
        for vma in process.vmas():
            for leaf in process.leaves(vma.start, vma.end):
                leaf.folio.flags &= ~(Flags.REFERENCED | Flags.YOUNG)
                if leaf.state is State.PRESENT:
                    process.rewrite_leaf(leaf, set_=LinuxFlags.NONE, clear=LinuxFlags.YOUNG, reason=Reason.ACCESS)
    return []


def mprotect(system: System, process: Process, area: Area, pages: tuple[int, int], write: bool) -> list[str]:
    """change_protection: the area's and the entries' rights; a leaf that the range cuts is split first.

    A private page becomes writable at once only where it is anonymous and marked exclusive; others wait for a write
    fault. A shared file's pages do so too (they are clean).
    """
    first, end = pages
    for start, n, rights in list(area.pages.runs(first, end - first)):
        if rights != GONE:
            area.pages.fill(start, n, WRITABLE if write else READ_ONLY)
    low, high = area.va(first), area.va(end)
    notes = split_at_edges(system, process, low, high)
    process.unfold(low, high)
    leaves = process.leaves(low, high)
    if write:
        mine = [leaf for leaf in leaves if leaf.folio.is_anon and leaf.folio.exclusive[leaf.page]]
        chosen = [leaf for leaf in mine if leaf.state is State.PRESENT]
    else:
        chosen = leaves
    for leaf in chosen if len(chosen) < len(leaves) else ():  # the entries of a contpte block may no longer be alike
        process.unfold(leaf.va, leaf.va + leaf.nr_pages * process.page_size)
    with process.editor.batch():
        for leaf in chosen:
            if write:
                process.rewrite_leaf(leaf, set_=WRITE, clear=LinuxFlags.NONE, reason=Reason.PROTECT)
            else:
                write_protect(process, leaf, Reason.PROTECT)
    for other in process.nonpresent(low, high) if not write else ():
        if other.entry.kind is EntryKind.MIGRATION_WRITE:
            kind = EntryKind.MIGRATION_READ_EXCLUSIVE if area.is_cow else EntryKind.MIGRATION_READ
            rewrite_migration(process, other, kind, Reason.PROTECT)
    return notes
