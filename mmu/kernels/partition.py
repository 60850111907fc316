"""Leaves sorted by frame in two passes that a cache can follow: into buckets of frames, then by frame inside each.

A leaf is one word on its way, a record: its frame's number inside the bucket above the 45 bits of its page's number.
Records gather line by line, one line a bucket, and whole lines go past the caches. The result takes the records' place.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .batch import LINE
from .host import peek, poke, unlikely
from .jit import helper, kernel
from .lanes import address_of, lanes_in, peek_lanes, pick, poke_lanes, scratch, stream_lanes, streamed, upto
from .outline import host_run, output_address
from .sweep import prefetch_next, word

U64 = np.uint64
VPN_SHIFT, VA_BITS = 12, 57  # a mapping packs (va >> 12) of 57 bits with the number of its space
SPACE_SHIFT = VA_BITS - VPN_SHIFT
_SPACE, _PAGE_BITS = U64(SPACE_SHIFT), U64((1 << SPACE_SHIFT) - 1)
_VPN, _LAST, _ALL = U64(VPN_SHIFT), U64(LINE - 1), U64(0xFFFF_FFFF_FFFF_FFFF)
_0, _1, _3, _6, _8, _64 = U64(0), U64(1), U64(3), U64(6), U64(8), U64(64)


@helper
def _output(leaf: Any, e: Any) -> Any:
    return output_address(e, leaf.address, leaf.high, leaf.high_shift) >> leaf.shift


@helper
def _frames(view: Any, leaf: Any, host: Any, pa: Any, i: Any, size: Any, to: Any) -> Any:
    """The frames of eight entries from number `i`, ALL where there is no leaf; `to` is room for them."""
    if host != _0 and size - i >= _8:
        e = peek_lanes(host + (i << _3))
        frame = pick(e & leaf.mask == leaf.value, _output(leaf, e), _ALL)
    else:
        for j in range(_8):
            one = _ALL
            if i + j < size:
                ok, e_one = word(view, host, pa, i + j)
                if ok and e_one & leaf.mask == leaf.value:
                    one = _output(leaf, e_one)
            poke(to + (j << _3), one)
        frame = peek_lanes(to)
    return frame


@kernel
def histogram(view: Any, items: Any, leaf: Any, frames: Any, bucket_shift: Any, counts: Any) -> Any:
    """Count the leaves of last-level tables by bucket; (leaves inside RAM's frames, leaves beyond).

    `counts` has eight rows to be added up: neighbours in a table do not wait for each other's counter. What is no leaf
    inside is counted in the last column.
    """
    inside, wild, group, counters = _0, _0, scratch(1, LINE), address_of(counts)
    row, none = U64(counts.shape[1]) << _3, U64(counts.shape[1] - 1)
    for k in range(items.va.size):
        if items.depth[k] == leaf.last:
            pa, size = items.pa[k], items.entry[k]
            host = host_run(view, pa, size)
            prefetch_next(view, items, k, leaf.last)
            for i in range(_0, size, _8):
                frame = _frames(view, leaf, host, pa, i, size, group)
                good = frame < frames
                poke_lanes(group, pick(good, frame >> bucket_shift, none) << _3)
                for j in range(_8):
                    counter = counters + j * row + peek(group + (j << _3))
                    poke(counter, peek(counter) + _1)
                inside += lanes_in(good)
                wild += lanes_in((frame != _ALL) & ~good)
    return inside, wild


@helper
def _write_line(records: Any, line: Any, end: Any, edge: Any) -> None:
    """Write a bucket's line up to `end`; a line that the bucket before begins word by word from `edge`."""
    first = (end - _1) & ~_LAST
    if unlikely(first < edge or end - first < _8):
        for k in range(max(first, edge), end):
            poke(records + (k << _3), peek(line + ((k & _LAST) << _3)))
    else:
        stream_lanes(records + (first << _3), peek_lanes(line))


@kernel
def partition(
    view: Any, items: Any, leaf: Any, frames: Any, bucket_shift: Any, space: Any, edges: Any, cursors: Any,
    lines: Any, records: Any, wild_frames: Any, wild_found: Any, wild_at: Any,
) -> Any:  # fmt: skip
    """Write each leaf's record into its bucket, or its frame and mapping into the wild lists; where those now end.

    `lines` holds for each bucket the line that its cursor is in; the last bucket, whose cursor stays, takes what is no
    leaf inside.
    """
    cursor_at, line_at, record_at = address_of(cursors), address_of(lines), address_of(records)
    group, none, low = scratch(3, LINE), U64(cursors.size - 1), (_1 << bucket_shift) - _1
    for k in range(items.va.size):
        if items.depth[k] == leaf.last:
            pa, size, va = items.pa[k], items.entry[k], items.va[k]
            host = host_run(view, pa, size)
            prefetch_next(view, items, k, leaf.last)
            for i in range(_0, size, _8):
                frame = _frames(view, leaf, host, pa, i, size, group)
                page = (upto() << leaf.shift) + (va + (i << leaf.shift)) >> _VPN & _PAGE_BITS
                good = frame < frames
                poke_lanes(group, pick(good, frame >> bucket_shift, none))
                poke_lanes(group + _64, (frame & low) << _SPACE | page)
                for j in range(_8):
                    bucket, real = peek(group + (j << _3)), good >> j & _1
                    cursor, line = cursor_at + (bucket << _3), line_at + (bucket << _6)
                    at = peek(cursor)
                    poke(cursor, at + real)
                    poke(line + ((at & _LAST) << _3), peek(group + _64 + (j << _3)))
                    if (at & _LAST) + real == _8:
                        _write_line(record_at, line, at + _1, U64(edges[bucket]))
                wild = (frame != _ALL) & ~good
                if unlikely(wild != _0):
                    poke_lanes(group, frame)
                    poke_lanes(group + _64, page)
                    for j in range(_8):
                        if wild >> j & _1:
                            wild_frames[wild_at] = peek(group + (j << _3))
                            wild_found[wild_at] = peek(group + _64 + (j << _3)) | space << _SPACE
                            wild_at += 1
    return wild_at


@kernel
def drain(edges: Any, cursors: Any, lines: Any, records: Any) -> None:
    """Write the lines that are not full, the last bucket's excepted."""
    for bucket in range(cursors.size - 1):
        end, edge = U64(cursors[bucket]), U64(edges[bucket])
        if end != edge and end & _LAST != _0:
            _write_line(address_of(records), address_of(lines) + (U64(bucket) << _6), end, edge)
    streamed()


@kernel
def local_fill(
    first: Any, end: Any, bucket_shift: Any, frames: Any, kept: Any, cuts: Any, spaces: Any, records: Any, starts: Any
) -> None:
    """Turn the records of buckets `first` to `end` into mappings by frame, in place, and fill `starts` of the frames.

    Row p of `cuts` is where the records of part p begin in each bucket, of space `spaces[p]`; `kept` is room for those
    of any one bucket.
    """
    width = 1 << int(bucket_shift)
    cursors = np.zeros(width, np.uint64)
    cursor_at, kept_at, record_at = address_of(cursors), address_of(kept), address_of(records)
    for bucket in range(first, end):
        base, edge, stop = bucket << int(bucket_shift), U64(cuts[0, bucket]), U64(cuts[-1, bucket])
        cursors[:] = 0
        for k in range(edge, stop):
            record = peek(record_at + (k << _3))
            poke(kept_at + (k - edge << _3), record)
            cursor = cursor_at + (record >> _SPACE << _3)
            poke(cursor, peek(cursor) + _1)
        at = edge
        for f in range(_0, U64(min(width, int(frames) - base))):
            starts[U64(base) + f] = at
            count = cursors[f]
            cursors[f] = at
            at += count
        for part in range(spaces.size):
            space = spaces[part] << _SPACE
            for k in range(U64(cuts[part, bucket]) - edge, U64(cuts[part + 1, bucket]) - edge):
                record = peek(kept_at + (k << _3))
                cursor = cursor_at + (record >> _SPACE << _3)
                slot = peek(cursor)
                poke(cursor, slot + _1)
                poke(record_at + (slot << _3), record & _PAGE_BITS | space)
