"""Reclaim of anonymous pages: swapping out and in."""

from __future__ import annotations

from ..arch.linux import LinuxFlags
from ..mmu.editor import Reason
from ..rmap.folio import Flags, Folio, Kind
from ..rmap.levels import Level
from .machine import Leaf, Machine, Process
from .operations import split
from .swap import SwapEntry, cached, free_swap, leave_cache, swap_entries, write_entry


def swapout(machine: Machine, process: Process, start: int, end: int) -> list[str]:
    """try_to_unmap of one process's anonymous pages: large leaves are split, PTEs become swap entries.

    A folio enters the swap cache as a whole. One that nothing maps any more counts as written, and is freed; one that
    is still mapped stays in the cache. The entry of an exclusive page that may be pinned is restored.
    """
    for _ in (Level.PUD, Level.PMD):
        for leaf in machine.leaves(process, start, end):
            if leaf.level != Level.PTE:
                split(machine, process, leaf.va)
    leaves = machine.leaves(process, start, end)
    folios = list(dict.fromkeys(leaf.folio for leaf in leaves))
    stayed: dict[Folio, list[int]] = {}
    for folio in folios:
        machine.acct.set_swapcache(folio, True)
        machine.swap.enter(folio)
    for leaf in leaves:
        if not _unmap(machine, process, leaf):
            stayed.setdefault(leaf.folio, []).append(leaf.page)
    notes = [
        f"{len(pages)} pages of {machine.name_of(folio)} may be pinned and stay mapped"
        for folio, pages in stayed.items()
    ]
    for folio in folios:
        name = machine.name_of(folio)
        if folio.refs == folio.nr_pages and not folio.pins:
            leave_cache(machine, folio)
            notes.append(f"{name} is written to swap and freed")
        elif machine.swap.is_counted(folio):
            notes.append(f"{name} is still in use and stays in the swap cache")
        free_swap(machine, folio)
    return notes


def _unmap(machine: Machine, process: Process, leaf: Leaf) -> bool:
    """One PTE, in try_to_unmap_one's order; whether a swap entry took its place."""
    folio, acct = leaf.folio, machine.acct
    slot = machine.swap.slots[folio.pfn + leaf.page]
    exclusive = bool(folio.exclusive[leaf.page])
    machine.clear(process, leaf.va, machine.page_size)
    machine.swap.duplicate(slot)
    if exclusive and acct.try_share_anon_rmap(folio, leaf.page):
        machine.swap.drop(slot)
        machine.install(process, leaf.va, Level.PTE, folio, leaf.page, 1, leaf.flags)
        return False
    if LinuxFlags.DIRTY in leaf.flags:
        folio.flags |= Flags.DIRTY
    write_entry(process, SwapEntry(leaf.va, slot, exclusive), Reason.SWAP)
    acct.remove_rmap(folio, process.mm, Level.PTE, leaf.page, 1)
    acct.put(folio, 1)
    return True


def swapin(machine: Machine, process: Process, va: int, name: str) -> list[str]:
    """do_swap_page of a read fault: the page in the swap cache, or a new folio of one page, is mapped read-only.

    The mapping is exclusive where the entry was, or where nothing else references the folio once the slot is free. A
    folio leaves the swap cache with the last entry that refers to its slots.
    """
    entry = swap_entries(machine, process, va, va + 1)[0]
    acct = machine.acct
    folio = cached(machine, entry.slot)
    found = folio is not None
    if folio is None:
        folio = machine.new_folio(name, 0, Kind.ANON)
        machine.swap.hold(folio.pfn, entry.slot)
        acct.set_swapcache(folio, True)
    page = machine.swap.frames[entry.slot] - folio.pfn
    acct.get(folio, 1)
    machine.clear(process, va, machine.page_size)
    machine.swap.drop(entry.slot)
    free_swap(machine, folio)
    exclusive = entry.exclusive or (folio.refs == 1 and not folio.pins)
    if folio.fresh:
        acct.add_new_anon_rmap(folio, process.mm, exclusive=exclusive)
    else:
        acct.add_anon_rmap(folio, process.mm, Level.PTE, page, 1, exclusive=exclusive, exempt=True)
    machine.install(process, va, Level.PTE, folio, page, 1, LinuxFlags.NONE)
    where = "found in the swap cache" if found else "read from swap"
    return [f"page {page} of {machine.name_of(folio)}, {where}, {'exclusive' if exclusive else 'shared'}"]
