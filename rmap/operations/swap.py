"""Swapping anonymous pages out and in."""

from __future__ import annotations

from ...arch.linux import EntryKind, LinuxFlags
from ...mmu.editor import Reason
from ..folio import Flags, Folio, Kind
from ..levels import Level
from ..observer import Intent
from ..space.process import READ, WRITE, WRITTEN, Leaf, Process
from ..space.system import System
from .entries import SOFTWARE, write_swap
from .unmap import split_down


def swapout(system: System, process: Process, start: int, end: int) -> list[str]:
    """try_to_unmap of one process's anonymous pages: large leaves are split, PTEs become swap entries.

    A folio enters the swap cache as a whole. One that nothing maps any more counts as written, and is freed; one that
    is still mapped stays in the cache. An exclusive page that may be pinned stays mapped.
    """
    split_down(system, process, start, end)
    leaves = [leaf for leaf in process.leaves(start, end) if leaf.folio.is_anon and not leaf.folio.is_device_private]
    return swap_leaves(system, [(process, leaf) for leaf in leaves])


def swap_leaves(system: System, places: list[tuple[Process, Leaf]]) -> list[str]:
    """Swap out the pages behind some PTEs, each with its process."""
    folios = list(dict.fromkeys(leaf.folio for _, leaf in places))
    stayed: dict[Folio, list[int]] = {}
    for folio in folios:
        system.acct.set_swapcache(folio, True)
        system.swap.enter(folio)
    for process, leaf in places:
        if not _unmap(system, process, leaf):
            stayed.setdefault(leaf.folio, []).append(leaf.page)
    notes = [
        f"{len(pages)} pages of {system.name_of(folio)} may be pinned and stay mapped"
        for folio, pages in stayed.items()
    ]
    for folio in folios:
        name = system.name_of(folio)
        if folio.refs == folio.nr_pages and not folio.pins:
            notes.append(f"{name} is written to swap and freed")
            system.leave_swap_cache(folio)
        elif system.swap.is_counted(folio):
            notes.append(f"{name} is still in use and stays in the swap cache")
        system.free_swap(folio)
    return notes


def _unmap(system: System, process: Process, leaf: Leaf) -> bool:
    """One PTE, in try_to_unmap_one's order; whether a swap entry took its place."""
    folio = leaf.folio
    exclusive = bool(folio.exclusive[leaf.page])
    if exclusive and system.acct.try_share_anon_rmap(folio, leaf.page):
        return False
    if LinuxFlags.DIRTY in leaf.flags:
        folio.flags |= Flags.DIRTY
    process.unfold(leaf.va, leaf.va + process.page_size)
    slot = system.swap.slots[folio.pfn + leaf.page]
    flags = leaf.flags & SOFTWARE | (LinuxFlags.EXCLUSIVE if exclusive else LinuxFlags.NONE)
    write_swap(process, leaf.va, slot, flags, Reason.SWAP)
    return True


def swapin(system: System, process: Process, va: int, name: str, *, write: bool = False) -> list[str]:
    """do_swap_page: the page in the swap cache, or a new folio of one page called `name`, is mapped.

    The mapping is exclusive where the entry was, or where nothing else references the folio once the slot is free;
    an exclusive one in a writable area is writable at once. A folio leaves the swap cache with the last entry that
    refers to its slots.
    """
    found = next(other.entry for other in process.nonpresent(va, va + 1) if other.entry.kind is EntryKind.SWAP)
    slot = found.offset
    assert slot is not None
    folio = system.swap_cached(slot)
    where = "read from swap" if folio is None else "found in the swap cache"
    if folio is None:
        folio = system.new_folio(name, 0, Kind.ANON)
        system.swap.hold(folio.pfn, slot)
        system.acct.set_swapcache(folio, True)
    page = system.swap.frames[slot] - folio.pfn
    exclusive = LinuxFlags.EXCLUSIVE in found.flags or _alone(system, folio, slot)
    flags = READ | found.flags & SOFTWARE
    if exclusive and process.area(va).writable(va):
        flags |= WRITTEN if write else WRITE
    with process.editor.batch(Intent(exclusive=exclusive, exempt=True)):
        process.install(va, Level.PTE, folio, page, 1, flags, Reason.SWAP)
    return [f"page {page} of {system.name_of(folio)}, {where}, {'exclusive' if exclusive else 'shared'}"]


def _alone(system: System, folio: Folio, slot: int) -> bool:
    """Whether this mapping will hold the only reference: the slots are free and nothing else maps or pins the folio."""
    counts = system.swap.counts
    slots = [system.swap.slots.get(pfn) for pfn in range(folio.pfn, folio.pfn + folio.nr_pages)]
    others = sum(counts.get(one, 0) for one in slots if one is not None) - 1
    return not others and not folio.pins and folio.refs == folio.nr_pages
