"""The fast forms of batch translation, for regimes without per-page keys or second stages.

One source for every table shape: `forms(Format)` compiles it with the shape's bit positions as constants, `Plan`
carries what depends on register values. Each form translates eight addresses at once where they end in an entry of the
last level, and walks those that do not one by one; what is rarer still (reserved bits, refused rights, blocks that are
not allowed, tables outside memory) it marks as REDO for the full-rule kernel, so that every rule of a fault is written
in one place.

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
from .steps import AHEAD, arrays_at, descend_lanes, enter, entry_at, page_lanes, put, region, rest, take

U64 = np.uint64
CACHE_SLOTS = 1024
_TABS, _OKS = U64(8 * AHEAD), U64(16 * AHEAD)  # bytes from the ring's first row to the others
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
def _begin(f: Any, view: Any, v: Any, ok: Any, table: Any, tab: Any, ring: Any, k: Any) -> None:
    """Ask for the last entries of eight walks and leave (entries, tables' bits, lanes) in the ring."""
    inside, host = locate(view, _0, entry_at(f, table, v, f.page_shift))
    prefetch_lanes(host)
    slot = ring + ((k & _RING) << _3)
    poke_lanes(slot, host)
    poke_lanes(slot + _TABS, tab)
    poke(slot + _OKS, ok & inside)


@helper
def _end(f: Any, plan: Any, arrays: Any, ring: Any, k: Any) -> Any:
    """Finish the eight walks from number `k`, begun `AHEAD` walks ago; the lanes left to do."""
    slot = ring + ((k & _RING) << _3)
    ok = peek(slot + _OKS)
    e, tab = gather(peek_lanes(slot), ok), peek_lanes(slot + _TABS)
    info, pa, done = page_lanes(f, plan, peek_lanes(arrays[0] + (k << _3)), ok, e, tab)
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
                ok, table, tab = descend_lanes(f, view, plan, v, root, outside == _0)
                inside, host = locate(view, _0, entry_at(f, table, v, f.page_shift))
                ok &= inside
                info, pa, done = page_lanes(f, plan, va, ok, gather(host, ok), tab)
                put(arrays, k, pa, info)
                todo = _EVERY ^ done
            seen |= rest(f, view, plan, arrays, k, todo)
        streamed()
        return seen & _KINDS == _KINDS

    @kernel
    def pipelined(view: Any, plan: Any, vas: Any, pas: Any, infos: Any) -> Any:
        arrays, n, seen = arrays_at(vas, pas, infos), U64(vas.size), _0
        ring = scratch(3, AHEAD)
        for k in range(_0, n + _AHEAD, _8):
            if k >= _AHEAD:
                begun = k - _AHEAD
                todo = _partial(n, begun)
                if todo == _EVERY:
                    todo = _end(f, plan, arrays, ring, begun)
                seen |= rest(f, view, plan, arrays, begun, todo)
            if k + _8 <= n:
                _, outside, v, root = enter(f, plan, take(arrays, k))
                ok, table, tab = descend_lanes(f, view, plan, v, root, outside == _0)
                _begin(f, view, v, ok, table, tab, ring, k)
        streamed()
        return seen & _KINDS == _KINDS

    @kernel
    def cached(view: Any, plan: Any, vas: Any, pas: Any, infos: Any) -> Any:
        arrays, n, seen = arrays_at(vas, pas, infos), U64(vas.size), _0
        ring, keys = scratch(3, AHEAD), scratch(3, CACHE_SLOTS)
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
                key, place, ok = region(f, v, half), _slot(f, keys, v), outside == _0
                table, tab = gather(place + _TABLES, _EVERY), gather(place + _BITS, _EVERY)
                if unlikely((gather(place, _EVERY) != key) != _0):
                    ok, table, tab = descend_lanes(f, view, plan, v, root, ok)
                    scatter(place, key, ok)
                    scatter(place + _TABLES, table, ok)
                    scatter(place + _BITS, tab, ok)
                _begin(f, view, v, ok, table, tab, ring, k)
        streamed()
        return seen & _KINDS == _KINDS

    @kernel
    def ordered(view: Any, plan: Any, vas: Any, pas: Any, infos: Any) -> Any:
        arrays, n, seen = arrays_at(vas, pas, infos), U64(vas.size), _0
        ring = scratch(3, AHEAD)
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
                if unlikely((key != last) != _0):
                    ok, table, tab = descend_lanes(f, view, plan, v, root, ok)
                    last = pick(ok, key, _NONE)
                _begin(f, view, v, ok, table, tab, ring, k)
        streamed()
        return seen & _KINDS == _KINDS

    return Forms(single, pipelined, cached, ordered)
