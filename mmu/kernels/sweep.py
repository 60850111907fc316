"""Through the last-level tables, where nearly all entries are: leaves as they stand, or merged into ranges.

Eight entries at a time where all of them are leaves, else one by one.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from .access import load
from .host import peek, poke
from .jit import helper, kernel
from .lanes import COUNT, EVERY, address_of, peek_lanes, poke_lanes, scratch, spread, stream_lanes, streamed, upto
from .outline import fetch, host_run, output_address

U64 = np.uint64
_0, _1, _2, _3, _7, _8, _EVERY = U64(0), U64(1), U64(2), U64(3), U64(7), U64(8), U64(EVERY)
STAGED, STAGE_ROWS = 512, 512 + 2 * COUNT  # rows after which lines are moved, and room for those of a group
_STAGED, _STAGE = U64(STAGED), U64(8 * STAGE_ROWS)
_64, _LINE = U64(64), U64(63)
_NOWHERE = U64(1)  # no address that a page begins at


@helper
def word(view: Any, host: Any, pa: Any, i: Any) -> Any:
    """(ok, entry) number `i` of a table, which lies at `host` where that is not 0."""
    ok, e = True, _0
    if host != _0:
        e = peek(host + (i << _3))
    else:
        ok, e = load(view, _0, pa + (i << _3))
    return ok, e


@helper
def prefetch_next(view: Any, items: Any, k: Any, last: Any) -> None:
    """Ask the host's cache for the table after item `k`."""
    if k + 1 < items.va.size and items.depth[k + 1] == last:
        fetch(view, items.pa[k + 1], items.entry[k + 1])


@helper
def _flush(to: Any, n: Any, stage: Any, staged: Any, stream: Any) -> Any:
    """Move the whole lines among the staged rows to the columns, from row `n` on; how many rows moved."""
    moved = staged & ~_7
    for i in range(_0, moved << _3, _64):
        va, entry, where = peek_lanes(stage + i), peek_lanes(stage + _STAGE + i), (n << _3) + i
        if stream:
            stream_lanes(to[0] + where, va)
            stream_lanes(to[1] + where, entry)
        else:
            poke_lanes(to[0] + where, va)
            poke_lanes(to[1] + where, entry)
    for column in (_0, _STAGE):
        poke_lanes(stage + column, peek_lanes(stage + column + (moved << _3)))
    return moved


@kernel
def emit(
    view: Any, items: Any, last: Any, shift: Any, mask: Any, value: Any, out_va: Any, out_entry: Any, counts: Any
) -> Any:
    """Write every leaf's va and entry, and how many each item has; (leaves, entries to look at again).

    Rows gather in a stage, from where whole lines go past the caches if the columns begin on a line.
    """
    n, staged, odd = _0, _0, 0
    to, stage = (address_of(out_va), address_of(out_entry)), scratch(2, STAGE_ROWS)
    stream = (to[0] | to[1]) & _LINE == _0
    for k in range(items.va.size):
        before = n + staged
        va, size, pa = items.va[k], items.entry[k], items.pa[k]
        if items.depth[k] != last:
            poke(stage + (staged << _3), va)
            poke(stage + _STAGE + (staged << _3), size)
            staged, size = staged + _1, _0
        host = host_run(view, pa, size)
        prefetch_next(view, items, k, last)
        for i in range(_0, size, _8):
            at, end, leaf = stage + (staged << _3), min(i + _8, size), _0
            if host != _0 and end - i == _8:
                e = peek_lanes(host + (i << _3))
                leaf = e & mask == value
                if leaf == _EVERY:
                    poke_lanes(at, (upto() << shift) + (va + (i << shift)))
                    poke_lanes(at + _STAGE, e)
                    staged += _8
            if leaf != _EVERY:
                for j in range(i, end):
                    ok, one = word(view, host, pa, j)
                    at = stage + (staged << _3)
                    poke(at, va + (j << shift))
                    poke(at + _STAGE, one)
                    good = ok & (one & mask == value)
                    staged += U64(good)
                    odd += (not ok) | ((one & _1 != _0) & (not good))
            if staged >= _STAGED:
                moved = _flush(to, n, stage, staged, stream)
                n, staged = n + moved, staged - moved
        counts[k] = n + staged - before
    n += _flush(to, n, stage, staged, stream)
    for i in range(staged & _7):
        where = U64(i) << _3
        poke(to[0] + (n << _3) + where, peek(stage + where))
        poke(to[1] + (n << _3) + where, peek(stage + _STAGE + where))
    streamed()
    return n + (staged & _7), odd


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


class _Page(NamedTuple):
    """How the leaves of one depth are told, read and stepped through."""

    mask: Any
    value: Any
    flags: Any
    address: Any
    high: Any
    high_shift: Any
    shift: Any
    size: Any


@helper
def _output(kind: Any, e: Any) -> Any:
    return output_address(e, kind.address, kind.high, kind.high_shift)


@helper
def _joined(kind: Any, at: Any) -> Any:
    """(lanes of eight entries that go on where the entry before each ended, lanes that are leaves, entries)."""
    e, ahead = peek_lanes(at), peek_lanes(at - _8)
    alike = (e ^ ahead) & (kind.mask | kind.flags) == _0
    return alike & (_output(kind, e) == _output(kind, ahead) + kind.size), e & kind.mask == kind.value, e


@helper
def _row(to: Any, n: Any, va: Any, size: Any, pa: Any, flags: Any) -> None:
    """Begin a range; `to` are the host addresses of the columns."""
    where = n << _3
    poke(to[0] + where, va)
    poke(to[1] + where, size)
    poke(to[2] + where, pa)
    poke(to[3] + where, flags)


@helper
def _rows(kind: Any, to: Any, n: Any, va: Any, e: Any) -> None:
    """Begin eight ranges of one page each, from `va` on."""
    where = n << _3
    poke_lanes(to[0] + where, (upto() << kind.shift) + va)
    poke_lanes(to[1] + where, spread(kind.size))
    poke_lanes(to[2] + where, _output(kind, e))
    poke_lanes(to[3] + where, e & kind.flags)


@helper
def _longer(to: Any, n: Any, more: Any) -> None:
    """Let the range begun last go on."""
    where = to[1] + ((n - _1) << _3)
    poke(where, peek(where) + more)


@kernel
def merge(view: Any, items: Any, arrays: Any, flags: Any, out: Any, counts: Any) -> Any:
    """Ranges of leaves alike in page size, flags and path, with va and pa going on; how many, and odd entries.

    `out` holds va, size, pa and flags by row of columns; `counts` how many ranges begin in each item.
    """
    shifts, _e, _tm, _tv, _ta, _th, _ts, l_mask, l_value, l_address, l_high, l_high_shift = arrays
    last, n, odd, column = U64(shifts.size - 1), _0, 0, U64(out.shape[1]) << _3
    to = address_of(out), address_of(out) + column, address_of(out) + _2 * column, address_of(out) + _3 * column
    next_va, next_pa, now = _NOWHERE, _0, _0  # where the range begun last goes on, and its flags
    both, any_, level = _0, _0, last + _1
    for k in range(items.va.size):
        depth, before, pa = items.depth[k], n, items.pa[k]
        if items.both[k] != both or items.any[k] != any_ or depth != level:
            both, any_, level, next_va = items.both[k], items.any[k], depth, _NOWHERE
        kind = _Page(
            l_mask[depth], l_value[depth], flags[depth], l_address[depth], l_high[depth], l_high_shift[depth],
            shifts[depth], _1 << shifts[depth],
        )  # fmt: skip
        count = items.entry[k] if depth == last else _1
        host = host_run(view, pa, count)
        prefetch_next(view, items, k, last)
        for i in range(_0, count, _8):
            va, end, wide = items.va[k] + (i << kind.shift), min(i + _8, count), False
            if host != _0 and i != _0 and end - i == _8:
                joins, leaf, e = _joined(kind, host + (i << _3))
                wide = leaf == _EVERY and ((joins == _0) | (joins == _EVERY))
                if wide:
                    if joins == _0:
                        _rows(kind, to, n, va, e)
                        n += _8
                    else:
                        _longer(to, n, kind.size << _3)
                    one = peek(host + (i << _3) + _7 * _8)
                    next_va, next_pa, now = va + (kind.size << _3), _output(kind, one) + kind.size, one & kind.flags
            if not wide:
                for j in range(i, end):
                    ok, one = word(view, host, pa, j)
                    if ok and one & kind.mask == kind.value:
                        found = _output(kind, one)
                        if va == next_va and found == next_pa and one & kind.flags == now:
                            _longer(to, n, kind.size)
                        else:
                            _row(to, n, va, kind.size, found, one & kind.flags)
                            n += _1
                        next_va, next_pa, now = va + kind.size, found + kind.size, one & kind.flags
                    elif not ok or one & _1:
                        odd += 1
                    va += kind.size
        counts[k] = n - before
    return n, odd
