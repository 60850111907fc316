"""Map, unmap and fork of runs of page-table entries with the accounting of all three models in one pass.

The state of a frame is one record of `RECORD` bytes, like the kernel's struct page: a small folio lives in it, a large
one in the record of its first frame, and a tail only says where that is. Counters are kept unbiased. The kernels stop
before the first entry that they do not account for and say how many they did.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..mmu.kernels.host import peek32, poke32, prefetch_host
from ..mmu.kernels.jit import helper, kernel

U64 = np.uint64
RECORD = 64
AHEAD = 16  # entries whose records are fetched ahead
META, REFS, MAPCOUNT, NR_MAPPED, ENTIRE, TOTAL, ID0, ID1, COUNT0, COUNT1, SHARED, PARTIAL, EXCLUSIVE = (
    U64(4 * i) for i in range(13)
)
TAIL, ANON, QUIET, KNOWN = U64(1 << 31), U64(1 << 8), U64(1 << 9), U64(1 << 10)  # of META; a tail holds its head
ORDER = U64(0xFF)
PLAIN = TAIL | ORDER | KNOWN  # equal to KNOWN for a small folio
PAGE_EXCLUSIVE, PAGE_COUNT = np.uint32(1 << 31), np.uint32((1 << 31) - 1)  # of a large folio's page words
PRECISE, NO_PAGE, TOTAL_PAGES = U64(1), U64(2), U64(4)  # bits of PARTIAL
ENTIRELY_MAPPED = U64(0x800000)
_0, _1, _2, _6 = U64(0), U64(1), U64(2), U64(6)
_ONE = np.uint32(1)


@helper
def record(records: Any, frame: Any) -> Any:
    """The host address of a frame's record."""
    return records + (frame << _6)


@helper
def bump(at: Any, field: Any, n: Any) -> Any:
    """Add `n` (two's complement) to a field; its new value."""
    value = peek32(at + field) + n
    poke32(at + field, value)
    return value


@helper
def add_slots(at: Any, n: Any, mm: Any) -> Any:
    """folio_add_return_large_mapcount: the mapcount after `n` more mappings of `mm`."""
    value = bump(at, MAPCOUNT, n)
    id0, id1 = peek32(at + ID0), peek32(at + ID1)
    if id0 == mm:
        bump(at, COUNT0, n)
    elif id1 == mm:
        bump(at, COUNT1, n)
    elif id0 == _0:
        poke32(at + ID0, mm)
        poke32(at + COUNT0, n)
        if value != n:
            poke32(at + SHARED, _1)
    elif id1 == _0:
        poke32(at + ID1, mm)
        poke32(at + COUNT1, n)
        poke32(at + SHARED, _1)
    return value


@helper
def sub_slots(at: Any, n: Any, mm: Any) -> Any:
    """folio_sub_return_large_mapcount: the mapcount after `n` mappings of `mm` have gone."""
    value = bump(at, MAPCOUNT, _0 - n)
    keeps = False
    if peek32(at + ID0) == mm:
        keeps = bump(at, COUNT0, _0 - n) != _0
        if not keeps:
            poke32(at + ID0, _0)
    elif peek32(at + ID1) == mm:
        keeps = bump(at, COUNT1, _0 - n) != _0
        if not keeps:
            poke32(at + ID1, _0)
    if not keeps and (value == peek32(at + COUNT0) or value == peek32(at + COUNT1)):
        poke32(at + SHARED, _0)
    return value


@helper
def present_frame(e: Any, mask: Any, shift: Any, base: Any, frames: Any) -> Any:
    """The frame index of a present entry, `frames` where it is none of ours."""
    frame = ((e & mask) >> shift) - base
    return frame if e & _1 != _0 and frame < frames else frames


@helper
def protected(e: Any, protect: Any) -> Any:
    """pte_wrprotect, `protect` being Linux.wrprotect."""
    write, test, want, clear, dirty = protect
    if e & write != _0 and e & test == want:
        e = e & ~clear | dirty
    return e & ~write


@kernel
def fork_range(
    src: Any,
    dst: Any,
    form: Any,
    records: Any,
    pages: Any,
    protect: Any,
    clear_child: Any,
    mm: Any,
    batched: Any,
    limit: Any,
) -> Any:
    """Copy present entries to `dst` for a child `mm`, write-protect both sides, count; how many were done.

    `form` is (address mask, page shift, first frame number). Absent entries (0) copy as 0.
    """
    mask, shift, base = form
    frames, k, size = U64(pages.size), 0, src.size
    while k < size:
        here = U64(k)  # an index without a sign needs no check for one
        e = src[here]
        if k + AHEAD < size:
            prefetch_host(record(records, ((src[here + U64(AHEAD)] & mask) >> shift) - base))
        if e == _0:
            dst[here] = e
            k += 1
            continue
        frame = present_frame(e, mask, shift, base, frames)
        if frame == frames:
            break
        at, head = record(records, frame), frame
        meta = peek32(at)
        if meta & PLAIN == KNOWN and peek32(at + MAPCOUNT) + _2 <= limit:
            e = protected(e, protect)
            src[here], dst[here] = e, e & ~clear_child
            bump(at, MAPCOUNT, _1)
            bump(at, REFS, _1)
            if meta & ANON:
                poke32(at + EXCLUSIVE, _0)
            k += 1
            continue
        if meta & TAIL:
            head = meta & ~TAIL
            at = record(records, head)
            meta = peek32(at)
        if meta & KNOWN == _0 or meta & ORDER == _0 or peek32(at + MAPCOUNT) + (_2 << (meta & ORDER)) > limit:
            break
        n = 1
        if batched:
            most = min(int(head + (_1 << (meta & ORDER)) - frame), size - k)
            while n < most and present_frame(src[k + n], mask, shift, base, frames) == frame + U64(n):
                n += 1
        for i in range(n):
            src[k + i] = protected(src[k + i], protect)
            dst[k + i] = src[k + i] & ~clear_child
        first = int(frame)
        keep = PAGE_COUNT if meta & ANON else ~np.uint32(0)
        for f in range(first, first + n):
            pages[f] = (pages[f] & keep) + _ONE
        add_slots(at, U64(n), mm)
        bump(at, TOTAL, U64(n))
        bump(at, REFS, U64(n))
        k += n
    return k


@kernel
def map_range(
    ptes: Any, pfns: Any, prot: Any, form: Any, records: Any, pages: Any, mm: Any, batched: Any, limit: Any, stats: Any
) -> Any:
    """Install entries for frames that have been mapped before or are page cache, and count; how many were done.

    `stats` rows are the models, columns NR_ANON_MAPPED and NR_FILE_MAPPED.
    """
    mask, shift, base = form
    frames, k, size = U64(pages.size), 0, ptes.size
    small, precise, whole_folio = np.zeros(2, np.int64), np.zeros(2, np.int64), np.zeros(2, np.int64)
    while k < size:
        here = U64(k)  # an index without a sign needs no check for one
        frame = pfns[here] - base
        if k + AHEAD < size:
            prefetch_host(record(records, pfns[here + U64(AHEAD)] - base))
        if frame >= frames or ptes[here] != _0:
            break
        at, head = record(records, frame), frame
        meta = peek32(at)
        if meta & PLAIN == KNOWN and peek32(at + MAPCOUNT) + _2 <= limit:
            ptes[here] = pfns[here] << shift & mask | prot
            if bump(at, MAPCOUNT, _1) == _1:
                small[0 if meta & ANON else 1] += 1
            bump(at, REFS, _1)
            k += 1
            continue
        if meta & TAIL:
            head = meta & ~TAIL
            at = record(records, head)
            meta = peek32(at)
        if meta & KNOWN == _0 or meta & ORDER == _0 or peek32(at + MAPCOUNT) + (_2 << (meta & ORDER)) > limit:
            break
        kind = 0 if meta & ANON else 1
        n = 1
        if batched:
            most = min(int(head + (_1 << (meta & ORDER)) - frame), size - k)
            while n < most and pfns[k + n] - base == frame + U64(n) and ptes[k + n] == _0:
                n += 1
        for i in range(n):
            ptes[k + i] = pfns[k + i] << shift & mask | prot
        newly, first = 0, int(frame)
        for f in range(first, first + n):
            newly += pages[f] & PAGE_COUNT == np.uint32(0)
            pages[f] += _ONE
        if bump(at, NR_MAPPED, U64(newly)) < ENTIRELY_MAPPED:
            precise[kind] += newly
        bump(at, TOTAL, U64(n))
        bump(at, REFS, U64(n))
        if add_slots(at, U64(n), mm) == U64(n):
            whole_folio[kind] += 1 << int(meta & ORDER)
        k += n
    stats[0] += small + precise
    stats[1] += small + whole_folio  # from first to last mapping, in both models that do not look at pages
    stats[2] += small + whole_folio
    return k


@kernel
def unmap_range(ptes: Any, form: Any, records: Any, pages: Any, mm: Any, batched: Any, stats: Any, partial: Any) -> Any:
    """Clear present entries and count; (how many entries were done, folios newly found partially mapped).

    `partial` lists the latter in order, as head frame << 3 | model bit; it has room for three a batch.
    """
    mask, shift, base = form
    frames, k, size, events = U64(pages.size), 0, ptes.size, 0
    small, precise, whole_folio = np.zeros(2, np.int64), np.zeros(2, np.int64), np.zeros(2, np.int64)
    while k < size:
        if k + AHEAD < size:
            prefetch_host(record(records, ((ptes[k + AHEAD] & mask) >> shift) - base))
        if ptes[k] == _0:
            k += 1
            continue
        frame = present_frame(ptes[k], mask, shift, base, frames)
        if frame == frames:
            break
        at, head = record(records, frame), frame
        meta = peek32(at)
        if meta & PLAIN == KNOWN and peek32(at + MAPCOUNT) != _0:
            ptes[k] = _0
            if bump(at, MAPCOUNT, _0 - _1) == _0:
                small[0 if meta & ANON else 1] -= 1
            bump(at, REFS, _0 - _1)
            k += 1
            continue
        if meta & TAIL:
            head = meta & ~TAIL
            at = record(records, head)
            meta = peek32(at)
        mapped = peek32(at + MAPCOUNT)
        if meta & KNOWN == _0 or meta & ORDER == _0 or mapped == _0:
            break
        kind = 0 if meta & ANON else 1
        n = 1
        if batched:
            most = min(int(head + (_1 << (meta & ORDER)) - frame), size - k)
            while n < most and present_frame(ptes[k + n], mask, shift, base, frames) == frame + U64(n):
                n += 1
        unmapped, last, first = 0, 0, int(frame)
        for f in range(first, first + n):
            unmapped += pages[f] & PAGE_COUNT == np.uint32(0)
        if unmapped or mapped < U64(n):
            break
        for i in range(n):
            ptes[k + i] = _0
        for f in range(first, first + n):
            pages[f] -= _ONE
            last += pages[f] & PAGE_COUNT == np.uint32(0)
        whole = _1 << (meta & ORDER)
        mapcount = sub_slots(at, U64(n), mm)
        nr_mapped, total = bump(at, NR_MAPPED, _0 - U64(last)), bump(at, TOTAL, _0 - U64(n))
        nr_mapped &= U64(0xFFFF_FFFF)
        total &= U64(0xFFFF_FFFF)
        bump(at, REFS, _0 - U64(n))
        now = _0
        if nr_mapped < ENTIRELY_MAPPED:
            precise[kind] -= last
            if last and nr_mapped:
                now |= PRECISE
        if mapcount == _0:
            whole_folio[kind] -= int(whole)
        elif mapcount < whole and peek32(at + ENTIRE) == _0:
            now |= NO_PAGE
        if total != _0 and total < whole:
            now |= TOTAL_PAGES
        if meta & ANON and meta & QUIET == _0:
            now &= ~peek32(at + PARTIAL)
            poke32(at + PARTIAL, peek32(at + PARTIAL) | now)
            for bit in (PRECISE, NO_PAGE, TOTAL_PAGES):
                if now & bit:
                    partial[events] = head << U64(3) | bit
                    events += 1
        k += n
    stats[0] += small + precise
    stats[1] += small + whole_folio  # from first to last mapping, in both models that do not look at pages
    stats[2] += small + whole_folio
    return k, events
