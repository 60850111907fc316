"""Migration: mappings become migration entries, and map again what took the folio's place; folio splits use both."""

from __future__ import annotations

from collections.abc import Callable

from ...arch.linux import MIGRATION_KINDS, EntryKind, LinuxFlags
from ...mmu.editor import Reason
from ..folio import NO_FLAGS, Flags, Folio
from ..levels import Level
from ..observer import Intent
from ..space.area import File
from ..space.process import WRITE, Leaf, Process
from ..space.system import System
from ..views.inputs import State
from .entries import KEPT, split_migration, write_migration
from .unmap import split, zap

Target = Callable[[int], tuple[Folio, int]]
"""What maps in place of a page of the old folio: a folio, and which of its pages."""


def is_busy(system: System, folio: Folio) -> bool:
    """Whether references beyond mappings and caches (pins, an isolation) keep a folio where it is."""
    return bool(folio.pins) or folio.refs != system.acct.driver.expected_ref_count(folio)


def mappings(system: System, folio: Folio) -> list[tuple[Process, Leaf]]:
    """rmap_walk: every entry that maps any part of a folio, with its process."""
    return [
        (process, leaf)
        for process in system.processes.values()
        for area in process.areas.values()
        for leaf in process.leaves(area.start, area.end)
        if leaf.folio is folio
    ]


def try_to_migrate(system: System, folio: Folio, *, split_leaves: bool = False) -> None:
    """try_to_migrate: every mapping of a folio that is not busy becomes a migration entry; large leaves may be split.

    All counters are at their unmapped values afterwards; on the way the folio may be seen as partially mapped.
    """
    for level in (Level.PUD, Level.PMD) if split_leaves else ():
        for process, leaf in mappings(system, folio):
            if leaf.level == level:
                split(system, process, leaf.va)
    for process, leaf in mappings(system, folio):
        exclusive = folio.is_anon and bool(folio.exclusive[leaf.page])
        if exclusive:
            system.acct.try_share_anon_rmap(folio, leaf.page)
        write_migration(process, leaf, exclusive=exclusive)


def remove_migration_entries(system: System, folio: Folio, target: Target) -> None:
    """remove_migration_ptes: each entry that names a page of `folio` maps what took the page's place.

    A writable or exclusive entry makes the mapping exclusive; its folio takes a reference for it.
    """
    frames = range(folio.pfn, folio.pfn + folio.nr_pages)
    for process in system.processes.values():
        for area in process.areas.values():
            for other in process.nonpresent(area.start, area.end):
                kind, pfn = other.entry.kind, other.entry.pfn
                if kind not in MIGRATION_KINDS or pfn is None or pfn not in frames:
                    continue
                new, page = target(pfn - folio.pfn)
                if other.level != Level.PTE and new.nr_pages - page < system.levels.size(other.level):
                    split_migration(process, other)
                    remove_migration_entries(system, folio, target)
                    return
                _map_again(system, process, other.va, other.level, new, page, kind, other.entry.flags)


def _map_again(
    system: System, process: Process, va: int, level: Level, new: Folio, page: int, kind: EntryKind, kept: LinuxFlags
) -> None:
    exclusive = new.is_anon and kind is not EntryKind.MIGRATION_READ
    flags = WRITE if kind is EntryKind.MIGRATION_WRITE else LinuxFlags.NONE
    n = system.levels.size(level)
    state = State.DEVICE_PRIVATE if new.is_device_private else State.PRESENT
    with process.editor.batch(Intent(exclusive=exclusive, exempt=True)):
        process.install_like(Leaf(va, level, new, page, n, flags, state), va, flags | kept & KEPT, Reason.MIGRATE)


# ---- migration of a folio


def begin(system: System, folio: Folio) -> list[str]:
    """migrate_folio_unmap: isolate the folio and replace its mappings. What may be pinned stays: -EAGAIN."""
    if is_busy(system, folio):
        return [f"-EAGAIN: {system.name_of(folio)} may be pinned and stays"]
    isolate(system, folio)
    try_to_migrate(system, folio)
    return []


def isolate(system: System, folio: Folio) -> None:
    """folio_isolate_lru: a reference that keeps the folio while nothing maps it."""
    system.acct.get(folio, 1)
    system.isolated[folio] += 1


def put_back(system: System, folio: Folio) -> None:
    """The isolation's reference is dropped; the folio is not freed."""
    system.acct.put(folio, 1)
    del system.isolated[folio]


def end(system: System, folio: Folio, *, device: bool = False) -> list[str]:
    """move_to_new_folio: a new folio takes the old one's place in page or swap cache and in the migration entries.

    `device` takes it from a device's memory (MEMORY_DEVICE_PRIVATE), else from the system's.
    """
    acct, name = system.acct, system.name_of(folio)
    new = system.new_folio(system.unused_name(f"{name}'"), folio.order, folio.kind, fresh=False)
    new.flags = folio.flags & ~(Flags.SWAPCACHE | Flags.DEVICE_PRIVATE)
    new.flags |= Flags.DEVICE_PRIVATE if device else NO_FLAGS
    if folio.is_anon:
        for model in acct.live(new):
            model.count_mthp(model.stats.mthp_nr_anon, new, 1)
        acct.set_swapcache(new, folio.in_swapcache)
        acct.set_swapcache(folio, False)
        system.swap.move(folio, new)
    else:
        file, first = file_of(system, folio)
        file.folios[first] = new
    put_back(system, folio)
    acct.free(folio)
    system.forget(folio)
    remove_migration_entries(system, folio, lambda page: (new, page))
    if not new.refs:
        system.unreferenced(new)
        return [f"{name} is mapped by nobody any more and freed"]
    return [f"{name} moved to {system.name_of(new)}"]


def file_of(system: System, folio: Folio) -> tuple[File, int]:
    """The file whose page cache holds a folio, and where it begins there."""
    for file in system.files.values():
        if folio in file.folios.values():
            return file, file.first_page(folio)
    raise LookupError(f"{folio!r} is in no page cache")


# ---- folio split


def split_folio(system: System, folio: Folio, new_order: int = 0) -> bool:
    """split_folio: unmap, split, map the parts again by PTEs; pages that nobody maps are freed.

    A file's folio is only unmapped, its pages fault in again. False, and nothing changed, where references beyond the
    mappings would make the split fail.
    """
    if is_busy(system, folio):
        return False
    acct, name = system.acct, system.name_of(folio)
    isolate(system, folio)
    if folio.is_anon:
        try_to_migrate(system, folio, split_leaves=True)
    else:
        for process, leaf in mappings(system, folio):
            zap(system, process, leaf.va, leaf.va + leaf.nr_pages * process.page_size)
    put_back(system, folio)
    parts = acct.split_folio(folio, new_order)
    system.forget(folio)
    for nth, part in enumerate(parts):
        system.enter(f"{name}+{nth << new_order}", part)
    if not folio.is_anon:
        file, first = file_of(system, folio)
        del file.folios[first]
        file.folios |= {first + (nth << new_order): part for nth, part in enumerate(parts)}
        return True
    remove_migration_entries(system, folio, lambda page: (parts[page >> new_order], page % (1 << new_order)))
    for part in parts:
        if part.pfn in system.swap.slots:
            system.free_swap(part)
        if not part.refs:
            system.unreferenced(part)
    return True
