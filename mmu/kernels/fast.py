"""The fast forms of batch translation, for regimes without per-page keys or second stages.

One source for every table shape: `forms(Format)` compiles it with the shape's bit positions as constants, `Plan`
carries what depends on register values. Each form translates what succeeds, answers not-present entries and addresses
out of range itself, and marks everything rarer (reserved bits, refused rights, blocks that are not allowed, tables
outside memory) as REDO for the full-rule kernel, so that every rule of a fault is written in one place.

- `scalar`: one loop, one walk after the other; small tables.
- `pipelined`: the upper levels now, a prefetch of the last entry, the rest `DISTANCE` walks later; tables larger than
  the host's caches.
- `cached`: pipelined, with a direct-mapped cache of last-level tables; few regions, many visits.
- `ordered`: scalar with the last table remembered; ascending addresses.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .jit import helper, kernel, outlined
from .views import change_bits, load, locate, peek, prefetch_host, unlikely

U64 = np.uint64
REDO = U64(0xFFFF_FFFF_FFFF_FFFF)
DISTANCE = 16
CACHE_SLOTS = 1024
LUT_ROW = 16
_RING = U64(DISTANCE - 1)
_SLOTS = U64(CACHE_SLOTS - 1)
_0, _1, _2, _3, _4 = U64(0), U64(1), U64(2), U64(3), U64(4)
_NONE = U64(0xFFFF_FFFF_FFFF_FFFF)
_KINDS = U64(0xFF00_0000)  # the fault kind in an info word


class Format(NamedTuple):
    """The shape of a table tree; masks and shifts are read back from arch/, all uint64.

    Rights are an index into
    `Plan.lut` that is OR-ed together from the leaf `(leaf ^ leaf_flip)` and from all tables `(t ^ table_flip)`,
    two bits at two places each.
    """

    page_shift: Any
    stride: Any
    top_shift: Any
    half_bit: Any
    address: Any  # address bits in place
    high: Any  # address bits that lie elsewhere in the entry ...
    high_shift: Any  # ... and how far up they belong
    leaf_flip: Any
    table_flip: Any
    low_shift: Any  # where the rights index takes bits 1:0 from a leaf ...
    up_shift: Any  # ... and bits 3:2 ...
    up_mask: Any
    table_low_shift: Any  # ... and both from the tables
    table_up_shift: Any
    fold: Any  # the table bits that count whatever the plan says
    split: Any  # 1 where the halves of the address space have roots of their own
    inside: Any  # the address bits that the tables of either half translate, 0 where the plan tells by half
    contiguous: Any
    modifier_mask: Any  # 1 where a leaf bit (at modifier_shift) lifts another (at modified_shift): DBM
    modifier_shift: Any
    modified_shift: Any


class PlanFields(NamedTuple):
    """One regime and one access: what depends on register values, all uint64.

    An entry that a form may follow satisfies `e & mask == value`. The first six are host addresses of arrays of words,
    indexed by `half` of the address space or by `depth` from the root.
    """

    range_info: Any  # [half]: the info word of an address outside
    none_info: Any  # [depth]: the info word of a not-present entry
    lut: Any  # [depth, LUT_ROW]: the info word of a success, 0 where refused
    block_mask: Any  # [depth]
    block_value: Any  # [depth]
    group: Any  # [depth]: address bits below a contiguous group
    root: Any  # of the lower half
    root_up: Any  # of the upper half
    inside: Any  # the address bits that the lower half's tables translate
    inside_up: Any
    outside: Any  # the address bits that have to equal the half's bit
    outside_up: Any
    table_mask: Any
    table_value: Any
    page_mask: Any
    page_value: Any
    fold: Any  # the bits of table entries that count
    need_leaf: Any  # bits of the flipped leaf that ask for an update
    need_table: Any  # the same for the flipped tables
    modifier: Any  # 1 where the leaf's modifier bit counts
    set_leaf: Any  # what an update sets in the leaf
    clear_leaf: Any  # and what it clears there
    set_table: Any  # what an update sets in each table entry


class Plan(PlanFields):
    """A plan that keeps its arrays alive."""

    keep: Sequence[NDArray[np.uint64]]


class Forms(NamedTuple):
    """The compiled forms of one format, all `(view, plan, vas, pa, info) -> whether any info is REDO`."""

    scalar: Callable[..., bool]
    pipelined: Callable[..., bool]
    cached: Callable[..., bool]
    ordered: Callable[..., bool]


# Helpers: always inlined, one exit each; `f` is a compile-time constant in every form.


@helper
def _at(array: Any, index: Any) -> Any:
    return peek(array + (index << _3))


@helper
def _address(f: Any, e: Any) -> Any:
    """The output address bits of an entry."""
    return e & f.address | (e & f.high) << f.high_shift


@helper
def _enter(f: Any, plan: Any, va: Any) -> Any:
    """(half, wrong upper bits, translated bits, root) of an address."""
    half = va >> f.half_bit & _1
    root, inside, outside = plan.root, plan.inside, plan.outside
    if f.split and half:
        root, inside, outside = plan.root_up, plan.inside_up, plan.outside_up
    if f.inside != _0:
        inside = f.inside
    return half, (va ^ (_0 - half)) & outside, va & inside, root


@helper
def _descend(f: Any, view: Any, plan: Any, v: Any, root: Any) -> Any:
    """Down the table entries from the root: (ok, shift, table, entry that is no table, OR of the flipped tables)."""
    index = (_1 << f.stride) - _1
    table, shift, tab, e, ok = root, f.top_shift, _0, _0, True
    while shift != f.page_shift:
        ok, e = load(view, _0, table + ((v >> shift & index) << _3))
        if unlikely(not ok or e & plan.table_mask != plan.table_value):
            break
        tab |= e ^ f.table_flip
        table = _address(f, e)
        shift -= f.stride
    return ok, shift, table, e, tab


@helper
def _depth(f: Any, shift: Any) -> Any:
    return (f.top_shift - shift) // f.stride


@helper
def _answer(f: Any, plan: Any, va: Any, e: Any, tab: Any, depth: Any, shift: Any) -> Any:
    """(info, pa, update wanted) of a well-formed leaf; info 0 where the access is refused."""
    leaf = e ^ f.leaf_flip
    used = tab & (plan.fold | f.fold)
    plain, up = leaf, f.up_mask << _2
    if f.modifier_mask and plan.modifier:
        plain = leaf & ~((leaf >> f.modifier_shift & _1) << f.modified_shift)
    rights = plain >> f.low_shift & _3 | plain >> (f.up_shift - _2) & up
    rights |= used >> f.table_low_shift & _3 | used >> (f.table_up_shift - _2) & up
    info = _at(plan.lut, depth << _4 | rights)
    low = (_1 << shift) - _1
    if e & f.contiguous:
        low = _at(plan.group, depth)
    return info, _address(f, e) & ~low | va & low, leaf & plan.need_leaf | used & plan.need_table


@helper
def _page(f: Any, plan: Any, va: Any, ok: Any, e: Any, tab: Any) -> Any:
    """(info, pa, update wanted) of an entry of the last level."""
    depth = _depth(f, f.page_shift)
    info, pa, update = _answer(f, plan, va, e, tab, depth, f.page_shift)
    if unlikely(not ok or e & plan.page_mask != plan.page_value or info == _0):
        update, pa, info = _0, _0, REDO
        if ok and e & _1 == _0:
            info = _at(plan.none_info, depth)
    return info, pa, update


@helper
def _block(f: Any, plan: Any, va: Any, ok: Any, e: Any, tab: Any, shift: Any) -> Any:
    """(info, pa, update wanted) of an entry above the last level that is no table."""
    depth = _depth(f, shift)
    info, pa, update = _answer(f, plan, va, e, tab, depth, shift)
    if not ok or e & _at(plan.block_mask, depth) != _at(plan.block_value, depth) or info == _0:
        update, pa, info = _0, _0, REDO
        if ok and e & _1 == _0:
            info = _at(plan.none_info, depth)
    return info, pa, update


@outlined
def _update(f: Any, view: Any, plan: Any, v: Any, root: Any) -> None:
    """Write back what the walk of `v`, which is known to succeed, makes of its entries."""
    index = (_1 << f.stride) - _1
    table, shift = root, f.top_shift
    while True:
        at = table + ((v >> shift & index) << _3)
        e = load(view, _0, at)[1]
        if shift == f.page_shift or e & plan.table_mask != plan.table_value:
            break
        if (e ^ f.table_flip) & plan.need_table:
            change_bits(view, _0, at, plan.set_table, _0)
        table = _address(f, e)
        shift -= f.stride
    if (e ^ f.leaf_flip) & plan.need_leaf:
        change_bits(view, _0, at, plan.set_leaf, plan.clear_leaf)


@functools.cache
def forms(shape: Format) -> Forms:
    """Build the forms of a shape; each compiles on its first call and is cached on disk."""
    f = shape

    @kernel
    def scalar(view: Any, plan: Any, vas: Any, pas: Any, infos: Any) -> Any:
        seen = _0
        for k in range(vas.size):
            va = vas[k]
            half, outside, v, root = _enter(f, plan, va)
            pa, info = _0, _at(plan.range_info, half)
            if not unlikely(outside != _0):
                ok, shift, table, e, tab = _descend(f, view, plan, v, root)
                if shift == f.page_shift:
                    index = (_1 << f.stride) - _1
                    ok, e = load(view, _0, table + ((v >> shift & index) << _3))
                    info, pa, update = _page(f, plan, va, ok, e, tab)
                else:
                    info, pa, update = _block(f, plan, va, ok, e, tab, shift)
                if unlikely(update != _0):
                    _update(f, view, plan, v, root)
            pas[k], infos[k] = pa, info
            seen |= info
        return seen & _KINDS == _KINDS  # no fault kind has all bits set, nor do several together

    @kernel
    def pipelined(view: Any, plan: Any, vas: Any, pas: Any, infos: Any) -> Any:
        seen, n = _0, vas.size
        hosts, tabs = np.zeros(DISTANCE, np.uint64), np.zeros(DISTANCE, np.uint64)
        index = (_1 << f.stride) - _1
        for k in range(n + DISTANCE):
            slot = U64(k) & _RING
            where = hosts[slot]
            if where != _0:
                j = k - DISTANCE
                va = vas[j]
                info, pa, update = _page(f, plan, va, True, peek(where), tabs[slot])
                if unlikely(update != _0):
                    half, outside, v, root = _enter(f, plan, va)
                    _update(f, view, plan, v, root)
                pas[j], infos[j] = pa, info
                seen |= info
            where = _0
            if k < n:
                va = vas[k]
                half, outside, v, root = _enter(f, plan, va)
                pa, info = _0, _at(plan.range_info, half)
                if not unlikely(outside != _0):
                    ok, shift, table, e, tab = _descend(f, view, plan, v, root)
                    if shift == f.page_shift:
                        ok, where = locate(view, _0, table + ((v >> shift & index) << _3))
                        if ok:
                            prefetch_host(where)
                            tabs[slot] = tab
                        else:
                            where, info = _0, REDO
                    else:
                        info, pa, update = _block(f, plan, va, ok, e, tab, shift)
                        if unlikely(update != _0):
                            _update(f, view, plan, v, root)
                if where == _0:
                    pas[k], infos[k] = pa, info
                    seen |= info
            hosts[slot] = where
        return seen & _KINDS == _KINDS  # no fault kind has all bits set, nor do several together

    @kernel
    def cached(view: Any, plan: Any, vas: Any, pas: Any, infos: Any) -> Any:
        seen, n = _0, vas.size
        hosts, tabs = np.zeros(DISTANCE, np.uint64), np.zeros(DISTANCE, np.uint64)
        keys = np.full(CACHE_SLOTS, _NONE, np.uint64)
        known, known_tabs = np.zeros(CACHE_SLOTS, np.uint64), np.zeros(CACHE_SLOTS, np.uint64)
        index = (_1 << f.stride) - _1
        for k in range(n + DISTANCE):
            slot = U64(k) & _RING
            where = hosts[slot]
            if where != _0:
                j = k - DISTANCE
                va = vas[j]
                info, pa, update = _page(f, plan, va, True, peek(where), tabs[slot])
                if unlikely(update != _0):
                    half, outside, v, root = _enter(f, plan, va)
                    _update(f, view, plan, v, root)
                    keys[v >> (f.page_shift + f.stride) & _SLOTS] = _NONE
                pas[j], infos[j] = pa, info
                seen |= info
            where = _0
            if k < n:
                va = vas[k]
                half, outside, v, root = _enter(f, plan, va)
                pa, info = _0, _at(plan.range_info, half)
                if not unlikely(outside != _0):
                    key = v >> (f.page_shift + f.stride) << _1 | half
                    place = (key >> _1) & _SLOTS
                    ok, shift, table, e, tab = True, f.page_shift, known[place], _0, known_tabs[place]
                    if keys[place] != key:
                        ok, shift, table, e, tab = _descend(f, view, plan, v, root)
                        if shift == f.page_shift:
                            keys[place], known[place], known_tabs[place] = key, table, tab
                    if shift == f.page_shift:
                        ok, where = locate(view, _0, table + ((v >> shift & index) << _3))
                        if ok:
                            prefetch_host(where)
                            tabs[slot] = tab
                        else:
                            where, info = _0, REDO
                    else:
                        info, pa, update = _block(f, plan, va, ok, e, tab, shift)
                        if unlikely(update != _0):
                            _update(f, view, plan, v, root)
                if where == _0:
                    pas[k], infos[k] = pa, info
                    seen |= info
            hosts[slot] = where
        return seen & _KINDS == _KINDS  # no fault kind has all bits set, nor do several together

    @kernel
    def ordered(view: Any, plan: Any, vas: Any, pas: Any, infos: Any) -> Any:
        seen = _0
        index = (_1 << f.stride) - _1
        last, table, tab = _NONE, _0, _0
        for k in range(vas.size):
            va = vas[k]
            half, outside, v, root = _enter(f, plan, va)
            pa, info = _0, _at(plan.range_info, half)
            if not unlikely(outside != _0):
                key = v >> (f.page_shift + f.stride) << _1 | half
                ok, shift, e = True, f.page_shift, _0
                if key != last:
                    ok, shift, table, e, tab = _descend(f, view, plan, v, root)
                    last = key if shift == f.page_shift else _NONE
                if shift == f.page_shift:
                    ok, e = load(view, _0, table + ((v >> shift & index) << _3))
                    info, pa, update = _page(f, plan, va, ok, e, tab)
                    if unlikely(update != _0):
                        tab &= ~plan.need_table
                else:
                    info, pa, update = _block(f, plan, va, ok, e, tab, shift)
                if unlikely(update != _0):
                    _update(f, view, plan, v, root)
                if unlikely(info == REDO):
                    seen = REDO
            pas[k], infos[k] = pa, info
        return seen & _KINDS == _KINDS  # no fault kind has all bits set, nor do several together

    return Forms(scalar, pipelined, cached, ordered)
