"""Whole address spaces as arrays: every leaf, and merged ranges, equal to `mmu.spaces` at a hundred times its speed.

`outline` goes down the upper levels depth first and lists what it meets in ascending order: last-level tables and
blocks. `emit` and `merge` then run through the last-level tables, where nearly all entries are. What the hardware makes
of an entry is learned from `regime.classify`; entries that are not plainly a table, a leaf or absent are put before it.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..memory import PhysicalMemory
from ..regime import EntryType, Regime, Tree
from ..spaces import MAX_TABLES, Broken, Range, SpaceLimitError, flags_mask, granted
from ..spaces import leaves as reference_leaves
from ..spaces import ranges as reference_ranges
from ..walk import Level
from .access import load, locate
from .batch import LINE
from .host import peek, prefetch_host, word_pointer
from .jit import carray, helper, kernel, per_object
from .reference import ViewMemory
from .views import MemoryView, memory_view

U64 = np.uint64
Words = NDArray[np.uint64]
_LINE = U64(LINE)
_0, _1, _3, _ALL = U64(0), U64(1), U64(3), U64(0xFFFF_FFFF_FFFF_FFFF)
CANDIDATES = (1, 3, 0x81)  # plain entries: a valid bit, with the type bits of either architecture
SAMPLES = 1 << 12


class _Class(NamedTuple):
    """What makes an entry one of a kind: `e & mask == value`; and which of its bits spell an address."""

    mask: int
    value: int
    address: int
    high: int
    high_shift: int


_NEVER = _Class(0, 1, 0, 0, 0)


@dataclass(frozen=True)
class TreePlan:
    """One tree as the kernels take it: by depth shift, entries, and the classes of tables and leaves."""

    tree: Tree
    tables: tuple[_Class, ...]
    leaves: tuple[_Class, ...]
    flags: tuple[int, ...]
    arrays: tuple[Words, ...]


def _class_of(regime: Regime, level: Level, wanted: EntryType) -> tuple[_Class, int]:
    """The class of entries of a type at a level, learned bit by bit from a plain one, and the flags of its layout."""
    base = next((e for e in CANDIDATES if regime.classify(level, e).type is wanted), None)
    if base is None:
        return _NEVER, 0
    plain = regime.classify(level, base)
    mask, address, high, shift = 0, 0, 0, 0
    for number in range(64):
        bit = 1 << number
        entry = regime.classify(level, base ^ bit)
        moved = entry.pa ^ plain.pa
        if entry.type is not wanted or entry.layout is not plain.layout:
            mask |= bit
        elif moved == bit:
            address |= bit
        elif moved:
            high, shift = high | bit, moved.bit_length() - bit.bit_length()
    return _Class(mask, base & mask, address, high, shift), flags_mask(plain.layout)


@per_object
def plan_of(regime: Regime, tree: Tree) -> TreePlan:
    last = len(tree.levels) - 1
    tables, leaves, flags = [], [], []
    for depth, level in enumerate(tree.levels):
        tables.append(_class_of(regime, level, EntryType.TABLE)[0] if depth < last else _NEVER)
        leaf, mask = _class_of(regime, level, EntryType.LEAF)
        leaves.append(leaf)
        flags.append(mask)
    columns = [[level.shift for level in tree.levels], [level.entries for level in tree.levels]]
    for kind in (tables, leaves):
        columns += [list(column) for column in zip(*kind, strict=True)]
    arrays = tuple(np.array(column, np.uint64) for column in columns)
    return TreePlan(tree, tuple(tables), tuple(leaves), tuple(flags), arrays)


@helper
def _address(e: Any, address: Any, high: Any, high_shift: Any) -> Any:
    return e & address | (e & high) << high_shift


@helper
def host_run(view: Any, pa: Any, count: Any) -> Any:
    """The host address of `count` words from `pa` where they lie in one piece, else 0."""
    ok, host = locate(view, _0, pa)
    end_ok, end = locate(view, _0, pa + ((count - _1) << _3))
    result = _0
    if ok and end_ok and end - host == (count - _1) << _3:
        result = host
    return result


@helper
def fetch(view: Any, pa: Any, count: Any) -> None:
    """Ask the host's cache for the table that comes next, where it lies in one piece."""
    host = host_run(view, pa, count)
    if host != _0:
        for i in range(_0, count, _LINE):
            prefetch_host(host + (i << _3))


class Items(NamedTuple):
    """What `outline` lists, in ascending order of va: tables of the last level (`depth` last) and blocks."""

    va: Words
    pa: Words  # of the table, or of the block's entry
    entry: Words  # of a block; the number of entries of a table
    both: Words  # AND of the table entries above, without their addresses
    any: Words  # OR of them
    depth: Words


class _Odd(NamedTuple):
    """Entries to put before `classify` (`entry` not 0), and places that no memory backs (`entry` 0)."""

    va: Words
    pa: Words
    entry: Words
    depth: Words


@kernel
def outline(
    view: Any,
    root: Any,
    va_start: Any,
    count: Any,
    arrays: Any,
    before: Any,
    max_tables: Any,
    items: Any,
    odd: Any,
) -> Any:
    """List the upper levels of a tree; (items, odd entries, tables read, va where the limit struck or 1).

    Counts only where the arrays of `items` and `odd` are empty.
    """
    shifts, entries, t_mask, t_value, t_address, t_high, t_high_shift, l_mask, l_value, _a, _h, _s = arrays
    levels = shifts.size
    last = levels - 1
    stack = np.zeros((6, 9), np.uint64)
    table, index, end, base, both, any_ = stack[0], stack[1], stack[2], stack[3], stack[4], stack[5]
    capacity, odd_capacity = items.va.size, odd.va.size
    n, n_odd, tables, cut = 0, 0, before, _1
    depth, entering = 0, True
    table[0], base[0], end[0], both[0] = root, va_start, count, _ALL
    while depth >= 0 and cut == _1:
        if entering:
            entering = False
            if tables == max_tables:
                cut = base[depth]
                break
            tables += _1
            index[depth] = _0
            if depth == last:
                if n < capacity:
                    items.va[n], items.pa[n], items.entry[n] = base[depth], table[depth], end[depth]
                    items.both[n], items.any[n], items.depth[n] = both[depth], any_[depth], U64(depth)
                n += 1
                depth -= 1
                continue
            if host_run(view, table[depth], end[depth]) == _0:
                backed = _0
                for k in range(end[depth]):
                    if load(view, _0, table[depth] + (U64(k) << _3))[0]:
                        backed += _1
                if backed == _0:
                    if n_odd < odd_capacity:
                        odd.va[n_odd], odd.pa[n_odd] = base[depth], table[depth]
                        odd.entry[n_odd], odd.depth[n_odd] = _0, U64(depth)
                    n_odd += 1
                    depth -= 1
                    continue
        i = index[depth]
        if i == end[depth]:
            depth -= 1
            continue
        index[depth] = i + _1
        at = table[depth] + (i << _3)
        ok, e = load(view, _0, at)
        va = base[depth] + (i << shifts[depth])
        if ok and e & t_mask[depth] == t_value[depth]:
            table[depth + 1] = _address(e, t_address[depth], t_high[depth], t_high_shift[depth])
            base[depth + 1], end[depth + 1] = va, entries[depth + 1]
            bits = e & ~(t_address[depth] | t_high[depth])
            both[depth + 1], any_[depth + 1] = both[depth] & bits, any_[depth] | bits
            depth += 1
            entering = True
        elif ok and e & l_mask[depth] == l_value[depth]:
            if n < capacity:
                items.va[n], items.pa[n], items.entry[n] = va, at, e
                items.both[n], items.any[n], items.depth[n] = both[depth], any_[depth], U64(depth)
            n += 1
        elif not ok or e & _1:
            if n_odd < odd_capacity:
                odd.va[n_odd], odd.pa[n_odd], odd.entry[n_odd], odd.depth[n_odd] = va, at, e, U64(depth)
            n_odd += 1
    return n, n_odd, tables, cut


@kernel
def emit(
    view: Any, items: Any, last: Any, shift: Any, mask: Any, value: Any, out_va: Any, out_entry: Any, counts: Any
) -> Any:
    """Write every leaf's va and entry, and how many each item has; (leaves, entries to look at again)."""
    n, odd = _0, 0
    for k in range(items.va.size):
        before = n
        va, size = items.va[k], items.entry[k]
        if items.depth[k] != last:
            out_va[n], out_entry[n] = va, size
            counts[k] = 1
            n += _1
            continue
        host = host_run(view, items.pa[k], size)
        if k + 1 < items.va.size and items.depth[k + 1] == last:
            fetch(view, items.pa[k + 1], items.entry[k + 1])
        wrong = _1
        if host != _0:
            words = carray(word_pointer(host), size)
            wrong = _0
            for i in range(size):  # present, but no leaf: a pass that vectorizes and brings the table in
                wrong |= (words[i] & mask ^ value) & (_0 - (words[i] & _1))
            if wrong == _0:
                now, page = va, _1 << shift
                for i in range(size):
                    e = words[i]
                    out_va[n], out_entry[n] = now, e
                    n += e & _1
                    now += page
        if wrong != _0:
            for i in range(size):
                ok, e = load(view, _0, items.pa[k] + (U64(i) << _3))
                out_va[n], out_entry[n] = va + (U64(i) << shift), e
                leaf = ok & (e & mask == value)
                n += U64(leaf)
                odd += (not ok) | ((e & _1 != _0) & (not leaf))
        counts[k] = n - before
    return n, odd


@kernel
def revisit(view: Any, items: Any, last: Any, shift: Any, mask: Any, value: Any, odd: Any) -> Any:
    """List the entries of last-level tables that are neither leaves nor absent; how many."""
    n = 0
    for k in range(items.va.size):
        if items.depth[k] == last:
            size, missing, begin = items.entry[k], _0, n
            for i in range(size):
                at = items.pa[k] + (U64(i) << _3)
                ok, e = load(view, _0, at)
                if not ok:
                    missing += _1
                if not ok or (e & _1 != _0 and e & mask != value):
                    odd.va[n], odd.pa[n], odd.entry[n], odd.depth[n] = items.va[k] + (U64(i) << shift), at, e, last
                    n += 1
            if missing == size:
                n = begin + 1
    return n


@kernel
def merge(view: Any, items: Any, arrays: Any, flags: Any, out: Any) -> Any:
    """Ranges of leaves alike in page size, flags and path, with va and pa going on; how many, and odd entries.

    `out` holds va, size, pa, flags and item by row of columns.
    """
    shifts, _e, _tm, _tv, _ta, _th, _ts, l_mask, l_value, l_address, l_high, l_high_shift = arrays
    last = U64(shifts.size - 1)
    n, odd = 0, 0
    start, size, first, now, item = _0, _0, _0, _0, _0
    both, any_, level = _0, _0, _ALL
    for k in range(items.va.size):
        depth = items.depth[k]
        if items.both[k] != both or items.any[k] != any_ or depth != level:
            if size != _0:
                out[0, n], out[1, n], out[2, n], out[3, n], out[4, n] = start, size, first, now, item
                n += 1
            size = _0
            both, any_, level = items.both[k], items.any[k], depth
        mask, value, keep, page = l_mask[depth], l_value[depth], flags[depth], _1 << shifts[depth]
        address, high, high_shift = l_address[depth], l_high[depth], l_high_shift[depth]
        count, host, at = _1, _0, items.pa[k]
        if depth == last:
            count = items.entry[k]
        host = host_run(view, at, count)
        if k + 1 < items.va.size and items.depth[k + 1] == last:
            fetch(view, items.pa[k + 1], items.entry[k + 1])
        va = items.va[k]
        for i in range(count):
            ok, e = host != _0, _0
            if ok:
                e = peek(host + (U64(i) << _3))
            else:
                ok, e = load(view, _0, at + (U64(i) << _3))
            if ok and e & mask == value:
                pa, found = _address(e, address, high, high_shift), e & keep
                if size != _0 and va == start + size and pa == first + size and found == now:
                    size += page
                else:
                    if size != _0:
                        out[0, n], out[1, n], out[2, n], out[3, n], out[4, n] = start, size, first, now, item
                        n += 1
                    start, size, first, now, item = va, page, pa, found, U64(k)
            elif not ok or e & _1:
                odd += 1
            va += page
    if size != _0:
        out[0, n], out[1, n], out[2, n], out[3, n], out[4, n] = start, size, first, now, item
        n += 1
    return n, odd


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


def outline_of(view: MemoryView, plan: TreePlan, tables: int, max_tables: int) -> tuple[Items, _Odd, int]:
    """The items and odd entries of one tree's upper levels, and the tables read so far."""
    tree, top = plan.tree, plan.tree.levels[0]
    first, count = top.index(tree.va_start), tree.va_end - tree.va_start >> top.shift
    where = U64(tree.root + first * tree.entry_size), U64(tree.va_start), U64(count)
    n = n_odd = 0
    for _ in range(2):  # count, then fill
        items = Items(*(np.empty(n, np.uint64) for _ in Items._fields))
        odd = _Odd(*(np.empty(n_odd, np.uint64) for _ in _Odd._fields))
        n, n_odd, read, cut = outline(view, *where, plan.arrays, U64(tables), U64(max_tables), items, odd)
        if cut != 1:
            raise SpaceLimitError(int(cut), int(read))
    return items, odd, int(read)


def _told(regime: Regime, plan: TreePlan, odd: _Odd) -> list[Broken] | None:
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
        told = _told(regime, plan, _Odd(*(np.concatenate(pair) for pair in zip(odd, more, strict=True))))
        if told is None:
            return _by_reference(words, regime, max_tables)
        broken += sorted(told, key=lambda b: b.va)
        parts.append(_Part(plan, items, counts, slice(rows, rows + len(va))))
        rows += len(va)
        found.append((va, entry))
    va, entry = (_one(column) for column in zip(*found, strict=True)) if found else (_one([]), _one([]))
    return Leaves(va, entry, broken, words, regime, parts)


def _one(parts: Sequence[Words]) -> Words:
    """The parts as one array, without a copy where only one of them holds anything."""
    full = [part for part in parts if len(part)]
    return full[0] if len(full) == 1 else np.concatenate([np.empty(0, np.uint64), *full])


def _by_reference(memory: Any, regime: Regime, max_tables: int) -> Leaves:
    """The same from the reference enumeration, for entries that the kernels do not know."""
    broken: list[Broken] = []
    rows = list(reference_leaves(memory, regime, max_tables=max_tables, report=broken.append))
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


def emit_tree(view: MemoryView, regime: Regime, tree: Tree, room: Words) -> tuple[Words, Words]:
    """va and entry of every leaf of one tree, into the two rows of `room`, which has to have space for them."""
    plan = plan_of(regime, tree)
    items, _, _ = outline_of(view, plan, 0, MAX_TABLES)
    last = len(tree.levels) - 1
    shape = U64(last), U64(tree.levels[last].shift), U64(plan.leaves[last].mask), U64(plan.leaves[last].value)
    n, _ = emit(view, items, *shape, room[0], room[1], np.zeros(len(items.va), np.int64))
    return room[0][:n], room[1][:n]


def merge_tree(view: MemoryView, regime: Regime, tree: Tree, room: Words) -> Words:
    """va, size, pa, flags and item of one tree's ranges, into the rows of `room`; paths that differ are not merged."""
    plan = plan_of(regime, tree)
    items, _, _ = outline_of(view, plan, 0, MAX_TABLES)
    n, _ = merge(view, items, plan.arrays, np.array(plan.flags, np.uint64), room)
    return room[:, :n]


def _emit(view: MemoryView, plan: TreePlan, items: Items) -> tuple[Words, Words, NDArray[np.int64], _Odd]:
    last = len(plan.tree.levels) - 1
    shape = U64(last), U64(plan.tree.levels[last].shift), U64(plan.leaves[last].mask), U64(plan.leaves[last].value)
    capacity = _room(plan, items)
    va, entry = np.empty(capacity, np.uint64), np.empty(capacity, np.uint64)
    counts = np.zeros(len(items.va), np.int64)
    n, n_odd = emit(view, items, *shape, va, entry, counts)
    odd = _Odd(*(np.empty(n_odd, np.uint64) for _ in _Odd._fields))
    if n_odd:
        n_odd = revisit(view, items, *shape, odd)
    return va[:n], entry[:n], counts, _Odd(*(column[:n_odd] for column in odd))


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
        rows, n_odd = _merge(view, plan, items)
        if (n_odd or len(odd.va)) and not _all_broken(view, regime, plan, items, odd):
            return _ranges_by_reference(words, regime, max_tables)
        columns.append(_judged(words, regime, plan, items, rows))
    if not columns:
        return _ranges_by_reference(words, regime, max_tables)
    return _joined(Ranges(*(np.concatenate(column) for column in zip(*columns, strict=True))))


def _merge(view: MemoryView, plan: TreePlan, items: Items) -> tuple[Words, int]:
    out = np.empty((5, _room(plan, items)), np.uint64)  # untouched pages cost nothing
    n, odd = merge(view, items, plan.arrays, np.array(plan.flags, np.uint64), out)
    return out[:, :n], odd


def _all_broken(view: MemoryView, regime: Regime, plan: TreePlan, items: Items, odd: _Odd) -> bool:
    more = _emit(view, plan, items)[3]
    return _told(regime, plan, _Odd(*(np.concatenate(pair) for pair in zip(odd, more, strict=True)))) is not None


def _judged(memory: Any, regime: Regime, plan: TreePlan, items: Items, rows: Words) -> tuple[Any, ...]:
    """The columns of `Ranges` for the rows of one tree."""
    va, size, pa, flags, item = rows
    depth = items.depth[item]
    counts = np.bincount(item.astype(np.intp), minlength=len(items.va))
    codes, sample = _labels(plan, items, counts, flags)
    known = np.array([int(granted(memory, regime, int(a))) for a in va[sample]], np.uint8)
    levels = np.array([level.number for level in plan.tree.levels], np.int8)
    return va, size, pa, flags, levels[depth.astype(np.intp)], known[codes]


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
