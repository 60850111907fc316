"""Words of /proc that have bits: pagemap and kpageflags."""

from __future__ import annotations

from construct import Renamed

from .layout import Layout, bit, bits, res0

_PAGEMAP_FLAGS: tuple[Renamed, ...] = (
    bit("SOFT_DIRTY"),
    bit("MMAP_EXCLUSIVE"),
    bit("UFFD_WP"),
    bit("GUARD_REGION"),
    res0(2),
    bit("FILE"),
    bit("SWAP"),
    bit("PRESENT"),
)
PAGEMAP = Layout(
    "PAGEMAP",
    bits("PFRAME", 55),
    *_PAGEMAP_FLAGS,
    title="a word of /proc/PID/pagemap",
    source="Linux fs/proc/task_mmu.c",
)
"""A word whose page is present: PFRAME is the frame."""
PAGEMAP_SWAP = Layout(
    "PAGEMAP_SWAP",
    bits("SWAP_TYPE", 5),
    bits("SWAP_OFFSET", 50),
    *_PAGEMAP_FLAGS,
    title="a word of /proc/PID/pagemap whose page is not present",
    source="Linux fs/proc/task_mmu.c",
)
"""A word with SWAP set: swap type and offset; the offset is the frame alone for entries that name one."""

_KPF = (
    *("LOCKED", "ERROR", "REFERENCED", "UPTODATE", "DIRTY", "LRU", "ACTIVE", "SLAB", "WRITEBACK", "RECLAIM", "BUDDY"),
    *("MMAP", "ANON", "SWAPCACHE", "SWAPBACKED", "COMPOUND_HEAD", "COMPOUND_TAIL", "HUGE", "UNEVICTABLE", "HWPOISON"),
    *("NOPAGE", "KSM", "THP", "OFFLINE", "ZERO_PAGE", "IDLE", "PGTABLE"),
)
_KPF_INTERNAL = (
    *("RESERVED", "MLOCKED", "OWNER_2", "PRIVATE", "PRIVATE_2", "OWNER_PRIVATE", "ARCH", "UNCACHED", "SOFTDIRTY"),
    *("ARCH_2", "ARCH_3"),
)
KPF = Layout(
    "KPF",
    *map(bit, _KPF),
    bits("UNUSED", 5),
    *map(bit, _KPF_INTERNAL),
    bits("UNUSED_2", 21),
    title="a word of /proc/kpageflags",
    source="Linux include/uapi/linux/kernel-page-flags.h, include/linux/kernel-page-flags.h",
)
"""kpageflags; bits from 32 on are the kernel's own, not an interface."""
