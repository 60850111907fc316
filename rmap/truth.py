"""The figures a folio's counters must show, recounted by brute force from a bare list of its mappings.

Nothing here uses the models' arithmetic. Whoever lists the mappings (from page tables, or from a Stream) gets the sums,
and `problems` names every counter of a model that disagrees. Slots and the shared bit depend on history; of them only
what must hold in every history is checked.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from .calls import Accounting
from .folio import Folio
from .levels import Level, LevelOrders
from .mm_id import MM_ID_DUMMY
from .models import Model, Precise, TotalMappedPages
from .models.entire import EntireMapcountModel
from .models.precise import ENTIRELY_MAPPED
from .stats import Nr

Mapping = tuple[int, Level, int, int]
"""One or several equal mappings: mm id, level, first page of the folio, how many."""


@dataclass
class Truth:
    """What a list of mappings adds up to.

    `mappings` is the number of entries, `total` the pages they map in sum, `entire` the entries above PTEs, `pmds` of
    those the PMDs, `pages` how often each page is mapped, `ptes` how often by PTEs, `by_mm` the entries of each mm.
    """

    mappings: int
    total: int
    entire: int
    pmds: int
    pages: list[int]
    ptes: list[int]
    by_mm: Counter[int]

    @property
    def mapped_pages(self) -> int:
        """Pages that at least one entry maps."""
        return len(self.pages) - self.pages.count(0)


def recount(nr_pages: int, mappings: Iterable[Mapping], levels: LevelOrders) -> Truth:
    """Add the mappings up.

    >>> truth = recount(512, [(1, Level.PMD, 0, 1), (2, Level.PTE, 7, 1)], LevelOrders())
    >>> truth.mappings, truth.total, truth.pages[7], truth.mapped_pages
    (2, 513, 2, 512)
    """
    truth = Truth(0, 0, 0, 0, [0] * nr_pages, [0] * nr_pages, Counter())
    for mm_id, level, first, times in mappings:
        size = levels.size(level)
        truth.mappings += times
        truth.total += times * size
        truth.entire += times if level != Level.PTE else 0
        truth.pmds += times if level == Level.PMD else 0
        for page in range(first, first + size):
            truth.pages[page] += times
        if level == Level.PTE:
            truth.ptes[first] += times
        truth.by_mm[mm_id] += times
    return truth


def problems(model: Model, folio: Folio, truth: Truth) -> list[str]:
    """One sentence for each figure of the model that disagrees with the recount; empty if all agree."""
    if model.of(folio).refused is not None:
        return []
    expected: dict[str, tuple[object, object]] = {"mapcount": (model.mapcount(folio), truth.mappings)}
    if folio.kind.is_hugetlb:
        if isinstance(model, EntireMapcountModel):
            expected["entire mapcount"] = (model.entire_mapcount(folio), truth.mappings)
    else:
        expected |= _statistics(model, folio, truth)
        if folio.is_large:
            expected |= _large(model, folio, truth)
    found = [
        f"{model.name}: {folio!r}: {what} is {got}, recounted {want}"
        for what, (got, want) in expected.items()
        if got != want
    ]
    return found + (_slot_problems(model, folio, truth) if folio.is_large and not folio.kind.is_hugetlb else [])


def _statistics(model: Model, folio: Folio, truth: Truth) -> dict[str, tuple[object, object]]:
    if isinstance(model, Precise) and not truth.entire:
        mapped = truth.mapped_pages
    else:
        mapped = folio.nr_pages if truth.mappings else 0
    pmd = folio.nr_pages if truth.pmds and folio.order == model.rules.levels.pmd else 0
    share = model.of(folio).nr
    return {
        "share of NR_*_MAPPED": (share[Nr.ANON_MAPPED] + share[Nr.FILE_MAPPED], mapped),
        "share of the PMD-mapped statistics": (sum(share[Nr.ANON_THPS :]), pmd),
    }


def _large(model: Model, folio: Folio, truth: Truth) -> dict[str, tuple[object, object]]:
    counters = model.of(folio)
    expected: dict[str, tuple[object, object]] = {}
    if isinstance(model, EntireMapcountModel):
        expected["entire mapcount"] = (model.entire_mapcount(folio), truth.entire)
    if isinstance(model, TotalMappedPages):
        expected["total mapped pages"] = (counters.total_mapped_pages, truth.total)
    if isinstance(model, Precise):
        counts = [value + 1 for _, n, value in model.pages(folio).runs() for _ in range(n)]
        expected["page mapcounts"] = (counts, truth.ptes)
        nr_pages_mapped = folio.nr_pages - truth.ptes.count(0) + (ENTIRELY_MAPPED if truth.entire else 0)
        expected["_nr_pages_mapped"] = (counters.nr_pages_mapped, nr_pages_mapped)
        expected["mapped pages"] = (model.mapped_pages_at_most(folio), truth.mapped_pages)
    return expected


def _slot_problems(model: Model, folio: Folio, truth: Truth) -> list[str]:
    counters = model.of(folio)
    slots = list(zip(counters.mm_id, counters.mm_id_mapcount, strict=True))
    used = [(mm_id, count + 1) for mm_id, count in slots if mm_id != MM_ID_DUMMY]
    mms = sum(count > 0 for count in truth.by_mm.values())
    checks = {
        "a slot counts more than its mm maps": any(count > truth.by_mm[mm_id] for mm_id, count in used),
        "a free slot has a count": any(count != -1 for mm_id, count in slots if mm_id == MM_ID_DUMMY),
        "a used slot counts nothing": any(count < 1 for _, count in used),
        "both slots name one mm": len(used) == 2 and used[0][0] == used[1][0],
        "both slots are used without the shared bit": len(used) == 2 and not counters.shared,
        "unmapped but slots or the shared bit remain": not truth.mappings and (bool(used) or counters.shared),
        "more pages are mapped than it believes possible": truth.mapped_pages > model.mapped_pages_at_most(folio),
        "several mms map it and it reads as exclusive": mms > 1 and not model.maybe_mapped_shared(folio),
    }
    return [f"{model.name}: {folio!r}: {problem}" for problem, bad in checks.items() if bad]


def statistics_problems(acct: Accounting, folios: Iterable[Folio]) -> list[str]:
    """Whether each model's node statistics are the sum of its folios' shares."""
    folios = list(folios)
    found = []
    for model in acct.models.values():
        shares = [sum(model.of(folio).nr[item] for folio in folios) for item in Nr]
        if shares != model.stats.nr:
            found.append(f"{model.name}: statistics are {model.stats.nr}, the folios' shares add up to {shares}")
    return found
