"""What mainline's two models share: `_entire_mapcount`, and leaf entries above PTEs only for folios of their size."""

from __future__ import annotations

from ..errors import Rejected
from ..folio import Folio
from ..levels import Level
from .base import Model


class EntireMapcountModel(Model):
    """Mainline since 6.15: a PMD or PUD mapping is always a mapping of the entire folio."""

    def check_level(self, folio: Folio, level: Level, first: int, n: int) -> None:
        """A PMD (PUD) maps a folio of exactly its size, one at a time."""
        size = self.rules.levels.size(level)
        if folio.nr_pages != size:
            raise self.rejected(f"a {level.name} maps only a folio of {size} pages, {folio!r} has {folio.nr_pages}")
        if n != size:
            raise self.rejected(f"{n} pages are not one {level.name} mapping of {size} pages")

    def check_remove(self, folio: Folio, level: Level, first: int, n: int) -> None:
        """Also refuse to remove an entire mapping that does not exist."""
        super().check_remove(folio, level, first, n)
        if level != Level.PTE and self.entire_mapcount(folio) == 0:
            raise self.rejected(f"{folio!r} has no {level.name} mapping to remove")

    def check_new(self, folio: Folio) -> None:
        """Orders above the PMD's: mainline would silently count one entire mapping; refused here unless literal."""
        super().check_new(folio)
        if folio.order > self.rules.levels.pmd and not self.rules.literal:
            raise self.rejected(f"folio_add_new_anon_rmap would count {folio!r} as one entire mapping")

    def entire_mapcount(self, folio: Folio) -> int:
        """folio_entire_mapcount: number of PMD, PUD or hugetlb mappings."""
        return self.of(folio).entire_mapcount + 1

    def average_page_mapcount(self, folio: Folio) -> int:
        """Entire mappings, plus the others per page rounded half up; at least 1 while mapped."""
        mapcount = self.mapcount(folio)
        entire = self.entire_mapcount(folio) if folio.is_large else 0
        if not folio.is_large or mapcount <= entire:
            return mapcount
        return max(((mapcount - entire + folio.nr_pages // 2) >> folio.order) + entire, 1)

    def rejected_page(self, folio: Folio) -> Rejected:
        """The error for a page that is not mapped."""
        return self.rejected(f"a page of the range of {folio!r} has no PTE mapping to remove")

    def free_fields(self, folio: Folio) -> dict[str, int]:
        """`_entire_mapcount` must be -1 as well."""
        return super().free_fields(folio) | ({"_entire_mapcount": -1} if folio.is_large else {})

    def fields(self, folio: Folio) -> dict[str, int]:
        """`_mapcount` of a small folio; large and entire mapcount and the slots of a large one."""
        counters = self.of(folio)
        if not folio.is_large:
            return {"_mapcount": counters.mapcount}
        large = {"_large_mapcount": counters.large_mapcount, "_entire_mapcount": counters.entire_mapcount}
        return large | self.slot_fields(folio)
