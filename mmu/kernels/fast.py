"""The fast forms of batch translation, for regimes without per-page keys or second stages.

One source for every table shape: `forms(Format)` compiles it with the shape's bit positions as constants, `Plan`
carries what depends on register values. Each form translates eight addresses at once, and walks those one by one that
want an update or fault otherwise than on an absent entry; what is rarer still (reserved bits, refused rights, blocks
that are not allowed, tables outside memory) it marks as REDO for the full-rule kernel, so that every rule of a fault is
written in one place.

- `single`: one loop, one group after the other; small tables.
- `pipelined`: the upper levels now, a prefetch of the last entries, the rest `AHEAD` walks later; tables larger than
  the host's caches.
- `cached`: pipelined, with a direct-mapped cache of last-level tables; few regions, many visits.
- `ordered`: pipelined, with the last tables remembered; ascending addresses.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from .access import locate
from .format import Format
from .host import peek, poke, unlikely
from .jit import helper, kernel
from .lanes import EVERY, gather, peek_lanes, pick, poke_lanes, prefetch_lanes, scatter, scratch, spread, streamed
from .steps import AHEAD, arrays_at, descend_lanes, enter, entry_at, leaf_lanes, put, region, rest, take

U64 = np.uint64
CACHE_SLOTS = 1024
_TABS, _PLACES, _OKS = U64(8 * AHEAD), U64(16 * AHEAD), U64(24 * AHEAD)  # bytes from the ring's first row to the others
_TABLES, _BITS = U64(8 * CACHE_SLOTS), U64(16 * CACHE_SLOTS)  # the same for the cache's
_AHEAD, _RING = U64(AHEAD), U64(AHEAD - 1)
_SLOTS = U64(CACHE_SLOTS - 1)
_0, _1, _3, _7, _8 = U64(0), U64(1), U64(3), U64(7), U64(8)
_EVERY, _NONE = U64(EVERY), U64(0xFFFF_FFFF_FFFF_FFFF)
_KINDS = U64(0xFF00_0000)  # the fault kind in an info word: no kind has all bits set, nor do several together


class Forms(NamedTuple):
    """The compiled forms of one format, all `(view, plan, vas, pa, info) -> whether any info is REDO`."""

    single: Callable[..., bool]
    pipelined: Callable[..., bool]
    cached: Callable[..., bool]
    ordered: Callable[..., bool]


@helper
def _partial(n: Any, k: Any) -> Any:
    """The lanes among eight numbers from `k` that lie below `n`."""
    todo = _EVERY
    if n - k < _8:
        todo = (_1 << (n - k)) - _1
    return todo


@helper
def _slot(f: Any, keys: Any, v: Any) -> Any:
    """Where the cache keeps the region of `v`."""
    return keys + ((v >> (f.page_shift + f.stride) & _SLOTS) << _3)


@helper
def _begin(f: Any, view: Any, v: Any, found: Any, ring: Any, k: Any) -> None:
    """Ask for the entries that eight walks end at, and leave in the ring what `_end` needs to know."""
    ok, table, tab, ended, where, place = found
    inside, host = locate(view, _0, entry_at(f, table, v, f.page_shift))
    host = pick(ended, where, host)
    prefetch_lanes(host)
    slot = ring + ((k & _RING) << _3)
    poke_lanes(slot, host)
    poke_lanes(slot + _TABS, tab)
    poke_lanes(slot + _PLACES, place)
    poke(slot + _OKS, ok & inside | ended)
    poke(slot + _OKS + _8, ended)


@helper
def _end(f: Any, plan: Any, arrays: Any, ring: Any, k: Any) -> Any:
    """Finish the eight walks from number `k`, begun `AHEAD` walks ago; the lanes left to do."""
    slot = ring + ((k & _RING) << _3)
    ok, ended = peek(slot + _OKS), peek(slot + _OKS + _8)
    e, tab, place = gather(peek_lanes(slot), ok), peek_lanes(slot + _TABS), peek_lanes(slot + _PLACES)
    info, pa, done = leaf_lanes(f, plan, peek_lanes(arrays[0] + (k << _3)), ok, ended, e, tab, place)
    put(arrays, k, pa, info)
    return _EVERY ^ done


@functools.cache
def forms(shape: Format) -> Forms:
    """Build the forms of a shape; each compiles on its first call and is cached on disk."""
    f = shape

    @kernel
    def single(view: Any, plan: Any, vas: Any, pas: Any, infos: Any) -> Any:
        arrays, n, seen = arrays_at(vas, pas, infos), U64(vas.size), _0
        for k in range(_0, n, _8):
            todo = _partial(n, k)
            if todo == _EVERY:
                va = take(arrays, k)
                _, outside, v, root = enter(f, plan, va)
                ok, table, tab, ended, where, place = descend_lanes(f, view, plan, v, root, outside == _0)
                inside, host = locate(view, _0, entry_at(f, table, v, f.page_shift))
                ok = ok & inside | ended
                e = gather(pick(ended, where, host), ok)
                info, pa, done = leaf_lanes(f, plan, va, ok, ended, e, tab, place)
                put(arrays, k, pa, info)
                todo = _EVERY ^ done
            seen |= rest(f, view, plan, arrays, k, todo)
        streamed()
        return seen & _KINDS == _KINDS

    @kernel
    def pipelined(view: Any, plan: Any, vas: Any, pas: Any, infos: Any) -> Any:
        arrays, n, seen = arrays_at(vas, pas, infos), U64(vas.size), _0
        ring = scratch(4, AHEAD)
        for k in range(_0, n + _AHEAD, _8):
            if k >= _AHEAD:
                begun = k - _AHEAD
                todo = _partial(n, begun)
                if todo == _EVERY:
                    todo = _end(f, plan, arrays, ring, begun)
                seen |= rest(f, view, plan, arrays, begun, todo)
            if k + _8 <= n:
                _, outside, v, root = enter(f, plan, take(arrays, k))
                _begin(f, view, v, descend_lanes(f, view, plan, v, root, outside == _0), ring, k)
        streamed()
        return seen & _KINDS == _KINDS

    @kernel
    def cached(view: Any, plan: Any, vas: Any, pas: Any, infos: Any) -> Any:
        arrays, n, seen = arrays_at(vas, pas, infos), U64(vas.size), _0
        ring, keys = scratch(4, AHEAD), scratch(3, CACHE_SLOTS)
        for slot in range(_0, _TABLES, _8):
            poke(keys + slot, _NONE)
        for k in range(_0, n + _AHEAD, _8):
            if k >= _AHEAD:
                begun = k - _AHEAD
                todo = _partial(n, begun)
                if todo == _EVERY:
                    todo = _end(f, plan, arrays, ring, begun)
                    if unlikely(todo != _0):  # tables that an update may have changed
                        v = enter(f, plan, peek_lanes(arrays[0] + (begun << _3)))[2]
                        scatter(_slot(f, keys, v), spread(_NONE), todo)
                seen |= rest(f, view, plan, arrays, begun, todo)
            if k + _8 <= n:
                half, outside, v, root = enter(f, plan, take(arrays, k))
                key, line, ok = region(f, v, half), _slot(f, keys, v), outside == _0
                table, tab = gather(line + _TABLES, _EVERY), gather(line + _BITS, _EVERY)
                found = ok, table, tab, _0, v, v
                if unlikely((gather(line, _EVERY) != key) != _0):
                    found = descend_lanes(f, view, plan, v, root, ok)
                    scatter(line, key, found[0])
                    scatter(line + _TABLES, found[1], found[0])
                    scatter(line + _BITS, found[2], found[0])
                _begin(f, view, v, found, ring, k)
        streamed()
        return seen & _KINDS == _KINDS

    @kernel
    def ordered(view: Any, plan: Any, vas: Any, pas: Any, infos: Any) -> Any:
        arrays, n, seen = arrays_at(vas, pas, infos), U64(vas.size), _0
        ring = scratch(4, AHEAD)
        last = table = tab = spread(_NONE)
        for k in range(_0, n + _AHEAD, _8):
            if k >= _AHEAD:
                begun = k - _AHEAD
                todo = _partial(n, begun)
                if todo == _EVERY:
                    todo = _end(f, plan, arrays, ring, begun)
                    if unlikely(todo != _0):
                        last = spread(_NONE)
                seen |= rest(f, view, plan, arrays, begun, todo)
            if k + _8 <= n:
                half, outside, v, root = enter(f, plan, take(arrays, k))
                key, ok = region(f, v, half), outside == _0
                found = ok, table, tab, _0, v, v
                if unlikely((key != last) != _0):
                    found = descend_lanes(f, view, plan, v, root, ok)
                    table, tab, last = found[1], found[2], pick(found[0], key, _NONE)
                _begin(f, view, v, found, ring, k)
        streamed()
        return seen & _KINDS == _KINDS

    return Forms(single, pipelined, cached, ordered)
