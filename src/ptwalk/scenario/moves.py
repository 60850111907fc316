"""Operations that move mappings or pages: mremap, mprotect, migration, collapse."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import groupby

from ..arch.linux import LinuxFlags
from ..mmu.editor import Reason
from ..rmap.folio import Folio, Kind
from ..rmap.levels import Level
from .machine import Area, Leaf, Machine, Process
from .operations import fault_anon, leaves_of, runs, split, split_at_edges, zap
from .swap import swap_entries, write_entry


def mremap(machine: Machine, process: Process, area: Area, start: int) -> None:
    """move_page_tables: entries go to another address unchanged; rmap is not told. Misaligned PMDs are split first."""
    size = area.nr_pages * machine.page_size
    for level in (Level.PUD, Level.PMD):
        misaligned = (start - area.start) % (machine.levels.size(level) * machine.page_size)
        for leaf in machine.leaves(process, area.start, area.start + size) if misaligned else []:
            if leaf.level == level:
                split(machine, process, leaf.va)
    moved = machine.leaves(process, area.start, area.start + size)
    swapped = swap_entries(machine, process, area.start, area.start + size)
    with process.editor.batch():
        machine.clear(process, area.start, size, Reason.MOVE)
        for va, level, folio, page, n, flags in _alike(machine, moved):
            machine.install(process, start + va - area.start, level, folio, page, n, flags, Reason.MOVE)
        for entry in swapped:
            write_entry(process, replace(entry, va=start + entry.va - area.start), Reason.MOVE)
    area.start = start


def _alike(machine: Machine, leaves: list[Leaf]) -> Iterator[tuple[int, Level, Folio, int, int, LinuxFlags]]:
    """The runs of entries, cut where WRITE or DIRTY change."""
    for flags, group in groupby(leaves, key=lambda leaf: leaf.flags):
        for run in runs(machine, list(group)):
            yield (*run, flags)


def mprotect(machine: Machine, process: Process, start: int, end: int, write: bool) -> None:
    """change_protection: rights of entries change, no counter moves; a leaf that the range cuts is split first.

    Anonymous pages become writable at once only where they are marked exclusive; others wait for a write fault.
    """
    split_at_edges(machine, process, start, end)
    machine.unfold(process, start, end)
    leaves = machine.leaves(process, start, end)
    chosen = [leaf for leaf in leaves if not write or (leaf.folio.is_anon and leaf.folio.exclusive[leaf.page])]
    for leaf in chosen if len(chosen) < len(leaves) else ():  # the entries of a contpte block may no longer be alike
        machine.unfold(process, leaf.va, leaf.va + leaf.nr_pages * machine.page_size)
    for leaf in chosen:
        if write:
            machine.allow_write(process, leaf)
        else:
            machine.protect(process, leaf)


def migrate(machine: Machine, folio: Folio) -> list[str]:
    """try_to_migrate and remove_migration_ptes: all mappings go, then map a new folio of the same size.

    The old folio's counters pass through every state in between, so that a model may flag it on the way; it is freed.
    Pages that may be pinned stay where they are.
    """
    acct, name = machine.acct, machine.name_of(folio)
    if folio.pins or folio.refs != acct.driver.expected_ref_count(folio):
        return [f"-EAGAIN: {name} may be pinned and stays"]
    new = machine.new_folio(machine.unused_name(f"{name}'"), folio.order, folio.kind, fresh=False)
    kept: list[tuple[Process, Leaf, bool]] = []
    for process in machine.processes.values():
        for area in process.areas.values():
            mine = [leaf for leaf in leaves_of(machine, process, area) if leaf.folio is folio]
            kept += [(process, leaf, bool(folio.exclusive[leaf.page])) for leaf in mine]
    for process, leaf, exclusive in kept:
        if exclusive:
            acct.try_share_anon_rmap(folio, leaf.page)
        machine.clear(process, leaf.va, leaf.nr_pages * machine.page_size, Reason.MIGRATE)
        acct.remove_rmap(folio, process.mm, leaf.level, leaf.page, leaf.nr_pages)
        acct.put(folio, 1)
    for model in acct.live(new):
        model.count_mthp(model.stats.mthp_nr_anon, new, 1)
    acct.set_swapcache(new, folio.in_swapcache)
    acct.set_swapcache(folio, False)
    machine.swap.move(folio, new)
    acct.free(folio)
    machine.forget(folio)
    for process, leaf, exclusive in kept:
        acct.get(new, 1)
        n = leaf.nr_pages
        acct.add_anon_rmap(new, process.mm, leaf.level, leaf.page, n, exclusive=exclusive, exempt=True)
        machine.install(process, leaf.va, leaf.level, new, leaf.page, n, leaf.flags, Reason.MIGRATE)
    return [f"{name} moved to {machine.name_of(new)}"]


def collapse(machine: Machine, process: Process, va: int, name: str) -> list[str]:
    """collapse_huge_page: every old PTE is cleared and counted away, then a new PMD-sized folio is mapped."""
    size = machine.levels.size(Level.PMD) * machine.page_size
    for leaf in machine.leaves(process, va, va + size):
        folio = leaf.folio
        if folio.pins or folio.refs != machine.acct.driver.expected_ref_count(folio):
            return [f"-EAGAIN: {machine.name_of(folio)} may be pinned and stays"]
    zap(machine, process, va, va + size)
    folio = machine.new_folio(name, machine.levels.pmd, Kind.ANON)
    return fault_anon(machine, process, va, folio, None)
