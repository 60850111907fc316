"""Write faults on what is mapped read-only: reuse, or copy on write; and access as a whole."""

from __future__ import annotations

from ...arch.linux import MIGRATION_KINDS, EntryKind
from ...mmu.editor import Reason
from ..folio import Flags, Kind
from ..levels import Level
from ..observer import EXCLUSIVE
from ..space.area import Area, File
from ..space.process import READ, WRITE, WRITTEN, Leaf, Process
from ..space.system import System
from ..views.inputs import State
from . import device, hugetlb
from .fault import anon, fault_around, file, zero_page
from .swap import swapin
from .unmap import split


def access(system: System, process: Process, va: int, *, write: bool, name: str) -> list[str]:
    """handle_pte_fault: whatever a read or write of one page needs; new anonymous folios are called `name`.

    Where the entry allows the access the processor sets accessed and dirty. SIGSEGV where the area does not allow it.
    """
    area = process.area(va)
    if write and not area.writable(va):
        return ["SIGSEGV: the area is read-only"]
    if area.huge:
        return hugetlb.access(system, process, area, va, write=write, name=name)
    leaves, others = process.leaves(va, va + 1), process.nonpresent(va, va + 1)
    if leaves and leaves[0].state is State.DEVICE_PRIVATE:
        notes = device.to_memory(system, process, va)
        return notes + access(system, process, va, write=write, name=name) if not _stays(process, va) else notes
    if leaves and leaves[0].state is State.DEVICE_EXCLUSIVE:
        device.restore_exclusive(process, va, va + 1)
        return ["no longer exclusive to the device", *access(system, process, va, write=write, name=name)]
    if leaves and leaves[0].state is State.PRESENT and (leaves[0].write or not write):
        wanted = WRITTEN if write else READ
        process.rewrite(va, set_=wanted & ~WRITE, reason=Reason.ACCESS)
        return []
    if leaves:
        return write_fault(system, process, va)
    if others and others[0].entry.kind in MIGRATION_KINDS:
        return ["the fault waits until the page has migrated"]
    if others and others[0].entry.kind is EntryKind.SWAP:
        cached = system.swap_cached(others[0].entry.offset or 0)
        if cached is not None and system.isolated[cached]:
            return ["the fault waits until the page has migrated"]
        notes = swapin(system, process, va, name, write=write)
        return notes + (write_fault(system, process, va) if write and not process.leaf(va).write else [])
    if others and not others[0].entry.present:
        return [f"the fault fails: {others[0].entry.text()}"]
    if others and not write:
        return []
    return _missing(system, process, area, va, write=write, name=name)


def _stays(process: Process, va: int) -> bool:
    """Whether the page is still the device's: it may be pinned."""
    return process.leaf(va).state is State.DEVICE_PRIVATE


def _missing(system: System, process: Process, area: Area, va: int, *, write: bool, name: str) -> list[str]:
    """do_pte_missing, and a write to the zero page."""
    page = area.page(va)
    if area.file is None and not write:
        zero_page(process, va)
        return ["the zero page, which rmap does not count"]
    if area.file is not None and area.offset + page in area.file.swapped:
        _shmem_swapin(system, area.file, area.offset + page, name)
    found = area.file.at(area.offset + page) if area.file is not None else None
    if area.file is not None and found is None:
        return [f"SIGBUS: page {area.offset + page} of {area.file.name} has no folio"]
    if found is not None and system.isolated[found[1]]:
        return ["the fault waits until the page has migrated"]
    if write and area.is_cow:
        return anon(system, process, va, system.new_folio(name, 0, Kind.ANON))
    if not write:
        return fault_around(system, process, area, page)
    return file(system, process, area, page, page + 1, Level.PTE) or write_fault(system, process, va)


def _shmem_swapin(system: System, file: File, page: int, name: str) -> None:
    """shmem_swapin_folio: a page of a shmem file comes back as a folio of one page called `name`."""
    del file.swapped[page]
    file.folios[page] = system.new_folio(name if name not in system.folios else system.unused_name(name), 0, file.kind)


def write_fault(system: System, process: Process, va: int) -> list[str]:
    """do_wp_page, do_huge_pmd_wp_page: reuse the page where it is certainly this mm's, else copy one page."""
    area = process.area(va)
    if area.huge:
        return hugetlb.write_fault(system, process, area, process.leaf(va))
    while True:
        leaf = process.leaf(va)
        if not area.is_cow:
            _make_writable(process, leaf.va)
            leaf.folio.flags |= Flags.DIRTY
            return [f"{system.name_of(leaf.folio)} is written through a shared mapping"]
        if leaf.folio.is_anon and _reuses(system, leaf):
            system.acct.set_exclusive(leaf.folio, leaf.level, leaf.page, leaf.nr_pages)
            _make_writable(process, leaf.va)
            return [f"reused: {system.name_of(leaf.folio)} stays, writable"]
        if leaf.level == Level.PTE:
            return _copy_page(system, process, area, leaf)
        split(system, process, leaf.va)
        if not leaf.folio.is_anon:  # a file's leaf is unmapped as a whole; the page is copied from the cache
            copy = system.new_folio(system.unused_name(f"{system.name_of(leaf.folio)}'"), 0, Kind.ANON)
            return anon(system, process, va, copy)


def _reuses(system: System, leaf: Leaf) -> bool:
    folio, acct = leaf.folio, system.acct
    if folio.exclusive[leaf.page]:
        return True
    can_free_swap = not system.swap.is_counted(folio)
    if leaf.level == Level.PMD:
        return acct.wp_can_reuse_pmd(folio, can_free_swap=can_free_swap)
    return leaf.level == Level.PTE and acct.wp_can_reuse_anon_folio(folio, can_free_swap=can_free_swap)


def _make_writable(process: Process, va: int) -> None:
    """An entry becomes writable and dirty, out of its contpte block if it was in one."""
    process.unfold(va, va + process.page_size)
    process.rewrite(va, set_=WRITTEN)


def _copy_page(system: System, process: Process, area: Area, leaf: Leaf) -> list[str]:
    """wp_page_copy: the entry maps a new page; the old page's mapping is counted away after that."""
    name = system.name_of(leaf.folio)
    copy = system.new_folio(system.unused_name(f"{name}+{leaf.page}'"), 0, Kind.ANON)
    area.anon_vma = True
    process.unfold(leaf.va, leaf.va + process.page_size)
    with process.editor.batch(EXCLUSIVE):
        process.install(leaf.va, Level.PTE, copy, 0, 1, WRITTEN, Reason.COPY)
    return [f"copied: page {leaf.page} of {name} to {system.name_of(copy)}"]
