"""What the page tables of one process say about every user page, in the words of /proc/PID/pagemap."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from ..arch.errors import InputError
from ..arch.linux import EntryKind, Linux, LinuxEntry, LinuxFlags, Marker, Release
from ..arch.linux_entry import SWAP_TYPE_BITS
from ..arch.linux_proc import PAGEMAP
from ..mmu.memory import PhysicalMemory
from ..mmu.regime import Entry, EntryType, Regime, Tree
from ..mmu.spaces import read_entries
from ..mmu.walk import Level

PFRAME, SOFT_DIRTY, UFFD_WP = (PAGEMAP.mask(n) for n in ("PFRAME", "SOFT_DIRTY", "UFFD_WP"))
GUARD, SWAP, PRESENT = (PAGEMAP.mask(n) for n in ("GUARD_REGION", "SWAP", "PRESENT"))
COMPARED = PFRAME | SOFT_DIRTY | UFFD_WP | GUARD | SWAP | PRESENT  # the others need folios, not tables
_GUARD_SINCE: Release = (6, 15)  # PM_GUARD_REGION
_VISITS_PER_PAGE = 4


@dataclass(frozen=True, slots=True)
class Item:
    """One entry that is not empty and no table: `nr_pages` base pages from `va`.

    `traits` is what Linux makes of it; leaves that differ in nothing but the address share one, so its `raw` and `pfn`
    may be another's. `pfn` is the entry's own frame, None where it names none.
    """

    va: int
    level: Level
    raw: int
    entry_pa: int
    pfn: int | None
    traits: LinuxEntry
    nr_pages: int


@dataclass(slots=True)
class UserTables:
    """The user half of one root: its items in ascending order, and entries that lead nowhere."""

    items: list[Item] = field(default_factory=list)
    broken: list[tuple[int, str]] = field(default_factory=list)


def user_tree(regime: Regime) -> Tree:
    """The tree that translates user addresses, the ones from 0 on; InputError where there is none."""
    for tree in regime.trees:
        if tree.va_start == 0:
            return tree
    raise InputError("the registers leave user addresses untranslated", field="regime")


def read_user_tables(memory: PhysicalMemory, regime: Regime, linux: Linux) -> UserTables:
    """Every item of the regime's first tree; InputError where more tables are visited than the memory can hold."""
    found, tree = UserTables(), user_tree(regime)
    page_shift = tree.levels[-1].shift
    budget = [_VISITS_PER_PAGE * (sum(len(bank.data) for bank in memory.banks) >> page_shift) + 1]
    shared: dict[tuple[int, int], LinuxEntry] = {}
    for va, level, raw, entry_pa, leaf in _entries(
        memory, regime, tree, 0, tree.root, tree.va_start, budget, found.broken
    ):
        nr_pages = 1 << level.shift - page_shift
        if leaf is None:
            traits = linux.decode(level.number, raw)
            found.items.append(Item(va, level, raw, entry_pa, traits.pfn, traits, nr_pages))
            continue
        key = level.number, raw & ~leaf.layout.address_mask
        if key not in shared:
            shared[key] = linux.decode(level.number, raw)
        found.items.append(Item(va, level, raw, entry_pa, leaf.pa >> page_shift, shared[key], nr_pages))
    return found


def _entries(
    memory: PhysicalMemory,
    regime: Regime,
    tree: Tree,
    depth: int,
    table: int,
    va: int,
    budget: list[int],
    broken: list[tuple[int, str]],
) -> Iterator[tuple[int, Level, int, int, Entry | None]]:
    """Address, level, value and place of each entry that is no table; classified where the hardware calls it a leaf."""
    level = tree.levels[depth]
    budget[0] -= 1
    if budget[0] < 0:
        raise InputError("the tables point at themselves", field="table", value=table)
    count = min(level.entries, tree.va_end - tree.va_start >> level.shift)
    for i, raw in enumerate(read_entries(memory, table, count, tree.entry_size)):
        if raw == 0:
            continue
        at = va + (i << level.shift)
        if raw is None:
            broken.append((at, f"the table at {table:#018x} is not in the capture"))
            return
        entry = regime.classify(level, raw)
        if entry.type is EntryType.TABLE:
            yield from _entries(memory, regime, tree, depth + 1, entry.pa, at, budget, broken)
        elif entry.type is EntryType.RESERVED:
            broken.append((at, f"entry {raw:#018x} has reserved bits set"))
        else:
            leaf = entry if entry.type is EntryType.LEAF else None
            yield at, level, raw, table + i * tree.entry_size, leaf


def pagemap_word(item: Item, linux: Linux) -> tuple[int, int]:
    """The pagemap word (bits of COMPARED) of the item's first page, and what to add for each page after it.

    Rules of fs/proc/task_mmu.c: pte_to_pagemap_entry and pagemap_pmd_range.
    """
    traits, word = item.traits, 0
    if LinuxFlags.SOFT_DIRTY in traits.flags:
        word |= SOFT_DIRTY
    if LinuxFlags.UFFD_WP in traits.flags or Marker.UFFD_WP in traits.marker:
        word |= UFFD_WP
    if traits.present:
        return word | PRESENT | (item.pfn or 0) & PFRAME, 1
    word |= SWAP | (traits.pagemap_frame or 0) & PFRAME
    if Marker.GUARD in traits.marker and linux.release >= _GUARD_SINCE:
        word |= GUARD
    counts = item.pfn is not None or traits.kind is EntryKind.SWAP
    return word, 1 << SWAP_TYPE_BITS if counts else 0
