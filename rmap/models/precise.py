"""Model P, `precise`: mainline >= 6.15 with CONFIG_PAGE_MAPCOUNT, a mapcount in every page."""

from __future__ import annotations

from typing import ClassVar

from ..folio import Folio
from ..levels import Level
from ..mm_id import Mm
from ..runs import PageRuns
from .entire import EntireMapcountModel

ENTIRELY_MAPPED = 0x800000
"""Added to `_nr_pages_mapped` while at least one entire mapping exists."""
FOLIO_PAGES_MAPPED = ENTIRELY_MAPPED - 1
"""The part of `_nr_pages_mapped` that counts pages with a PTE mapping."""


class Precise(EntireMapcountModel):
    """NR_*_MAPPED counts the pages that are mapped; partially mapped is noticed when that number falls.

    >>> from ..folio import Kind
    >>> from ..levels import Rules
    >>> model, folio, mm = Precise(Rules()), Folio(4, Kind.FILE), Mm(1)
    >>> model.adopt(folio)
    >>> model.add(folio, Level.PTE, 2, 3, mm)
    >>> model.page_mapcount(folio, 2), model.page_mapcount(folio, 5), model.stats.nr
    (1, 0, [0, 3, 0, 0, 0])
    """

    name: ClassVar[str] = "precise"

    def adopt(self, folio: Folio) -> None:
        """Refuse a folio whose page count does not fit below ENTIRELY_MAPPED."""
        if folio.nr_pages > FOLIO_PAGES_MAPPED and not folio.kind.is_hugetlb:
            raise self.rejected(f"{folio.nr_pages} pages do not fit the 23 bits of _nr_pages_mapped")
        super().adopt(folio)

    def _page_mapcounts(self, folio: Folio) -> PageRuns | None:
        return PageRuns(folio.nr_pages, -1) if folio.is_large else None

    def pages(self, folio: Folio) -> PageRuns:
        """`_mapcount` of each page of a large folio, -1 biased."""
        pages = self.of(folio).page_mapcount
        assert pages is not None, "small folios have one _mapcount"
        return pages

    def check_remove(self, folio: Folio, level: Level, first: int, n: int) -> None:
        """Also refuse to remove a PTE mapping of a page that has none."""
        super().check_remove(folio, level, first, n)
        if level == Level.PTE and folio.is_large and self.pages(folio).minimum(first, n) < 0:
            raise self.rejected_page(folio)

    def page_mapcount(self, folio: Folio, page: int) -> int:
        """folio_precise_page_mapcount: mappings that cover exactly this page."""
        if not folio.is_large:
            return self.mapcount(folio)
        return self.pages(folio)[page] + 1 + self.entire_mapcount(folio)

    def mapped_pages_at_most(self, folio: Folio) -> int:
        """All pages under an entire mapping, else those with a PTE mapping: exact."""
        return folio.nr_pages if self.entire_mapcount(folio) else self.of(folio).nr_pages_mapped

    def page_is_exclusive(self, folio: Folio, page: int) -> bool:
        """Mapped exactly once (hugetlb: the folio)."""
        return self.page_mapcount(folio, page) == 1

    def _add_large(self, folio: Folio, level: Level, first: int, n: int, mm: Mm) -> None:
        counters = self.of(folio)
        nr = nr_pmd = 0
        if level == Level.PTE:
            pages = self.pages(folio)
            newly = pages.count(first, n, -1)
            pages.add(first, n, 1)
            counters.nr_pages_mapped += newly
            if counters.nr_pages_mapped < ENTIRELY_MAPPED:
                nr = newly
        else:
            counters.entire_mapcount += 1
            if counters.entire_mapcount == 0:
                nr_pmd = folio.nr_pages if level == Level.PMD else 0
                nr = folio.nr_pages - counters.nr_pages_mapped
                counters.nr_pages_mapped += ENTIRELY_MAPPED
        self.add_large_mapcount(folio, n if level == Level.PTE else 1, mm)
        self.move_stats(folio, nr, nr_pmd)

    def _dup_large(self, folio: Folio, level: Level, first: int, n: int, mm: Mm) -> None:
        if level == Level.PTE:
            self.pages(folio).add(first, n, 1)
        else:
            self.of(folio).entire_mapcount += 1
        self.add_large_mapcount(folio, n if level == Level.PTE else 1, mm)

    def _remove_large(self, folio: Folio, level: Level, first: int, n: int, mm: Mm) -> bool:
        counters = self.of(folio)
        self.sub_large_mapcount(folio, n if level == Level.PTE else 1, mm)
        nr = nr_pmd = 0
        if level == Level.PTE:
            pages = self.pages(folio)
            pages.add(first, n, -1)
            last = pages.count(first, n, -1)
            counters.nr_pages_mapped -= last
            if counters.nr_pages_mapped < ENTIRELY_MAPPED:
                nr = last
            partially_mapped = nr > 0 and counters.nr_pages_mapped > 0
        else:
            counters.entire_mapcount -= 1
            if counters.entire_mapcount == -1:
                counters.nr_pages_mapped -= ENTIRELY_MAPPED
                nr_pmd = folio.nr_pages if level == Level.PMD else 0
                nr = folio.nr_pages - counters.nr_pages_mapped
            partially_mapped = 0 < nr < nr_pmd
        self.move_stats(folio, -nr, -nr_pmd)
        return partially_mapped

    def _add_new_large(self, folio: Folio, mm: Mm) -> int:
        counters = self.of(folio)
        if self.new_level(folio) == Level.PTE:
            self.pages(folio).fill(0, folio.nr_pages, 0)
            counters.nr_pages_mapped = folio.nr_pages
            self.set_large_mapcount(folio, folio.nr_pages, mm)
            return 0
        counters.entire_mapcount = 0
        counters.nr_pages_mapped = ENTIRELY_MAPPED
        self.set_large_mapcount(folio, 1, mm)
        return folio.nr_pages

    def exclusive_warning(self, folio: Folio, level: Level, first: int, n: int) -> str | None:
        """Warn if a page marked exclusive is mapped twice (a split legally holds one PMD and one PTE mapping)."""
        if not folio.exclusive.any(first, n):
            return None
        if not folio.is_large or folio.kind.is_hugetlb:
            twice = self.mapcount(folio) > 1
        else:
            twice = self.entire_mapcount(folio) > 1 or any(
                count > 0 and folio.exclusive.any(start, pages)
                for start, pages, count in self.pages(folio).runs(first, n)
            )
        return f"{self.name}: a page of {folio!r} is marked exclusive and mapped more than once" if twice else None

    def fields(self, folio: Folio) -> dict[str, int]:
        """Also `_nr_pages_mapped`."""
        fields = super().fields(folio)
        return fields | ({"_nr_pages_mapped": self.of(folio).nr_pages_mapped} if folio.is_large else {})

    def free_fields(self, folio: Folio) -> dict[str, int]:
        """`_nr_pages_mapped` must be 0 as well."""
        return super().free_fields(folio) | ({"_nr_pages_mapped": 0} if folio.is_large else {})
