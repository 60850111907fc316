"""hugetlb pages: faults and copy on write. Fork, removal, moves and rights are those of other entries."""

from __future__ import annotations

from ...arch.linux import LinuxFlags
from ...mmu.editor import Reason
from ..folio import Flags, Folio, Kind
from ..levels import ORDERS_BY_PAGE_SIZE
from ..observer import EXCLUSIVE
from ..space.area import Area
from ..space.process import READ, WRITE, WRITTEN, Leaf, Process
from ..space.system import System

_CONTIGUOUS = {4096: (4, 13), 16384: (7, 16), 65536: (5, 18)}
"""Orders of arm64's contiguous PTEs and contiguous PMDs by page size (CONT_PTE_SIZE, CONT_PMD_SIZE)."""


def orders(system: System) -> tuple[int, ...]:
    """The orders of the hugetlb pages that an architecture offers, ascending.

    >>> from ..space.system import Settings
    >>> orders(System(Settings("arm64-4k"))), orders(System(Settings()))
    ((4, 9, 13, 18), (9, 18))
    """
    levels = ORDERS_BY_PAGE_SIZE[system.page_size]
    sizes = {levels.pmd} | ({levels.pud} if system.page_size == 4096 else set())
    if system.arch == "arm64":
        sizes |= set(_CONTIGUOUS[system.page_size])
    return tuple(sorted(sizes))


def fault(system: System, process: Process, area: Area, va: int, *, write: bool, name: str) -> list[str]:
    """hugetlb_no_page: a private area gets a new page called `name`, a file's area the page of its page cache.

    A write to a private mapping of a file copies the page at once.
    """
    va = va // area.page_size >> area.huge << area.huge
    va *= area.page_size
    if area.file is None:
        return _new(system, process, area, va, name, write=write)
    found = area.file.at(area.offset + area.page(va))
    if found is None:
        return [f"SIGBUS: page {area.offset + area.page(va)} of {area.file.name} has no folio"]
    if write and area.private:
        return _new(system, process, area, va, name, write=write)
    with process.editor.batch():  # make_huge_pte: a shared writable mapping is writable and dirty from the start
        process.install_huge(va, found[1], WRITTEN if not area.private and area.writable(va) else READ)
    return []


def _new(system: System, process: Process, area: Area, va: int, name: str, *, write: bool) -> list[str]:
    area.anon_vma = True
    folio = system.new_folio(name, area.huge, Kind.HUGETLB_ANON)
    with process.editor.batch(EXCLUSIVE):
        process.install_huge(va, folio, WRITTEN if write else READ)
    return []


def access(system: System, process: Process, area: Area, va: int, *, write: bool, name: str) -> list[str]:
    """hugetlb_fault: whatever a read or write of a huge page needs."""
    leaves = process.leaves(va, va + 1)
    if not leaves:
        return fault(system, process, area, va, write=write, name=name)
    leaf = leaves[0]
    if write and not leaf.write:
        return write_fault(system, process, area, leaf)
    wanted = WRITTEN if write else READ
    process.rewrite_leaf(leaf, set_=wanted & ~WRITE, clear=LinuxFlags.NONE, reason=Reason.ACCESS)
    return []


def write_fault(system: System, process: Process, area: Area, leaf: Leaf) -> list[str]:
    """hugetlb_wp: an anonymous page that is mapped once is reused, any other is copied as a whole."""
    folio, name = leaf.folio, system.name_of(leaf.folio)
    if not area.is_cow:
        _make_writable(process, leaf)
        folio.flags |= Flags.DIRTY
        return [f"{name} is written through a shared mapping"]
    if system.acct.wp_can_reuse_hugetlb(folio):
        folio.exclusive.fill(0, 1, 1)
        _make_writable(process, leaf)
        return [f"reused: {name} stays, writable"]
    copy = _copy(system, process, area, leaf.va, folio)
    return [f"copied: {name} to {system.name_of(copy)}"]


def _make_writable(process: Process, leaf: Leaf) -> None:
    process.rewrite_leaf(leaf, set_=WRITTEN, clear=LinuxFlags.NONE, reason=Reason.PROTECT)


def _copy(system: System, process: Process, area: Area, va: int, folio: Folio) -> Folio:
    area.anon_vma = True
    copy = system.new_folio(system.unused_name(f"{system.name_of(folio)}'"), folio.order, Kind.HUGETLB_ANON)
    with process.editor.batch(EXCLUSIVE):
        process.install_huge(va, copy, WRITTEN, Reason.COPY)
    return copy
