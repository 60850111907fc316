"""Reclaim: whole folios out of memory, and madvise's MADV_PAGEOUT."""

from __future__ import annotations

from ..folio import Flags, Folio
from ..levels import Level
from ..space.process import Process
from ..space.system import System
from .collapse import drop_from_cache
from .migrate import file_of, is_busy, mappings, split_folio
from .swap import swap_leaves
from .unmap import split, zap


def reclaim(system: System, folio: Folio) -> list[str]:
    """shrink_folio_list for one folio: try_to_unmap in every process, then it leaves memory.

    Anonymous pages become swap entries, a file's are dropped (written first if dirty), shmem's move to swap slots which
    the page cache remembers. What may be pinned stays.
    """
    name = system.name_of(folio)
    if folio.pins:
        return [f"{name} may be pinned and stays"]
    _split_leaves(system, folio)
    places = mappings(system, folio)
    if folio.is_anon:
        return swap_leaves(system, places)
    for process, leaf in places:
        zap(system, process, leaf.va, leaf.va + leaf.nr_pages * process.page_size)
    if is_busy(system, folio):
        return [f"{name} is in use and stays in the page cache"]
    file, first = file_of(system, folio)
    swapped = Flags.SWAPBACKED in folio.flags
    if swapped:
        file.swapped |= {first + page: system.swap.new_slot() for page in range(folio.nr_pages)}
    drop_from_cache(system, file, folio)
    return [f"{name} {'is written to swap and' if swapped else 'leaves the page cache and is'} freed"]


def _split_leaves(system: System, folio: Folio) -> None:
    for level in (Level.PUD, Level.PMD):
        for process, leaf in mappings(system, folio):
            if leaf.level == level:
                split(system, process, leaf.va)


def pageout(system: System, process: Process, start: int, end: int) -> list[str]:
    """MADV_PAGEOUT (madvise_cold_or_pageout_pte_range): reclaims the folios of a range that only this range maps.

    A folio that may be mapped elsewhere is left alone; one that the range covers in part is split first.
    """
    notes: list[str] = []
    for folio in dict.fromkeys(leaf.folio for leaf in process.leaves(start, end)):
        name = system.name_of(folio)
        if system.acct.driver.maybe_mapped_shared(folio):
            notes.append(f"{name} may be mapped elsewhere and is left alone")
            continue
        partly = folio.is_large and _covered(process, folio, start, end) < folio.nr_pages
        if partly and not split_folio(system, folio):
            notes.append(f"{name} may be pinned and stays")
            continue
        parts = [
            leaf.folio
            for leaf in process.leaves(start, end)
            if folio.pfn <= leaf.folio.pfn < folio.pfn + folio.nr_pages
        ]
        for part in dict.fromkeys(parts):
            notes += reclaim(system, part)
    return notes


def _covered(process: Process, folio: Folio, start: int, end: int) -> int:
    """Pages of a folio that entries inside a range map."""
    leaves = [leaf for leaf in process.leaves(start, end) if leaf.folio is folio]
    inside = [leaf for leaf in leaves if start <= leaf.va and leaf.va + leaf.nr_pages * process.page_size <= end]
    return sum(leaf.nr_pages for leaf in inside)
