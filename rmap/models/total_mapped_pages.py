"""Model T, `total-mapped-pages`: the RFC series "mm/rmap: support arbitrary folio mappings" (2026-04-12).

`_total_mapped_pages` sums the sizes of all mappings. Together with the mapcount it says all that the series needs:
their difference is 0 exactly while no PMD or PUD mapping exists, and their ratio to the folio's size is the average.
"""

from __future__ import annotations

from typing import ClassVar

from ..errors import CounterOverflow
from ..folio import Folio
from ..levels import Level
from ..mm_id import Mm
from ..overflow import room, wrap
from .base import Model


class TotalMappedPages(Model):
    """Any aligned part of a folio of any order may be mapped by PTEs, PMDs and PUDs, mixed.

    >>> from ..folio import Kind
    >>> from ..levels import Rules
    >>> model, folio, mm = TotalMappedPages(Rules()), Folio(10, Kind.SHMEM), Mm(1)
    >>> model.adopt(folio)
    >>> model.add(folio, Level.PMD, 512, 512, mm)
    >>> model.mapcount(folio), model.total_mapped_pages(folio), model.average_page_mapcount(folio)
    (1, 512, 1)
    """

    name: ClassVar[str] = "total-mapped-pages"
    keeps_entire_mapcount: ClassVar[bool] = False

    def has_pincount(self, folio: Folio) -> bool:
        """The series moves `_pincount` so that every large folio has it, on 32-bit too."""
        return folio.is_large

    def check_level(self, folio: Folio, level: Level, first: int, n: int) -> None:
        """Start and length must be multiples of what one entry maps."""
        size = self.rules.levels.size(level)
        if first % size or n % size:
            raise self.rejected(f"page {first} and {n} pages are not multiples of a {level.name}'s {size} pages")

    def check_remove(self, folio: Folio, level: Level, first: int, n: int) -> None:
        """Also refuse to remove more pages than are mapped."""
        super().check_remove(folio, level, first, n)
        mapped = self.total_mapped_pages(folio) % (1 << self.rules.bits)
        if mapped < n:
            raise self.rejected(f"{n} pages of {folio!r} to unmap, only {mapped} are mapped")

    def check_hard_limit(self, folio: Folio, nr_mappings: int, nr_pages: int, headroom: int) -> None:
        """The total has a limit of its own."""
        super().check_hard_limit(folio, nr_mappings, nr_pages, headroom)
        limit = self.rules.limits.total(self.rules.bits)
        if not self.rules.literal and self.total_mapped_pages(folio) + nr_pages + headroom > limit:
            raise CounterOverflow(
                self.name, f"{nr_pages} more pages of {folio!r} would pass the hard limit of {limit} mapped pages"
            )

    def soft_room(self, folio: Folio, level: Level) -> int:
        """The total has a soft limit of its own."""
        limits = self.rules.limits
        soft = limits.soft(limits.total(self.rules.bits))
        pages = room(self.total_mapped_pages(folio), soft, self.rules.levels.size(level))
        return min(super().soft_room(folio, level), pages)

    def new_level(self, folio: Folio) -> Level:
        """PUDs from the PUD's order on, PMDs from the PMD's, else PTEs."""
        return Level.PUD if folio.order >= self.rules.levels.pud else super().new_level(folio)

    def total_mapped_pages(self, folio: Folio) -> int:
        """The series' accessor: the sum of the sizes of all mappings (small and hugetlb folios: the mapcount)."""
        if not folio.is_large or folio.kind.is_hugetlb:
            return self.mapcount(folio)
        return self.of(folio).total_mapped_pages

    def average_page_mapcount(self, folio: Folio) -> int:
        """Mapped pages per page, rounded half up, at least 1 while mapped.

        Posted, a hugetlb folio's mapcount is divided by its pages as well, which was not meant: literal does that.
        """
        total = self.total_mapped_pages(folio)
        if total == 0 or not folio.is_large or (folio.kind.is_hugetlb and not self.rules.literal):
            return total
        return max((total + folio.nr_pages // 2) >> folio.order, 1)

    def page_mapcount(self, folio: Folio, page: int) -> int:
        """The folio's average."""
        return self.average_page_mapcount(folio)

    def mapped_pages_at_most(self, folio: Folio) -> int:
        """The sum of the sizes of all mappings, at most the folio's pages."""
        return min(self.total_mapped_pages(folio), folio.nr_pages)

    def page_is_exclusive(self, folio: Folio, page: int) -> bool:
        """The folio is certainly mapped by one mm only."""
        return not self.maybe_mapped_shared(folio)

    def _count(self, folio: Folio, level: Level, n: int) -> int:
        """Move the total by n (signed) pages and return the number of mappings they are."""
        counters = self.of(folio)
        counters.total_mapped_pages = wrap(counters.total_mapped_pages + n, self.rules.bits)
        return abs(n) >> self.rules.levels.order(level)

    def _pmd_pages(self, folio: Folio, level: Level, first_or_last: bool) -> int:
        """Pages by which the PMD-mapped statistic moves: only PMD-sized folios, at their first and last PMD."""
        return folio.nr_pages if first_or_last and level == Level.PMD and folio.order == self.rules.levels.pmd else 0

    def _add_large(self, folio: Folio, level: Level, first: int, n: int, mm: Mm) -> None:
        nr_mappings = self._count(folio, level, n)
        mapcount = self.add_large_mapcount(folio, nr_mappings, mm)
        excess = self.of(folio).total_mapped_pages - mapcount
        nr_pmd = self._pmd_pages(folio, level, excess == n - nr_mappings)
        self.move_stats(folio, folio.nr_pages if mapcount == nr_mappings else 0, nr_pmd)

    def _dup_large(self, folio: Folio, level: Level, first: int, n: int, mm: Mm) -> None:
        self.add_large_mapcount(folio, self._count(folio, level, n), mm)

    def _remove_large(self, folio: Folio, level: Level, first: int, n: int, mm: Mm) -> bool:
        mapcount = self.sub_large_mapcount(folio, self._count(folio, level, -n), mm)
        total = self.of(folio).total_mapped_pages
        nr_pmd = self._pmd_pages(folio, level, total == mapcount)
        self.move_stats(folio, 0 if mapcount else -folio.nr_pages, -nr_pmd)
        return 0 < total < folio.nr_pages

    def _add_new_large(self, folio: Folio, mm: Mm) -> int:
        level = self.new_level(folio)
        self.set_large_mapcount(folio, self._count(folio, level, folio.nr_pages), mm)
        return self._pmd_pages(folio, level, True)

    def exclusive_warning(self, folio: Folio, level: Level, first: int, n: int) -> str | None:
        """The series keeps the check for small and hugetlb folios only."""
        checked = not folio.is_large or folio.kind.is_hugetlb
        if not checked or self.mapcount(folio) <= 1 or not folio.exclusive.any(first, n):
            return None
        return f"{self.name}: {folio!r} is marked exclusive and mapped more than once"

    def fields(self, folio: Folio) -> dict[str, int]:
        """`_mapcount` of a small folio; large mapcount, total and the slots of a large one."""
        counters = self.of(folio)
        if not folio.is_large:
            return {"_mapcount": counters.mapcount}
        large = {"_large_mapcount": counters.large_mapcount, "_total_mapped_pages": counters.total_mapped_pages}
        return large | self.slot_fields(folio)

    def free_fields(self, folio: Folio) -> dict[str, int]:
        """`_total_mapped_pages` must be 0 as well."""
        return super().free_fields(folio) | ({"_total_mapped_pages": 0} if folio.is_large else {})
