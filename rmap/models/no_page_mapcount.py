"""Model N, `no-page-mapcount`: mainline >= 6.15 with CONFIG_NO_PAGE_MAPCOUNT, no counter in any tail page."""

from __future__ import annotations

from typing import ClassVar

from ..folio import Folio
from ..levels import Level
from ..mm_id import Mm
from .entire import EntireMapcountModel


class NoPageMapcount(EntireMapcountModel):
    """NR_*_MAPPED counts the whole folio from its first to its last mapping; pages report the folio's average.

    >>> from ..folio import Kind
    >>> from ..levels import Rules
    >>> model, folio, mm = NoPageMapcount(Rules()), Folio(4, Kind.FILE), Mm(1)
    >>> model.adopt(folio)
    >>> model.add(folio, Level.PTE, 2, 3, mm)
    >>> model.page_mapcount(folio, 2), model.page_mapcount(folio, 5), model.stats.nr
    (1, 1, [0, 16, 0, 0, 0])
    """

    name: ClassVar[str] = "no-page-mapcount"

    def page_mapcount(self, folio: Folio, page: int) -> int:
        """The folio's average."""
        return self.average_page_mapcount(folio)

    def mapped_pages_at_most(self, folio: Folio) -> int:
        """All pages under an entire mapping, else as many as there are PTE mappings."""
        return folio.nr_pages if self.entire_mapcount(folio) else min(self.mapcount(folio), folio.nr_pages)

    def page_is_exclusive(self, folio: Folio, page: int) -> bool:
        """The folio is certainly mapped by one mm only."""
        return not self.maybe_mapped_shared(folio)

    def _add_large(self, folio: Folio, level: Level, first: int, n: int, mm: Mm) -> None:
        nr_pmd = 0
        nr_mappings = n
        if level != Level.PTE:
            counters = self.of(folio)
            counters.entire_mapcount += 1
            nr_pmd = folio.nr_pages if level == Level.PMD and counters.entire_mapcount == 0 else 0
            nr_mappings = 1
        mapcount = self.add_large_mapcount(folio, nr_mappings, mm)
        self.move_stats(folio, folio.nr_pages if mapcount == nr_mappings else 0, nr_pmd)

    def _dup_large(self, folio: Folio, level: Level, first: int, n: int, mm: Mm) -> None:
        if level != Level.PTE:
            self.of(folio).entire_mapcount += 1
        self.add_large_mapcount(folio, n if level == Level.PTE else 1, mm)

    def _remove_large(self, folio: Folio, level: Level, first: int, n: int, mm: Mm) -> bool:
        nr_pmd = 0
        if level == Level.PTE:
            mapcount = self.sub_large_mapcount(folio, n, mm)
            partially_mapped = 0 < mapcount < folio.nr_pages and self.entire_mapcount(folio) == 0
        else:
            counters = self.of(folio)
            counters.entire_mapcount -= 1
            last = counters.entire_mapcount == -1
            nr_pmd = folio.nr_pages if level == Level.PMD and last else 0
            mapcount = self.sub_large_mapcount(folio, 1, mm)
            partially_mapped = last and 0 < mapcount < folio.nr_pages
        self.move_stats(folio, 0 if mapcount else -folio.nr_pages, -nr_pmd)
        return partially_mapped

    def _add_new_large(self, folio: Folio, mm: Mm) -> int:
        if self.new_level(folio) == Level.PTE:
            self.set_large_mapcount(folio, folio.nr_pages, mm)
            return 0
        self.of(folio).entire_mapcount = 0
        self.set_large_mapcount(folio, 1, mm)
        return folio.nr_pages

    def exclusive_warning(self, folio: Folio, level: Level, first: int, n: int) -> str | None:
        """Warn if a page marked exclusive belongs to a folio with several entire mappings (small: mappings)."""
        if not folio.exclusive.any(first, n):
            return None
        twice = self.entire_mapcount(folio) > 1 if folio.is_large else self.mapcount(folio) > 1
        return f"{self.name}: a page of {folio!r} is marked exclusive and mapped more than once" if twice else None
