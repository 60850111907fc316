"""The steps of a walk by plan, for one address or for eight at once: `f` is a `Format`, `plan` a `Plan`.

All are helpers, always inlined, one exit each; `f` is a constant of the compiled form. Where a step is said to take a
word it takes `Lanes` too unless it ends in `_one` or `_lanes`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .access import change_bits, load, locate
from .host import peek, poke, prefetch_once, unlikely
from .jit import helper, outlined
from .lanes import EVERY, address_of, first_lane, gather, peek_lanes, pick, poke_lanes, stream_lanes

U64 = np.uint64
REDO = U64(0xFFFF_FFFF_FFFF_FFFF)
_0, _1, _2, _3, _4, _8, _BYTE = U64(0), U64(1), U64(2), U64(3), U64(4), U64(8), U64(255)
_EVERY, _LINE = U64(EVERY), U64(63)
AHEAD = 64  # walks between an entry's prefetch and its use, and from an address to that whose line is asked for
MANY = 1 << 16  # walks whose results are more than the host's nearer caches should hold
_NEXT = U64(8 * AHEAD)


@helper
def at(array: Any, index: Any) -> Any:
    """The word at an index of an array whose host address is given."""
    return peek(array + (index << _3))


@helper
def address(f: Any, e: Any) -> Any:
    """The output address bits of an entry."""
    return e & f.address | (e & f.high) << f.high_shift


@helper
def entry_at(f: Any, table: Any, v: Any, shift: Any) -> Any:
    """The physical address of the entry for `v` in a table."""
    return table + ((v >> shift & ((_1 << f.stride) - _1)) << _3)


@helper
def region(f: Any, v: Any, half: Any) -> Any:
    """The number of the region that one last-level table maps."""
    return v >> (f.page_shift + f.stride) << _1 | half


@helper
def depth_of(f: Any, shift: Any) -> Any:
    return (f.top_shift - shift) // f.stride


@helper
def enter(f: Any, plan: Any, va: Any) -> Any:
    """(half, wrong upper bits, translated bits, root) of an address."""
    half = va >> f.half_bit & _1
    upper = half & f.split != _0
    root = pick(upper, plan.root_up, plan.root)
    v = va & pick(upper, plan.inside_up, plan.inside)
    if f.inside != _0:
        v = va & f.inside
    outside = (va ^ (_0 - half)) & pick(upper, plan.outside_up, plan.outside)
    if f.outside != _0:
        outside = (va ^ (_0 - half)) & f.outside
    return half, outside, v, root


@helper
def descend_one(f: Any, view: Any, plan: Any, v: Any, root: Any) -> Any:
    """Down the table entries from the root: (ok, shift, table, entry that is no table, OR of the flipped tables)."""
    table, shift, tab, e, ok = root, f.top_shift, _0, _0, True
    while shift != f.page_shift:
        ok, e = load(view, _0, entry_at(f, table, v, shift))
        if unlikely(not ok or e & plan.table_mask != plan.table_value):
            break
        tab |= e ^ f.table_flip
        table = address(f, e)
        shift -= f.stride
    return ok, shift, table, e, tab


@helper
def descend_lanes(f: Any, view: Any, plan: Any, v: Any, root: Any, ok: Any) -> Any:
    """The same for lanes: (lanes at the last level, tables, OR of the flipped tables, and for lanes that ended above:
    which they are, the host addresses of their entries, `depth << 8 | shift`)."""
    table, tab, shift, depth = root, v & _0, f.top_shift, _0
    ended, where, place = _0, v, (v & _0) | f.page_shift | depth_of(f, f.page_shift) << _8
    while shift != f.page_shift:
        inside, host = locate(view, _0, entry_at(f, table, v, shift))
        ok &= inside
        e = gather(host, ok)
        further = ok & (e & plan.table_mask == plan.table_value)
        if unlikely(further != ok):
            end = ok & ~further
            where, place, ended = pick(end, host, where), pick(end, depth << _8 | shift, place), ended | end
        ok = further
        tab = pick(ok, tab | (e ^ f.table_flip), tab)
        table = address(f, e)
        shift -= f.stride
        depth += _1
    return ok, table, tab, ended, where, place


@helper
def answer(f: Any, plan: Any, va: Any, e: Any, tab: Any, depth: Any, shift: Any) -> Any:
    """(info, pa, update wanted) of a well-formed leaf; info 0 where the access is refused."""
    leaf = e ^ f.leaf_flip
    used = tab & (plan.fold | f.fold)
    plain, up = leaf, f.up_mask << _2
    if f.modifier_mask and plan.modifier:
        plain = leaf & ~((leaf >> f.modifier_shift & _1) << f.modified_shift)
    rights = plain >> f.low_shift & _3 | plain >> (f.up_shift - _2) & up
    rights = rights | used >> f.table_low_shift & _3 | used >> (f.table_up_shift - _2) & up
    info = at(plan.lut, rights | depth << _4)
    low = pick(e & f.contiguous != _0, at(plan.group, depth), (_1 << shift) - _1)
    return info, address(f, e) & ~low | va & low, leaf & plan.need_leaf | used & plan.need_table


@helper
def page_one(f: Any, plan: Any, va: Any, ok: Any, e: Any, tab: Any) -> Any:
    """(info, pa, update wanted) of an entry of the last level."""
    depth = depth_of(f, f.page_shift)
    info, pa, update = answer(f, plan, va, e, tab, depth, f.page_shift)
    if unlikely(not ok or e & plan.page_mask != plan.page_value or info == _0):
        update, pa, info = _0, _0, REDO
        if ok and e & _1 == _0:
            info = at(plan.none_info, depth)
    return info, pa, update


@helper
def _leaf_lanes(
    f: Any, plan: Any, va: Any, ok: Any, e: Any, tab: Any, depth: Any, shift: Any, mask: Any, value: Any
) -> Any:
    """(info, pa, lanes answered) of entries that are no tables; where an update is wanted no lane is."""
    info, pa, update = answer(f, plan, va, e, tab, depth, shift)
    good = ok & (e & mask == value) & (info != _0)
    none = ok & (e & _1 == _0)
    return pick(none, at(plan.none_info, depth), info), pick(good, pa, _0), none | good & (update == _0)


@helper
def leaf_lanes(f: Any, plan: Any, va: Any, ok: Any, ended: Any, e: Any, tab: Any, place: Any) -> Any:
    """The same, of the last level but for the lanes of `ended`, whose `depth << 8 | shift` is in `place`."""
    if unlikely(ended != _0):
        depth = place >> _8
        mask, value = at(plan.block_mask, depth), at(plan.block_value, depth)
        info, pa, done = _leaf_lanes(f, plan, va, ok, e, tab, depth, place & _BYTE, mask, value)
    else:
        last = depth_of(f, f.page_shift)
        info, pa, done = _leaf_lanes(f, plan, va, ok, e, tab, last, f.page_shift, plan.page_mask, plan.page_value)
    return info, pa, done


@helper
def block_one(f: Any, plan: Any, va: Any, ok: Any, e: Any, tab: Any, shift: Any) -> Any:
    """(info, pa, update wanted) of an entry above the last level that is no table."""
    depth = depth_of(f, shift)
    info, pa, update = answer(f, plan, va, e, tab, depth, shift)
    if not ok or e & at(plan.block_mask, depth) != at(plan.block_value, depth) or info == _0:
        update, pa, info = _0, _0, REDO
        if ok and e & _1 == _0:
            info = at(plan.none_info, depth)
    return info, pa, update


@outlined
def write_back(f: Any, view: Any, plan: Any, v: Any, root: Any) -> None:
    """Write back what the walk of `v`, which is known to succeed, makes of its entries."""
    table, shift = root, f.top_shift
    while True:
        where = entry_at(f, table, v, shift)
        e = load(view, _0, where)[1]
        if shift == f.page_shift or e & plan.table_mask != plan.table_value:
            break
        if (e ^ f.table_flip) & plan.need_table:
            change_bits(view, _0, where, plan.set_table, _0)
        table = address(f, e)
        shift -= f.stride
    if (e ^ f.leaf_flip) & plan.need_leaf:
        change_bits(view, _0, where, plan.set_leaf, plan.clear_leaf)


@helper
def walk_one(f: Any, view: Any, plan: Any, va: Any) -> Any:
    """(pa, info) of a whole walk, written back; info REDO where only the full rules will do."""
    half, outside, v, root = enter(f, plan, va)
    pa, info = _0, at(plan.range_info, half)
    if not unlikely(outside != _0):
        ok, shift, table, e, tab = descend_one(f, view, plan, v, root)
        if shift == f.page_shift:
            ok, e = load(view, _0, entry_at(f, table, v, shift))
            info, pa, update = page_one(f, plan, va, ok, e, tab)
        else:
            info, pa, update = block_one(f, plan, va, ok, e, tab, shift)
        if unlikely(update != _0):
            write_back(f, view, plan, v, root)
    return pa, info


@helper
def arrays_at(vas: Any, pas: Any, infos: Any) -> Any:
    """The host addresses of the arrays that a form reads and fills, and whether results pass the caches."""
    pa, info = address_of(pas), address_of(infos)
    return address_of(vas), pa, info, vas.size >= MANY and (pa | info) & _LINE == _0


@helper
def take(arrays: Any, k: Any) -> Any:
    """The eight addresses from number `k`; asks for those that come `AHEAD` later."""
    where = arrays[0] + (k << _3)
    prefetch_once(where + _NEXT)
    return peek_lanes(where)


@helper
def put(arrays: Any, k: Any, pa: Any, info: Any) -> None:
    """Store the results of eight walks from number `k`."""
    _, pas, infos, stream = arrays
    where = k << _3
    if stream:
        stream_lanes(pas + where, pa)
        stream_lanes(infos + where, info)
    else:
        poke_lanes(pas + where, pa)
        poke_lanes(infos + where, info)


@helper
def rest(f: Any, view: Any, plan: Any, arrays: Any, k: Any, todo: Any) -> Any:
    """Walk the lanes of `todo` among the eight addresses from number `k` one by one; OR of their info words."""
    vas, pas, infos, _ = arrays
    seen = _0
    while unlikely(todo != _0):
        where = k + first_lane(todo) << _3
        pa, info = walk_one(f, view, plan, peek(vas + where))
        poke(pas + where, pa)
        poke(infos + where, info)
        seen |= info
        todo &= todo - _1
    return seen
