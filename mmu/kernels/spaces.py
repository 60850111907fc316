"""Whole address spaces as arrays: every leaf, and merged ranges, equal to `mmu.spaces` at a hundred times its speed.

`outline` lists the last-level tables and the blocks, `sweep` runs through the tables; entries that are not plainly a
leaf or absent are put before `regime.classify`, and where one of them is good after all the reference enumeration
takes over.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import dropwhile, islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..memory import PhysicalMemory
from ..regime import EntryType, Regime, Tree
from ..spaces import MAX_TABLES, Broken, Leaf, Range, granted
from ..spaces import leaves as reference_leaves
from ..spaces import ranges as reference_ranges
from .batch import empty_words
from .jit import kernel
from .outline import Items, Odd, TreePlan, outline_of, plan_of
from .reference import ViewMemory
from .sweep import emit, merge, revisit
from .views import MemoryView, memory_view

U64 = np.uint64
Words = NDArray[np.uint64]
SAMPLES = 1 << 12
_1, _ALL = U64(1), U64(0xFFFF_FFFF_FFFF_FFFF)


@kernel
def label(items: Any, counts: Any, paths: Any, flags: Any, entries: Any, slots: Any, sample: Any, codes: Any) -> Any:
    """Number the different (path, flags) of leaves in `codes`; how many there are, -1 where `slots` is too small.

    `slots` holds path, flags and code by row, path all ones where free; `sample` the first leaf of each code.
    """
    size = U64(slots.shape[1])
    known, n = 0, 0
    for k in range(counts.size):
        mask = flags[int(items.depth[k])]
        for _ in range(counts[k]):
            found = entries[n] & mask
            at = ((found ^ found >> U64(47)) * U64(0x9E3779B97F4A7C15) + paths[k] >> U64(20)) % size
            while slots[0, at] != _ALL and (slots[0, at] != paths[k] or slots[1, at] != found):
                at = (at + _1) % size
            if slots[0, at] == _ALL:
                if 2 * known >= sample.size:
                    return -1
                slots[0, at], slots[1, at], slots[2, at] = paths[k], found, U64(known)
                sample[known] = n
                known += 1
            codes[n] = slots[2, at]
            n += 1
    return known


@dataclass(frozen=True)
class _Part:
    """One tree's leaves: where they stand in the arrays of `Leaves`, and the items they come from."""

    plan: TreePlan
    items: Items
    counts: NDArray[np.int64]
    where: slice


@dataclass
class Leaves:
    """Every leaf of an address space in ascending order, one row a leaf; `broken` are the entries that lead nowhere."""

    va: Words
    entry: Words
    broken: list[Broken]
    memory: Any
    regime: Regime
    parts: list[_Part]

    def __len__(self) -> int:
        return len(self.va)

    def _by_depth(self, values: Any, kind: Any) -> NDArray[Any]:
        """A column whose value depends on the leaf's depth: `values(plan)` by depth."""
        column = np.empty(len(self.va), kind)
        for part in self.parts:
            table = np.array(values(part.plan), kind)
            column[part.where] = np.repeat(table[part.items.depth.astype(np.intp)], part.counts)
        return column

    @functools.cached_property
    def level(self) -> NDArray[np.int8]:
        """The level of each leaf, in the manual's numbers."""
        return self._by_depth(lambda plan: [level.number for level in plan.tree.levels], np.int8)

    @functools.cached_property
    def page_shift(self) -> NDArray[np.uint8]:
        """log2 of each leaf's bytes."""
        return self._by_depth(lambda plan: [level.shift for level in plan.tree.levels], np.uint8)

    @functools.cached_property
    def pa(self) -> Words:
        """The physical address of each leaf."""
        in_place = self._by_depth(lambda plan: [kind.address for kind in plan.leaves], np.uint64)
        high = self._by_depth(lambda plan: [kind.high for kind in plan.leaves], np.uint64)
        shift = self._by_depth(lambda plan: [kind.high_shift for kind in plan.leaves], np.uint64)
        pa: Words = self.entry & in_place | (self.entry & high) << shift
        return pa

    @functools.cached_property
    def rights(self) -> NDArray[np.uint8]:
        """The rights of each leaf's whole path, as bits of `walk.Rights`."""
        rights = np.empty(len(self.va), np.uint8)
        for part in self.parts:
            codes, sample = _labels(part.plan, part.items, part.counts, self.entry[part.where])
            vas = self.va[part.where][sample]
            known = [int(granted(self.memory, self.regime, int(va))) for va in vas]
            rights[part.where] = np.array(known, np.uint8)[codes]
        return rights


def _labels(
    plan: TreePlan, items: Items, counts: NDArray[np.int64], entries: Words
) -> tuple[NDArray[np.uint32], NDArray[np.int64]]:
    """A code for each leaf's (path, flags), and the first leaf of each code."""
    _, paths = np.unique(np.stack([items.depth, items.both, items.any]), axis=1, return_inverse=True)
    codes = np.empty(len(entries), np.uint32)
    size, flags = SAMPLES, np.array(plan.flags, np.uint64)
    while True:
        slots, sample = np.full((3, size), _ALL, np.uint64), np.empty(size, np.int64)
        known = label(items, counts, paths.ravel().astype(np.uint64), flags, entries, slots, sample, codes)
        if known >= 0:
            return codes, sample[:known]
        size *= 4


def _told(regime: Regime, plan: TreePlan, odd: Odd) -> list[Broken] | None:
    """The broken entries among the odd ones; None where an odd one is good after all and the kernels do not fit."""
    broken = []
    for va, pa, entry, depth in zip(*(column.tolist() for column in odd), strict=True):
        level = plan.tree.levels[depth]
        reason = "no memory"
        if entry:
            kind = regime.classify(level, entry).type
            if kind in (EntryType.TABLE, EntryType.LEAF):
                return None
            if kind is EntryType.NONE:
                continue
            reason = "reserved bits or an impossible address"
        broken.append(Broken(va, level, entry, pa, reason))
    return broken


def leaves(memory: PhysicalMemory | MemoryView, regime: Regime, *, max_tables: int = MAX_TABLES) -> Leaves:
    """Every leaf of a regime's trees, as `mmu.spaces.leaves` lists them; SpaceLimitError beyond `max_tables` tables."""
    view: Any = memory_view(memory) if isinstance(memory, PhysicalMemory) else memory
    words = memory if isinstance(memory, PhysicalMemory) else ViewMemory(view)
    found: list[tuple[Words, Words]] = []
    broken: list[Broken] = []
    parts: list[_Part] = []
    tables = rows = 0
    for tree in regime.trees:
        if tree.entry_size != 8:
            return _by_reference(words, regime, max_tables)
        plan = plan_of(regime, tree)
        items, odd, tables = outline_of(view, plan, tables, max_tables)
        va, entry, counts, more = _emit(view, plan, items)
        told = _told(regime, plan, Odd(*(np.concatenate(pair) for pair in zip(odd, more, strict=True))))
        if told is None:
            return _by_reference(words, regime, max_tables)
        broken += sorted(told, key=lambda b: b.va)
        parts.append(_Part(plan, items, counts, slice(rows, rows + len(va))))
        rows += len(va)
        found.append((va, entry))
    va, entry = (_one(column) for column in zip(*found, strict=True)) if found else (_one([]), _one([]))
    return Leaves(va, entry, broken, words, regime, parts)


def leaves_in_parts(
    memory: PhysicalMemory | MemoryView, regime: Regime, *, room: int = 1 << 20, max_tables: int = MAX_TABLES
) -> Iterator[Leaves]:
    """The same leaves, at most `room` (at least one table's) at a time: for spaces whose leaves no host can hold.

    Memory stays bounded by 16 bytes for each leaf of a part, and 48 for each table of the last level. The `broken`
    entries of a tree stand in its first part that has any; where the kernels meet entries they do not know the
    reference enumeration goes on.
    """
    view: Any = memory_view(memory) if isinstance(memory, PhysicalMemory) else memory
    words = memory if isinstance(memory, PhysicalMemory) else ViewMemory(view)
    outlined, tables = [], 0
    for tree in regime.trees if all(tree.entry_size == 8 for tree in regime.trees) else ():
        plan = plan_of(regime, tree)
        items, odd, tables = outline_of(view, plan, tables, max_tables)
        outlined.append((plan, items, odd))
    if not outlined:
        yield from _reference_in_parts(words, regime, 0, room, max_tables)
    for plan, items, odd in outlined:
        for first, end in list(_slices(plan, items, room)) or [(0, 0)]:  # no leaf, but perhaps a broken entry
            some = Items(*(column[first:end] for column in items))
            va, entry, counts, more = _emit(view, plan, some)
            told = _told(regime, plan, Odd(*(np.concatenate(pair) for pair in zip(odd, more, strict=True))))
            if told is None:
                start = int(some.va[0]) if first else plan.tree.va_start  # an odd entry may lie before the first item
                yield from _reference_in_parts(words, regime, start, room, max_tables)
                return
            odd = Odd(*(column[:0] for column in odd))
            broken = sorted(told, key=lambda b: b.va)
            yield Leaves(va, entry, broken, words, regime, [_Part(plan, some, counts, slice(0, len(va)))])


def _slices(plan: TreePlan, items: Items, room: int) -> Iterator[tuple[int, int]]:
    """Runs of items that have at most `room` leaves together, or one item each."""
    last = len(plan.tree.levels) - 1
    sizes = np.where(items.depth == last, items.entry, 1).astype(np.int64)
    ends = np.cumsum(sizes)
    first = 0
    while first < len(sizes):
        done = int(ends[first - 1]) if first else 0
        end = max(int(np.searchsorted(ends, done + room, side="right")), first + 1)
        yield first, end
        first = end


def _reference_in_parts(memory: Any, regime: Regime, start: int, room: int, max_tables: int) -> Iterator[Leaves]:
    """The leaves from `start` on, which the reference enumeration reaches after all below it."""
    broken: list[Broken] = []
    every = reference_leaves(memory, regime, max_tables=max_tables, report=broken.append)
    rows = dropwhile(lambda leaf: leaf.va < start, every)
    while part := list(islice(rows, room)):
        yield _from_rows(part, broken, memory, regime)
        broken = []


def _one(parts: Sequence[Words]) -> Words:
    """The parts as one array, without a copy where only one of them holds anything."""
    full = [part for part in parts if len(part)]
    return full[0] if len(full) == 1 else np.concatenate([np.empty(0, np.uint64), *full])


def _by_reference(memory: Any, regime: Regime, max_tables: int) -> Leaves:
    """The same from the reference enumeration, for entries that the kernels do not know."""
    broken: list[Broken] = []
    rows = list(reference_leaves(memory, regime, max_tables=max_tables, report=broken.append))
    return _from_rows(rows, broken, memory, regime)


def _from_rows(rows: Sequence[Leaf], broken: list[Broken], memory: Any, regime: Regime) -> Leaves:
    result = Leaves(
        np.array([row.va for row in rows], np.uint64),
        np.array([row.entry & (1 << 64) - 1 for row in rows], np.uint64),
        broken, memory, regime, [],
    )  # fmt: skip
    result.pa = np.array([row.pa for row in rows], np.uint64)
    result.level = np.array([row.level.number for row in rows], np.int8)
    result.page_shift = np.array([row.level.shift for row in rows], np.uint8)
    result.rights = np.array([int(row.rights) for row in rows], np.uint8)
    return result


def _room(plan: TreePlan, items: Items) -> int:
    """How many leaves the items can have at most, and one to spare."""
    tables = items.depth == len(plan.tree.levels) - 1
    return int(items.entry[tables].sum()) + int(np.count_nonzero(~tables)) + 1


def emit_tree(view: MemoryView, regime: Regime, tree: Tree, room: tuple[Words, Words]) -> tuple[Words, Words]:
    """va and entry of every leaf of one tree, into the two arrays of `room`, which have to have space for them."""
    plan = plan_of(regime, tree)
    items, _, _ = outline_of(view, plan, 0, MAX_TABLES)
    last = len(tree.levels) - 1
    shape = U64(last), U64(tree.levels[last].shift), U64(plan.leaves[last].mask), U64(plan.leaves[last].value)
    n, _ = emit(view, items, *shape, room[0], room[1], np.zeros(len(items.va), np.int64))
    return room[0][:n], room[1][:n]


def merge_tree(view: MemoryView, regime: Regime, tree: Tree, room: Words) -> Words:
    """va, size, pa and flags of one tree's ranges, into the rows of `room`; paths that differ are not merged."""
    plan = plan_of(regime, tree)
    items, _, _ = outline_of(view, plan, 0, MAX_TABLES)
    n, _ = merge(view, items, plan.arrays, np.array(plan.flags, np.uint64), room, np.zeros(len(items.va), np.int64))
    return room[:, :n]


def _emit(view: MemoryView, plan: TreePlan, items: Items) -> tuple[Words, Words, NDArray[np.int64], Odd]:
    last = len(plan.tree.levels) - 1
    shape = U64(last), U64(plan.tree.levels[last].shift), U64(plan.leaves[last].mask), U64(plan.leaves[last].value)
    capacity = _room(plan, items)
    va, entry = empty_words(capacity), empty_words(capacity)
    counts = np.zeros(len(items.va), np.int64)
    n, n_odd = emit(view, items, *shape, va, entry, counts)
    odd = Odd(*(np.empty(n_odd, np.uint64) for _ in Odd._fields))
    if n_odd:
        n_odd = revisit(view, items, *shape, odd)
    return va[:n], entry[:n], counts, Odd(*(column[:n_odd] for column in odd))


@dataclass(frozen=True)
class Ranges:
    """Neighbouring leaves of one page size, rights and flags whose va and pa go on, merged; one row a range."""

    va: Words
    size: Words
    pa: Words
    flags: Words
    level: NDArray[np.int8]
    rights: NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.va)


def ranges(memory: PhysicalMemory | MemoryView, regime: Regime, *, max_tables: int = MAX_TABLES) -> Ranges:
    """The merged ranges of a regime's trees, as `mmu.spaces.ranges` merges leaves with `physical`."""
    view: Any = memory_view(memory) if isinstance(memory, PhysicalMemory) else memory
    words = memory if isinstance(memory, PhysicalMemory) else ViewMemory(view)
    columns: list[tuple[Any, ...]] = []
    tables = 0
    for tree in regime.trees:
        if tree.entry_size != 8:
            return _ranges_by_reference(words, regime, max_tables)
        plan = plan_of(regime, tree)
        items, odd, tables = outline_of(view, plan, tables, max_tables)
        rows, counts, n_odd = _merge(view, plan, items)
        if (n_odd or len(odd.va)) and not _all_broken(view, regime, plan, items, odd):
            return _ranges_by_reference(words, regime, max_tables)
        columns.append(_judged(words, regime, plan, items, rows, counts))
    if not columns:
        return _ranges_by_reference(words, regime, max_tables)
    return _joined(Ranges(*(np.concatenate(column) for column in zip(*columns, strict=True))))


def _merge(view: MemoryView, plan: TreePlan, items: Items) -> tuple[Words, NDArray[np.int64], int]:
    out = np.empty((4, _room(plan, items)), np.uint64)  # untouched pages cost nothing
    counts = np.zeros(len(items.va), np.int64)
    n, odd = merge(view, items, plan.arrays, np.array(plan.flags, np.uint64), out, counts)
    return out[:, :n], counts, odd


def _all_broken(view: MemoryView, regime: Regime, plan: TreePlan, items: Items, odd: Odd) -> bool:
    more = _emit(view, plan, items)[3]
    return _told(regime, plan, Odd(*(np.concatenate(pair) for pair in zip(odd, more, strict=True)))) is not None


def _judged(
    memory: Any, regime: Regime, plan: TreePlan, items: Items, rows: Words, counts: NDArray[np.int64]
) -> tuple[Any, ...]:
    """The columns of `Ranges` for the rows of one tree."""
    va, size, pa, flags = rows
    depth = np.repeat(items.depth.astype(np.intp), counts)
    codes, sample = _labels(plan, items, counts, flags)
    known = np.array([int(granted(memory, regime, int(a))) for a in va[sample]], np.uint8)
    levels = np.array([level.number for level in plan.tree.levels], np.int8)
    return va, size, pa, flags, levels[depth], known[codes]


def _joined(found: Ranges) -> Ranges:
    """Rows that only differ in how their rights came about, merged."""
    if len(found) < 2:
        return found
    goes_on = (found.va[:-1] + found.size[:-1] == found.va[1:]) & (found.pa[:-1] + found.size[:-1] == found.pa[1:])
    columns: tuple[NDArray[Any], ...] = (found.flags, found.level, found.rights)
    for column in columns:
        goes_on &= column[:-1] == column[1:]
    starts = np.flatnonzero(np.concatenate([[True], ~goes_on]))
    if len(starts) == len(found):
        return found
    size = np.add.reduceat(found.size, starts)
    flags, level, rights = found.flags[starts], found.level[starts], found.rights[starts]
    return Ranges(found.va[starts], size, found.pa[starts], flags, level, rights)


def _ranges_by_reference(memory: Any, regime: Regime, max_tables: int) -> Ranges:
    rows: list[Range] = list(reference_ranges(reference_leaves(memory, regime, max_tables=max_tables), physical=True))
    return Ranges(
        np.array([row.va for row in rows], np.uint64), np.array([row.size for row in rows], np.uint64),
        np.array([row.pa for row in rows], np.uint64), np.array([row.flags for row in rows], np.uint64),
        np.array([row.level.number for row in rows], np.int8), np.array([int(row.rights) for row in rows], np.uint8),
    )  # fmt: skip
