"""The upper levels of an address space: what each kind of entry looks like, and the tables that a walk comes to.

`outline` goes down the upper levels depth first and lists what it meets in ascending order: last-level tables and
blocks. What the hardware makes of an entry is learned from `regime.classify`; entries that are not plainly a table, a
leaf or absent are listed as odd, to be put before it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..regime import EntryType, Regime, Tree
from ..spaces import SpaceLimitError, flags_mask
from ..walk import Level
from .access import load, locate
from .batch import LINE
from .host import prefetch_host
from .jit import helper, kernel, per_object
from .views import MemoryView

U64 = np.uint64
Words = NDArray[np.uint64]
CANDIDATES = (1, 3, 0x81)  # plain entries: a valid bit, with the type bits of either architecture
_LINE = U64(LINE)
_0, _1, _3, _ALL = U64(0), U64(1), U64(3), U64(0xFFFF_FFFF_FFFF_FFFF)


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
def output_address(e: Any, address: Any, high: Any, high_shift: Any) -> Any:
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


class Odd(NamedTuple):
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
            table[depth + 1] = output_address(e, t_address[depth], t_high[depth], t_high_shift[depth])
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


def outline_of(view: MemoryView, plan: TreePlan, tables: int, max_tables: int) -> tuple[Items, Odd, int]:
    """The items and odd entries of one tree's upper levels, and the tables read so far."""
    tree, top = plan.tree, plan.tree.levels[0]
    first, count = top.index(tree.va_start), tree.va_end - tree.va_start >> top.shift
    where = U64(tree.root + first * tree.entry_size), U64(tree.va_start), U64(count)
    n = n_odd = 0
    for _ in range(2):  # count, then fill
        items = Items(*(np.empty(n, np.uint64) for _ in Items._fields))
        odd = Odd(*(np.empty(n_odd, np.uint64) for _ in Odd._fields))
        n, n_odd, read, cut = outline(view, *where, plan.arrays, U64(tables), U64(max_tables), items, odd)
        if cut != 1:
            raise SpaceLimitError(int(cut), int(read))
    return items, odd, int(read)
