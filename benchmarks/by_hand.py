"""`map_range` for small folios with every helper written out by hand: what its hooks may cost at most."""

from __future__ import annotations

from typing import Any

import numpy as np

from ptwalk.mmu.kernels.host import peek32, poke32, prefetch_host
from ptwalk.mmu.kernels.jit import kernel

U64 = np.uint64
AHEAD = 16
TAIL, ANON, KNOWN, ORDER = U64(1 << 31), U64(1 << 8), U64(1 << 10), U64(0xFF)
_0, _1, _2, _4, _6, _8 = U64(0), U64(1), U64(2), U64(4), U64(6), U64(8)


@kernel
def map_by_hand(
    ptes: Any, pfns: Any, prot: Any, form: Any, records: Any, pages: Any, mm: Any, batched: Any, limit: Any, stats: Any
) -> Any:
    """Install entries of small folios; how many were done."""
    mask, shift, base = form
    frames, k = U64(pages.size), 0
    first = np.zeros(2, np.int64)
    while k < ptes.size:
        frame = pfns[k] - base
        if k + AHEAD < ptes.size:
            prefetch_host(records + ((pfns[k + AHEAD] - base) << _6))
        if frame >= frames or ptes[k] != _0:
            break
        at = records + (frame << _6)
        meta, mapped = peek32(at), peek32(at + _8)
        if meta & (TAIL | ORDER | KNOWN) != KNOWN or mapped + _2 > limit:
            break
        ptes[k] = pfns[k] << shift & mask | prot
        poke32(at + _8, mapped + _1)
        if mapped == _0:
            first[0 if meta & ANON else 1] += 1
        poke32(at + _4, peek32(at + _4) + _1)
        k += 1
    stats += first
    return k
