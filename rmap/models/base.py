"""What the three accounting models share: small folios, the large mapcount with its mm-id slots, statistics.

All three keep `_large_mapcount` and two slots that name the first two address spaces seen, by the same rules; they
differ in what else they keep and in which change of a counter moves which statistic (spec §2, §3).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

from ..errors import CounterOverflow, FreeError, Rejected
from ..folio import Counters, Flags, Folio, Kind
from ..levels import Level, Rules
from ..mm_id import MM_ID_DUMMY, Mm
from ..overflow import room, wrap
from ..runs import PageRuns
from ..stats import Nr, Stats

GUP_PIN_COUNTING_BIAS = 1024
"""References one pin takes on a folio that has no pin counter."""


class Model(ABC):
    """One accounting model: its rules, its statistics, and the counters it keeps in each Folio."""

    name: ClassVar[str]
    keeps_entire_mapcount: ClassVar[bool] = True

    def __init__(self, rules: Rules) -> None:
        self.rules = rules
        self.stats = Stats()
        self.deferred_split_queue: dict[Folio, None] = {}

    # ---- folios

    def adopt(self, folio: Folio) -> None:
        """Give the folio this model's counters, all at their values for an unmapped folio."""
        if not folio.kind.is_hugetlb and folio.nr_pages - 1 > self.rules.mm_id_mapcount_max:
            raise self.rejected(f"a folio of {folio.nr_pages} pages does not fit the per-mm mapcount")
        folio.counters[self.name] = Counters(self._page_mapcounts(folio))

    def _page_mapcounts(self, folio: Folio) -> PageRuns | None:
        return None

    def of(self, folio: Folio) -> Counters:
        """This model's counters of the folio."""
        return folio.counters[self.name]

    def rejected(self, problem: str) -> Rejected:
        """The error that says what this model refuses."""
        return Rejected(self.name, problem)

    def has_pincount(self, folio: Folio) -> bool:
        """Whether the folio has `_pincount`; without it pins are references (order 1 has none in a 32-bit P or N)."""
        return folio.order > 1 or (folio.order == 1 and self.rules.bits == 64)

    def refcount(self, folio: Folio) -> int:
        """folio_ref_count: references, pins included."""
        return folio.refs + folio.pins * (1 if self.has_pincount(folio) else GUP_PIN_COUNTING_BIAS)

    def maybe_dma_pinned(self, folio: Folio) -> bool:
        """folio_maybe_dma_pinned: exact with a pin counter, else a guess from 1024 references on."""
        if self.has_pincount(folio):
            return folio.pins > 0
        return self.refcount(folio) >= GUP_PIN_COUNTING_BIAS

    # ---- readers (spec §5)

    def mapcount(self, folio: Folio) -> int:
        """folio_mapcount: number of page-table entries that map any part of the folio."""
        counters = self.of(folio)
        return (counters.large_mapcount if folio.is_large else counters.mapcount) + 1

    def maybe_mapped_shared(self, folio: Folio) -> bool:
        """folio_maybe_mapped_shared: false only if certainly one mm maps it (small, hugetlb: one mapping)."""
        mapcount = self.mapcount(folio)
        if not folio.is_large or folio.kind.is_hugetlb or mapcount <= 1:
            return mapcount > 1
        return self.of(folio).shared

    @abstractmethod
    def average_page_mapcount(self, folio: Folio) -> int:
        """folio_average_page_mapcount: mappings per page, rounded, at least 1 while anything is mapped."""

    @abstractmethod
    def page_mapcount(self, folio: Folio, page: int) -> int:
        """What this model reports as the mapcount of one page: exact in P, the folio's average in N and T."""

    @abstractmethod
    def page_is_exclusive(self, folio: Folio, page: int) -> bool:
        """PM_MMAP_EXCLUSIVE and "private" in smaps: what this model believes about one page of the folio."""

    @abstractmethod
    def mapped_pages_at_most(self, folio: Folio) -> int:
        """An upper bound, from counters alone, of the pages of a large folio that any entry maps (exact in P)."""

    def expected_ref_count(self, folio: Folio) -> int:
        """folio_expected_ref_count: references that mappings, page cache and swap cache explain (6.16 form)."""
        cache = folio.nr_pages if folio.in_swapcache else 0
        if not folio.is_anon:
            cache = (1 if folio.kind.is_hugetlb else folio.nr_pages) + (Flags.PRIVATE in folio.flags)
        return cache + self.mapcount(folio)

    @abstractmethod
    def fields(self, folio: Folio) -> dict[str, int]:
        """The raw fields this model keeps, by kernel name, as a memory dump would show them."""

    def slot_fields(self, folio: Folio) -> dict[str, int]:
        """The mm-id part of fields()."""
        counters = self.of(folio)
        return {
            "_mm_id[0]": counters.mm_id[0],
            "_mm_id[1]": counters.mm_id[1],
            "_mm_id_mapcount[0]": counters.mm_id_mapcount[0],
            "_mm_id_mapcount[1]": counters.mm_id_mapcount[1],
            "shared": int(counters.shared),
        }

    # ---- checks before any counter moves

    def check_range(self, folio: Folio, level: Level, first: int, n: int) -> None:
        """Refuse a range the kernel warns about; raises Rejected."""
        if folio.kind.is_hugetlb:
            raise self.rejected("hugetlb folios have their own rmap functions")
        if first < 0 or n <= 0 or first + n > folio.nr_pages:
            raise self.rejected(f"pages {first}..{first + n - 1} are not inside a folio of {folio.nr_pages} pages")
        if level != Level.PTE:
            self.check_level(folio, level, first, n)

    @abstractmethod
    def check_level(self, folio: Folio, level: Level, first: int, n: int) -> None:
        """Refuse a PMD or PUD mapping that this model cannot count; raises Rejected."""

    def check_add(self, folio: Folio, level: Level, first: int, n: int, exempt: bool) -> None:
        """Refuse an addition: bad range, or past the hard limit (exempt additions may use the headroom)."""
        self.check_range(folio, level, first, n)
        self.check_hard_limit(folio, n >> self.rules.levels.order(level), n, 0 if exempt else folio.nr_pages)

    def check_hard_limit(self, folio: Folio, nr_mappings: int, nr_pages: int, headroom: int) -> None:
        """Raise CounterOverflow if the counters cannot take this; literal models wrap instead, as posted."""
        limit = self.rules.limits.mapcount
        if not self.rules.literal and self.mapcount(folio) + nr_mappings + headroom > limit:
            raise CounterOverflow(
                self.name, f"{nr_mappings} more mappings of {folio!r} would pass the hard mapcount limit of {limit}"
            )

    def soft_room(self, folio: Folio, level: Level) -> int:
        """How many mappings of that level fork or a file fault may still add before the soft limit."""
        limits = self.rules.limits
        return min(
            room(self.mapcount(folio), limits.soft(limits.mapcount), 1),
            room(self.refcount(folio), limits.soft(limits.refcount), 1),
        )

    def check_remove(self, folio: Folio, level: Level, first: int, n: int) -> None:
        """Refuse to remove more than is mapped; raises Rejected."""
        self.check_range(folio, level, first, n)
        nr_mappings = n >> self.rules.levels.order(level)
        mapped = self.mapcount(folio) % (1 << 32)
        if mapped < nr_mappings:
            raise self.rejected(f"{nr_mappings} mappings of {folio!r} to remove, only {mapped} exist")

    def check_new(self, folio: Folio) -> None:
        """Refuse a first mapping of a folio that is mapped already or too large; raises Rejected."""
        if self.mapcount(folio) != 0:
            raise self.rejected(f"folio_add_new_anon_rmap of {folio!r}, which is mapped already")

    def new_level(self, folio: Folio) -> Level:
        """The level at which folio_add_new_anon_rmap counts a whole folio."""
        if folio.order < self.rules.levels.pmd:
            return Level.PTE
        return Level.PMD

    # ---- changes; ranges were checked

    def add(self, folio: Folio, level: Level, first: int, n: int, mm: Mm) -> None:
        """Count new mappings, statistics included."""
        if folio.is_large:
            self._add_large(folio, level, first, n, mm)
            return
        counters = self.of(folio)
        counters.mapcount = wrap(counters.mapcount + 1, 32)
        if counters.mapcount == 0:
            self.move_stats(folio, 1, 0)

    def dup(self, folio: Folio, level: Level, first: int, n: int, mm: Mm) -> None:
        """Count mappings that fork copies into mm: no statistics move, the source maps the pages already."""
        if folio.is_large:
            self._dup_large(folio, level, first, n, mm)
        else:
            counters = self.of(folio)
            counters.mapcount = wrap(counters.mapcount + 1, 32)

    def remove(self, folio: Folio, level: Level, first: int, n: int, mm: Mm) -> None:
        """Take mappings away, statistics and the deferred split of a partially mapped folio included."""
        if folio.is_large:
            if self._remove_large(folio, level, first, n, mm):
                self.note_partially_mapped(folio)
            return
        counters = self.of(folio)
        counters.mapcount = wrap(counters.mapcount - 1, 32)
        if counters.mapcount == -1:
            self.move_stats(folio, -1, 0)

    def add_new(self, folio: Folio, mm: Mm) -> None:
        """First mapping of a whole new anonymous folio."""
        nr_pmd_pages = 0
        if folio.is_large:
            nr_pmd_pages = self._add_new_large(folio, mm)
        else:
            self.of(folio).mapcount = 0
        self.move_stats(folio, folio.nr_pages, nr_pmd_pages)
        self.count_mthp(self.stats.mthp_nr_anon, folio, 1)

    def add_hugetlb(self, folio: Folio) -> None:
        """One more hugetlb mapping: no statistics, no mm id."""
        counters = self.of(folio)
        counters.large_mapcount = wrap(counters.large_mapcount + 1, 32)
        if self.keeps_entire_mapcount:
            counters.entire_mapcount += 1

    def remove_hugetlb(self, folio: Folio) -> None:
        """One hugetlb mapping less."""
        counters = self.of(folio)
        counters.large_mapcount = wrap(counters.large_mapcount - 1, 32)
        if self.keeps_entire_mapcount:
            counters.entire_mapcount -= 1

    @abstractmethod
    def _add_large(self, folio: Folio, level: Level, first: int, n: int, mm: Mm) -> None: ...

    @abstractmethod
    def _dup_large(self, folio: Folio, level: Level, first: int, n: int, mm: Mm) -> None: ...

    @abstractmethod
    def _remove_large(self, folio: Folio, level: Level, first: int, n: int, mm: Mm) -> bool:
        """Remove and tell whether the folio now counts as partially mapped."""

    @abstractmethod
    def _add_new_large(self, folio: Folio, mm: Mm) -> int:
        """Set the counters and tell how many pages count as PMD-mapped."""

    @abstractmethod
    def exclusive_warning(self, folio: Folio, level: Level, first: int, n: int) -> str | None:
        """What the kernel would warn about AnonExclusive after an anonymous addition, None if nothing."""

    # ---- _large_mapcount and the mm-id slots (spec §2)

    def set_large_mapcount(self, folio: Folio, nr_mappings: int, mm: Mm) -> None:
        """folio_set_large_mapcount: the first mappings of a new folio."""
        counters = self.of(folio)
        counters.large_mapcount = nr_mappings - 1
        counters.mm_id[0] = mm.id
        counters.mm_id_mapcount[0] = nr_mappings - 1

    def add_large_mapcount(self, folio: Folio, nr_mappings: int, mm: Mm) -> int:
        """folio_add_return_large_mapcount: count mappings of mm and return the new mapcount."""
        counters = self.of(folio)
        counters.large_mapcount = value = wrap(counters.large_mapcount + nr_mappings, 32)
        ids, counts = counters.mm_id, counters.mm_id_mapcount
        for slot in (0, 1):
            if ids[slot] == mm.id:
                counts[slot] = wrap(counts[slot] + nr_mappings, 32 if self.rules.bits == 64 else 16)
                if counts[slot] < 0 and self.rules.bits == 32:
                    ids[slot], counts[slot] = MM_ID_DUMMY, -1
                    counters.shared = True
                return value + 1
        for slot in (0, 1):
            if ids[slot] == MM_ID_DUMMY:
                ids[slot], counts[slot] = mm.id, nr_mappings - 1
                counters.shared = counters.shared or slot == 1 or value != nr_mappings - 1
                break
        return value + 1

    def sub_large_mapcount(self, folio: Folio, nr_mappings: int, mm: Mm) -> int:
        """folio_sub_return_large_mapcount: take mappings of mm away and return the new mapcount."""
        counters = self.of(folio)
        counters.large_mapcount = value = wrap(counters.large_mapcount - nr_mappings, 32)
        ids, counts = counters.mm_id, counters.mm_id_mapcount
        for slot in (0, 1):
            if ids[slot] == mm.id:
                counts[slot] -= nr_mappings
                if counts[slot] >= 0:
                    return value + 1
                ids[slot], counts[slot] = MM_ID_DUMMY, -1
                break
        if value in counts:
            counters.shared = False
        return value + 1

    # ---- statistics and the deferred split

    def move_stats(self, folio: Folio, nr_pages: int, nr_pmd_pages: int) -> None:
        """Move NR_*_MAPPED and the PMD-mapped statistic by these (signed) pages."""
        if folio.is_anon:
            mapped, pmd = Nr.ANON_MAPPED, Nr.ANON_THPS
        else:
            mapped, pmd = Nr.FILE_MAPPED, Nr.SHMEM_PMDMAPPED if folio.kind is Kind.SHMEM else Nr.FILE_PMDMAPPED
        share, total = self.of(folio).nr, self.stats.nr
        share[mapped] += nr_pages
        total[mapped] += nr_pages
        share[pmd] += nr_pmd_pages
        total[pmd] += nr_pmd_pages

    def count_mthp(self, statistic: dict[int, int], folio: Folio, delta: int) -> None:
        """mod_mthp_stat: only orders from 1 to the PMD's are counted."""
        if 1 <= folio.order <= self.rules.levels.pmd:
            statistic[folio.order] = statistic.get(folio.order, 0) + delta

    def note_partially_mapped(self, folio: Folio) -> None:
        """The callers' condition before deferred_split_folio(folio, true)."""
        if folio.is_anon and not self.of(folio).partially_mapped and not folio.is_device_private:
            self.deferred_split_folio(folio, partially_mapped=True)

    def deferred_split_folio(self, folio: Folio, *, partially_mapped: bool) -> None:
        """Queue the folio for a deferred split; orders 0 and 1 and folios in the swap cache are left alone."""
        if folio.order <= 1 or folio.in_swapcache:
            return
        counters = self.of(folio)
        if partially_mapped and not counters.partially_mapped:
            counters.partially_mapped = True
            if folio.order >= self.rules.levels.pmd:
                self.stats.thp_deferred_split_page += 1
            self.count_mthp(self.stats.mthp_split_deferred, folio, 1)
            self.count_mthp(self.stats.mthp_nr_anon_partially_mapped, folio, 1)
        self.deferred_split_queue[folio] = None

    def unqueue_deferred_split(self, folio: Folio) -> None:
        """folio_unqueue_deferred_split: off the queue, no longer flagged (on free, split and swap-out to zero)."""
        if folio not in self.deferred_split_queue:
            return
        del self.deferred_split_queue[folio]
        counters = self.of(folio)
        if counters.partially_mapped:
            counters.partially_mapped = False
            self.count_mthp(self.stats.mthp_nr_anon_partially_mapped, folio, -1)

    def refuse(self, folio: Folio, problem: str) -> None:
        """Leave a folio that this model cannot represent: its share leaves the statistics, the reason stays."""
        self.unqueue_deferred_split(folio)
        for item, pages in enumerate(self.of(folio).nr):
            self.stats.nr[item] -= pages
        self.adopt(folio)
        self.of(folio).refused = problem

    def check_free(self, folio: Folio) -> None:
        """The kernel's checks when a folio is freed (free_tail_page_prepare); raises FreeError."""
        for field, expected in self.free_fields(folio).items():
            value = self.fields(folio)[field]
            if value != expected:
                raise FreeError(self.name, field, value, expected)

    def free_fields(self, folio: Folio) -> dict[str, int]:
        """Raw fields and the values they must have when the folio is freed."""
        if not folio.is_large:
            return {"_mapcount": -1}
        unmapped = {"_large_mapcount": -1, "_mm_id_mapcount[0]": -1, "_mm_id_mapcount[1]": -1}
        return unmapped | {"_mm_id[0]": MM_ID_DUMMY, "_mm_id[1]": MM_ID_DUMMY, "shared": 0}
