"""A process's page tables as the views read them: raw entries from memory, decoded by Linux's rules."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field, replace
from functools import lru_cache

from ...arch.errors import BusError, InputError
from ...arch.linux import (
    DEVICE_EXCLUSIVE_KINDS,
    DEVICE_PRIVATE_KINDS,
    MIGRATION_KINDS,
    EntryKind,
    Linux,
    LinuxEntry,
    LinuxFlags,
    Marker,
)
from ...mmu import walk
from ...mmu.memory import Memory
from ...mmu.regime import EntryType, Regime, Tree
from ...mmu.spaces import MAX_TABLES, SpaceLimitError, read_entries
from ..levels import Level
from .inputs import PageEntry, State

CONT_PTES = {12: 16, 14: 128, 16: 32}
"""Entries of one contiguous block of arm64 PTEs, by page shift (CONT_PTES)."""

_DECODED = 1 << 16
"""Decoded entries that are remembered: each view of each model reads the same ones."""

_STATES: dict[EntryKind, State] = {
    EntryKind.SWAP: State.SWAP,
    EntryKind.HWPOISON: State.HWPOISON,
    EntryKind.MARKER: State.MARKER,
    EntryKind.SWAPIN_ERROR: State.MARKER,
    **dict.fromkeys(MIGRATION_KINDS, State.MIGRATION),
    **dict.fromkeys(DEVICE_PRIVATE_KINDS, State.DEVICE_PRIVATE),
    **dict.fromkeys(DEVICE_EXCLUSIVE_KINDS, State.DEVICE_EXCLUSIVE),
}


@dataclass(frozen=True, slots=True)
class RawEntry:
    """One entry of a process's tables that is neither empty nor a table.

    `table` is the table's address, `index` the entry's place, `words` all its entries; `blocks` remembers what
    contiguous blocks of the table were found to hold.
    """

    va: int
    level: walk.Level
    raw: int
    table: int
    index: int
    words: list[int | None]
    blocks: dict[int, LinuxFlags]


@dataclass(slots=True)
class _Table:
    """A table on the way down: its entries, and the places still to be visited."""

    va: int
    depth: int
    level: walk.Level
    pa: int
    words: list[int | None]
    places: Iterator[int]
    last: bool
    blocks: dict[int, LinuxFlags]


@dataclass(eq=False)
class ProcessTables:
    """Reads the user half of one process's tables; every call reads memory afresh.

    `zero_pfn` tells the frames of zero pages. `shared_pmd_tables` are the PMD tables that several processes use. One
    enumeration reads at most `max_tables` tables, since tables can point at themselves.
    """

    memory: Memory
    regime: Regime
    linux: Linux
    zero_pfn: Callable[[int], bool] = field(default=lambda pfn: False)
    shared_pmd_tables: Collection[int] = frozenset()
    max_tables: int = MAX_TABLES

    def __post_init__(self) -> None:
        self._decode = lru_cache(_DECODED)(self.linux.decode)

    @property
    def tree(self) -> Tree:
        """The tree of user addresses."""
        return self.regime.trees[0]

    @property
    def page_size(self) -> int:
        """Bytes of a base page."""
        return 1 << self.linux.paging.page_shift

    def raw(self, start: int, end: int) -> Iterator[RawEntry]:
        """The entries that map any part of a range, ascending; tables and empty entries are passed over.

        SpaceLimitError after `max_tables` tables, BusError where a table is not in memory.
        """
        for table, index, raw in self._slots(start, end):
            if raw is None:
                raise BusError(table.pa + index * self.tree.entry_size)
            if self._below(table, raw) is None:
                va = table.va + (index << table.level.shift)
                yield RawEntry(va, table.level, raw, table.pa, index, table.words, table.blocks)

    def is_table(self, level: walk.Level, raw: int) -> bool:
        """Whether an entry points at a table."""
        return level.number != self.tree.levels[-1].number and self.regime.classify(level, raw).type is EntryType.TABLE

    def _below(self, table: _Table, raw: int) -> int | None:
        """The address of the table an entry points at, None for any other entry."""
        if table.last:
            return None
        entry = self.regime.classify(table.level, raw)
        return entry.pa if entry.type is EntryType.TABLE else None

    def _enter(self, depth: int, va: int, pa: int, start: int, end: int) -> _Table:
        level = self.tree.levels[depth]
        words = read_entries(self.memory, pa, level.entries, self.tree.entry_size)
        first, last = max(start - va, 0) >> level.shift, (end - 1 - va) >> level.shift
        places = iter(range(first, min(last, level.entries - 1) + 1))
        return _Table(va, depth, level, pa, words, places, depth + 1 == len(self.tree.levels), {})

    def _slots(self, start: int, end: int) -> Iterator[tuple[_Table, int, int | None]]:
        """(table, index, entry) of every entry of a range that is not empty, in the order of addresses."""
        tree, read = self.tree, 1
        start, end = max(start, tree.va_start), min(end, tree.va_end)
        if start >= end:
            return
        stack = [self._enter(0, tree.va_start, tree.root, start, end)]
        while stack:
            table = stack[-1]
            for index in table.places:
                raw = table.words[index]
                if raw == 0:
                    continue
                yield table, index, raw
                below = None if raw is None else self._below(table, raw)
                if below is not None:
                    read += 1
                    va = table.va + (index << table.level.shift)
                    if read > self.max_tables:
                        raise SpaceLimitError(va, read - 1)
                    stack.append(self._enter(table.depth + 1, va, below, start, end))
                    break
            else:
                stack.pop()

    def _tables_of(self, depth: int, start: int, end: int) -> Iterator[tuple[int, int, int]]:
        """(va, end, address) of every table `depth` levels above the last one, for each place that refers to it."""
        wanted = len(self.tree.levels) - 1 - depth
        for table, index, raw in self._slots(start, end):
            if table.depth == wanted - 1 and raw is not None and (below := self._below(table, raw)) is not None:
                va = table.va + (index << table.level.shift)
                yield va, va + (1 << table.level.shift), below

    def pte_tables(self, start: int, end: int) -> Iterator[tuple[int, int]]:
        """The parts of a range that last-level tables cover."""
        for low, high, _ in self._tables_of(0, start, end):
            yield low, high

    def pmd_tables(self, start: int, end: int) -> Iterator[int]:
        """The addresses of the PMD tables of a range, one for each place that refers to it."""
        for _, _, table in self._tables_of(1, start, end):
            yield table

    def decode(self, entry: RawEntry) -> LinuxEntry:
        """The entry as Linux reads it; A and D of a contiguous arm64 block are those of any of its entries."""
        found = self._decode(entry.level.number, entry.raw)
        if LinuxFlags.CONTIG in found.flags and self.linux.paging.depth(entry.level.number) == 0:
            either = LinuxFlags.YOUNG | LinuxFlags.DIRTY
            if found.flags & either != either:
                return replace(found, flags=found.flags | self._block_flags(entry) & either)
        return found

    def _block_flags(self, entry: RawEntry) -> LinuxFlags:
        size = CONT_PTES[self.linux.paging.page_shift]
        first = entry.index // size * size
        if first not in entry.blocks:
            flags = LinuxFlags.NONE
            for raw in filter(None, entry.words[first : first + size]):
                flags |= self.linux.decode(entry.level.number, raw).flags
            entry.blocks[first] = flags
        return entry.blocks[first]

    def entries(self, start: int, end: int, *, huge_page_size: int = 0) -> Iterator[PageEntry]:
        """The entries of a range; of a hugetlb area one for each huge page of `huge_page_size` bytes."""
        found = self.raw(start, end)
        if not huge_page_size:
            for entry in found:
                yield self.page_entry(entry)
            return
        whole: PageEntry | None = None
        for entry in found:
            if entry.va % huge_page_size:  # a further entry of a contiguous huge page
                if whole is not None:
                    part = self.page_entry(entry)
                    whole = replace(whole, young=whole.young or part.young, dirty=whole.dirty or part.dirty)
                continue
            if whole is not None:
                yield whole
            shared = entry.table in self.shared_pmd_tables
            whole = replace(self.page_entry(entry), nr_pages=huge_page_size // self.page_size, pmd_shared=shared)
        if whole is not None:
            yield whole

    def page_entry(self, raw: RawEntry) -> PageEntry:
        """One entry for the views; InputError where Linux has no reading of it."""
        entry = self.decode(raw)
        depth = self.linux.paging.depth(raw.level.number)
        if entry.kind is EntryKind.UNKNOWN or entry.kind is EntryKind.TABLE or depth > Level.PUD:
            text = f"the entry at va {raw.va:#018x} is none that this kernel writes: {entry.text()}"
            raise InputError(text, field=raw.level.linux_name, value=raw.raw)
        flags, marker = entry.flags, entry.marker
        pfn = entry.pfn or 0
        return PageEntry(
            raw.va,
            Level(depth),
            self.linux.paging.nr_pages(raw.level.number),
            State.PRESENT if entry.present else _STATES[entry.kind],
            pfn,
            young=entry.present and LinuxFlags.YOUNG in flags,
            dirty=entry.present and LinuxFlags.DIRTY in flags,
            write=LinuxFlags.WRITE in flags,
            special=LinuxFlags.SPECIAL in flags,
            zero=entry.present and self.zero_pfn(pfn),
            soft_dirty=LinuxFlags.SOFT_DIRTY in flags,
            uffd_wp=LinuxFlags.UFFD_WP in flags,
            swap_type=entry.type or 0,
            swap_offset=entry.offset or 0,
            uffd_wp_marker=Marker.UFFD_WP in marker,
            guard_marker=Marker.GUARD in marker,
        )


def shared_pmd_tables(processes: Collection[ProcessTables], start: int = 0, end: int = 1 << 63) -> frozenset[int]:
    """The PMD tables that more than one place refers to, as hugetlb areas share them."""
    seen: set[int] = set()
    twice: set[int] = set()
    for process in processes:
        for table in process.pmd_tables(start, end):
            (twice if table in seen else seen).add(table)
    return frozenset(twice)
