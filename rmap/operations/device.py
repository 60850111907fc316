"""Device-private memory and device-exclusive access: entries that are not present and that rmap counts as mappings."""

from __future__ import annotations

from ...arch.linux import EntryKind
from ...mmu.editor import Reason
from ..levels import Level
from ..space.process import READ, WRITE, Process
from ..space.system import System
from ..views.inputs import State
from . import migrate
from .entries import SOFTWARE
from .unmap import split_down


def to_device(system: System, process: Process, start: int, end: int) -> list[str]:
    """migrate_vma: anonymous pages move to device memory; every mapping of theirs becomes a device-private entry.

    Large folios are split first. What may be pinned, and what is no anonymous page, stays.
    """
    split_down(system, process, start, end)
    notes: list[str] = []
    for folio in dict.fromkeys(leaf.folio for leaf in process.leaves(start, end)):
        name = system.name_of(folio)
        if folio.is_anon and folio.is_large and not migrate.split_folio(system, folio):
            notes.append(f"{name} may be pinned and stays")
    for leaf in process.leaves(start, end):
        if leaf.folio.is_large or not leaf.folio.is_anon or leaf.state is not State.PRESENT:
            continue
        notes += migrate.begin(system, leaf.folio) or migrate.end(system, leaf.folio, device=True)
    return notes


def to_memory(system: System, process: Process, va: int) -> list[str]:
    """migrate_to_ram: a fault on a device-private entry brings the page back, for every process that maps it."""
    folio = process.leaf(va).folio
    return migrate.begin(system, folio) or migrate.end(system, folio)


def make_exclusive(process: Process, va: int) -> list[str]:
    """make_device_exclusive: a page that is this mm's alone gives way to a device-exclusive entry; no count moves."""
    leaf = process.leaf(va)
    process.unfold(va, va + process.page_size)
    raw = process.linux.pfn_entry(EntryKind.DEVICE_EXCLUSIVE, leaf.folio.pfn + leaf.page, leaf.flags & SOFTWARE)
    process.put_entry(va, raw, Reason.DEVICE)
    return []


def restore_exclusive(process: Process, start: int, end: int) -> None:
    """restore_exclusive_pte: device-exclusive entries of a range are present again; no count moves."""
    for leaf in process.leaves(start, end):
        if leaf.state is State.DEVICE_EXCLUSIVE:
            exclusive = bool(leaf.folio.exclusive[leaf.page]) and process.area(leaf.va).writable(leaf.va)
            flags = leaf.flags & SOFTWARE | READ | (WRITE if exclusive else READ)
            process.install(leaf.va, Level.PTE, leaf.folio, leaf.page, 1, flags, Reason.DEVICE)
