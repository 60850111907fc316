"""What the page tables of one process say about every user page, in the words of /proc/PID/pagemap."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from ..arch.errors import InputError
from ..arch.linux import EntryKind, Linux, LinuxEntry, LinuxFlags, Marker, Release
from ..arch.linux_entry import SWAP_TYPE_BITS
from ..arch.linux_proc import PAGEMAP
from ..mmu.memory import PhysicalMemory
from ..mmu.regime import EntryType, Regime, Tree
from ..mmu.spaces import read_entries
from ..mmu.walk import Level

PFRAME, SOFT_DIRTY, UFFD_WP = (PAGEMAP.mask(n) for n in ("PFRAME", "SOFT_DIRTY", "UFFD_WP"))
GUARD, SWAP, PRESENT = (PAGEMAP.mask(n) for n in ("GUARD_REGION", "SWAP", "PRESENT"))
COMPARED = PFRAME | SOFT_DIRTY | UFFD_WP | GUARD | SWAP | PRESENT  # the others need folios, not tables
_GUARD_SINCE: Release = (6, 15)  # PM_GUARD_REGION
_VISITS_PER_PAGE = 4


@dataclass(frozen=True, slots=True)
class Item:
    """One entry that is not empty and no table: `nr_pages` base pages from `va`, and what Linux makes of it."""

    va: int
    level: Level
    raw: int
    entry_pa: int
    entry: LinuxEntry
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
    for va, level, raw, entry_pa in _entries(memory, regime, tree, 0, tree.root, tree.va_start, budget, found.broken):
        entry = linux.decode(level.number, raw)
        found.items.append(Item(va, level, raw, entry_pa, entry, 1 << level.shift - page_shift))
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
) -> Iterator[tuple[int, Level, int, int]]:
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
            yield at, level, raw, table + i * tree.entry_size


def pagemap_word(item: Item, linux: Linux) -> tuple[int, int]:
    """The pagemap word (bits of COMPARED) of the item's first page, and what to add for each page after it.

    Rules of fs/proc/task_mmu.c: pte_to_pagemap_entry and pagemap_pmd_range.
    """
    entry, word, step = item.entry, 0, 0
    if LinuxFlags.SOFT_DIRTY in entry.flags:
        word |= SOFT_DIRTY
    if LinuxFlags.UFFD_WP in entry.flags or Marker.UFFD_WP in entry.marker:
        word |= UFFD_WP
    if entry.present:
        return word | PRESENT | (entry.pfn or 0) & PFRAME, 1
    word |= SWAP | (entry.pagemap_frame or 0) & PFRAME
    if Marker.GUARD in entry.marker and linux.release >= _GUARD_SINCE:
        word |= GUARD
    if entry.pfn is not None or entry.kind is EntryKind.SWAP:
        step = 1 << SWAP_TYPE_BITS
    return word, step
