"""What one mapping contributes to /proc, per model: smaps' account step, mapmax, pagemap bit 56, kpagecount.

Pure arithmetic on a model's counters and one entry's facts (spec §6); walking page tables and printing are the views'.
Pss is fixed point, bytes << PSS_SHIFT; it is truncated only when printed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields

from .folio import Flags, Folio, Kind
from .levels import Level
from .models import Model, Precise, TotalMappedPages

PSS_SHIFT = 12
"""Fraction bits of Pss."""


@dataclass
class MemSizeStats:
    """The kernel's struct mem_size_stats: bytes, and the pss fields in bytes << PSS_SHIFT.

    >>> total = MemSizeStats(resident=4096, pss=4096 << PSS_SHIFT)
    >>> total.add(MemSizeStats(resident=4096, pss=2048 << PSS_SHIFT))
    >>> total.resident >> 10, pss_kb(total.pss)
    (8, 6)
    """

    resident: int = 0
    shared_clean: int = 0
    shared_dirty: int = 0
    private_clean: int = 0
    private_dirty: int = 0
    referenced: int = 0
    anonymous: int = 0
    lazyfree: int = 0
    anonymous_thp: int = 0
    shmem_thp: int = 0
    file_thp: int = 0
    swap: int = 0
    shared_hugetlb: int = 0
    private_hugetlb: int = 0
    ksm: int = 0
    pss: int = 0
    pss_anon: int = 0
    pss_file: int = 0
    pss_shmem: int = 0
    pss_dirty: int = 0
    pss_locked: int = 0
    swap_pss: int = 0

    def add(self, other: MemSizeStats) -> None:
        """Sum another one up, as smaps_rollup does over VMAs before anything is truncated."""
        for item in fields(self):
            setattr(self, item.name, getattr(self, item.name) + getattr(other, item.name))

    @property
    def shared(self) -> int:
        """Shared_Clean + Shared_Dirty in bytes."""
        return self.shared_clean + self.shared_dirty

    @property
    def uss(self) -> int:
        """Private_Clean + Private_Dirty in bytes, what tools call Uss."""
        return self.private_clean + self.private_dirty


def pss_kb(pss: int) -> int:
    """A pss field in kB as printed, truncated.

    >>> pss_kb(8 << PSS_SHIFT)
    0
    """
    return pss >> PSS_SHIFT >> 10


@dataclass(frozen=True)
class Entry:
    """The facts of one page-table entry that smaps looks at.

    `first` is the folio's page its range begins with. `present` is also true for device-private entries, which have
    neither young nor dirty; migration and device-exclusive entries are not present. `locked` is the VMA's VM_LOCKED.
    """

    level: Level
    first: int
    young: bool = False
    dirty: bool = False
    locked: bool = False
    present: bool = True


def smaps_account(stats: MemSizeStats, model: Model, folio: Folio, entry: Entry) -> None:
    """smaps_account plus the THP line of smaps_pmd_entry: add one mapping of a folio to the sums.

    A PUD leaf counts like a PMD without a THP line; the kernel has no walk callback for it and splits it first.
    """
    nr_pages = entry_pages(model, folio, entry)
    size = nr_pages * model.rules.page_size
    dirty = entry.dirty or Flags.DIRTY in folio.flags
    if folio.is_anon:
        stats.anonymous += size
        if Flags.SWAPBACKED not in folio.flags and not dirty:
            stats.lazyfree += size
    stats.ksm += size if folio.kind is Kind.KSM else 0
    stats.resident += size
    if entry.young or folio.flags & (Flags.YOUNG | Flags.REFERENCED):
        stats.referenced += size
    for part, pss, private in smaps_shares(model, folio, entry, nr_pages):
        _accumulate(stats, folio, part, pss, private, dirty, entry.locked)
    if entry.level == Level.PMD:
        _count_thp(stats, model, folio)


def entry_pages(model: Model, folio: Folio, entry: Entry) -> int:
    """Pages smaps counts for the entry.

    Posted, the series takes the folio's size for any PMD: literal does that; meant are the pages the PMD maps.
    """
    if entry.level == Level.PMD and model.rules.literal and isinstance(model, TotalMappedPages):
        return folio.nr_pages
    return model.rules.levels.size(entry.level)


def smaps_shares(model: Model, folio: Folio, entry: Entry, nr_pages: int) -> Iterator[tuple[int, int, bool]]:
    """(bytes, pss, private) of the parts of one entry's range, equal pages taken together.

    Per page the precise model divides by that page's mapcount, no-page-mapcount by the average (each page's quotient
    truncated), total-mapped-pages divides the whole range by the average once.
    """
    page_size = model.rules.page_size
    size = nr_pages * page_size
    if not entry.present:
        yield size, size << PSS_SHIFT, False
    elif model.refcount(folio) == 1:
        yield size, size << PSS_SHIFT, True
    elif isinstance(model, Precise):
        for n, count in precise_runs(model, folio, entry.first, nr_pages):
            yield n * page_size, n * ((page_size << PSS_SHIFT) // max(count, 1)), count < 2
    else:
        unit = size if isinstance(model, TotalMappedPages) else page_size
        average = max(model.average_page_mapcount(folio), 1)
        pss = size // unit * ((unit << PSS_SHIFT) // average)
        yield size, pss, not model.maybe_mapped_shared(folio)


def precise_runs(model: Precise, folio: Folio, first: int, n: int) -> Iterator[tuple[int, int]]:
    """(pages, mapcount of each) for runs of equally often mapped pages."""
    if not folio.is_large:
        yield 1, model.mapcount(folio)
        return
    for start, pages, _ in model.pages(folio).runs(first, n):
        yield pages, model.page_mapcount(folio, start)


def _accumulate(
    stats: MemSizeStats, folio: Folio, size: int, pss: int, private: bool, dirty: bool, locked: bool
) -> None:
    stats.pss += pss
    if folio.is_anon:
        stats.pss_anon += pss
    elif Flags.SWAPBACKED in folio.flags:
        stats.pss_shmem += pss
    else:
        stats.pss_file += pss
    stats.pss_locked += pss if locked else 0
    stats.pss_dirty += pss if dirty else 0
    name = f"{'private' if private else 'shared'}_{'dirty' if dirty else 'clean'}"
    setattr(stats, name, getattr(stats, name) + size)


def _count_thp(stats: MemSizeStats, model: Model, folio: Folio) -> None:
    size = model.rules.levels.size(Level.PMD) * model.rules.page_size
    if folio.is_anon:
        stats.anonymous_thp += size
    elif Flags.SWAPBACKED in folio.flags:
        stats.shmem_thp += size
    elif not folio.is_device_private:
        stats.file_thp += size


def smaps_hugetlb(
    stats: MemSizeStats, model: Model, folio: Folio, *, present: bool = True, pmd_shared: bool = False
) -> None:
    """One hugetlb entry: only the Hugetlb lines, shared if not present, mapped twice or through a shared PMD table."""
    size = folio.nr_pages * model.rules.page_size
    if not present or pmd_shared or model.mapcount(folio) > 1:
        stats.shared_hugetlb += size
    else:
        stats.private_hugetlb += size


def mapmax(model: Model, folio: Folio, page: int) -> int:
    """What numa_maps takes the maximum of: P the mapcount of the entry's first page, N and T the average."""
    return model.page_mapcount(folio, page)


def pagemap_exclusive(model: Model, folio: Folio, page: int, *, pmd_shared: bool = False) -> bool:
    """PM_MMAP_EXCLUSIVE (bit 56) of a present entry for this page; hugetlb: one mapping and no shared PMD table."""
    if folio.kind.is_hugetlb:
        return model.mapcount(folio) <= 1 and not pmd_shared
    return model.page_is_exclusive(folio, page)


def kpagecount(model: Model, folio: Folio, page: int) -> int:
    """/proc/kpagecount of one page of the folio: P its mapcount, N and T the folio's average."""
    return model.page_mapcount(folio, page)
