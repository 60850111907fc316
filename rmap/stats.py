"""The node and mTHP statistics that rmap moves, per model."""

from __future__ import annotations

from collections import Counter
from enum import IntEnum


class Nr(IntEnum):
    """Node statistics in pages, the kernel's names without NR_."""

    ANON_MAPPED = 0
    FILE_MAPPED = 1
    ANON_THPS = 2
    SHMEM_PMDMAPPED = 3
    FILE_PMDMAPPED = 4


MEMINFO = {
    "AnonPages": Nr.ANON_MAPPED,
    "Mapped": Nr.FILE_MAPPED,
    "AnonHugePages": Nr.ANON_THPS,
    "ShmemPmdMapped": Nr.SHMEM_PMDMAPPED,
    "FilePmdMapped": Nr.FILE_PMDMAPPED,
}
"""meminfo's lines that rmap moves; Shmem is moved by the page cache, not by mappings."""


class Stats:
    """Statistics of one model: `nr` in pages, mTHP counts by folio order, and events.

    >>> stats = Stats()
    >>> stats.nr[Nr.ANON_MAPPED] += 512
    >>> stats.meminfo(4096)["AnonPages"]
    2048
    """

    def __init__(self) -> None:
        self.nr = [0, 0, 0, 0, 0]
        self.mthp_nr_anon: Counter[int] = Counter()
        self.mthp_split_deferred: Counter[int] = Counter()
        self.mthp_nr_anon_partially_mapped: Counter[int] = Counter()
        self.thp_deferred_split_page = 0
        self.mlock = 0
        self.munlock = 0

    def meminfo(self, page_size: int) -> dict[str, int]:
        """meminfo's rmap lines in kB."""
        return {line: self.nr[item] * page_size >> 10 for line, item in MEMINFO.items()}

    def mthp(self) -> tuple[int, int, int]:
        """Totals over all orders: anon folios, deferred splits, partially mapped anon folios."""
        return (
            self.mthp_nr_anon.total(),
            self.mthp_split_deferred.total(),
            self.mthp_nr_anon_partially_mapped.total(),
        )

    def copy(self) -> Stats:
        """An independent copy."""
        twin = Stats()
        twin.__dict__.update({k: v if isinstance(v, int) else v.copy() for k, v in self.__dict__.items()})
        return twin
