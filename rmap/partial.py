"""Partially mapped folios: what the deferred split would gain, and who notices that it could.

total-mapped-pages notices at unmap only while fewer pages are mapped in sum than the folio has; a folio shared by two
mms that both dropped the same half is missed. The scan closes that gap at reclaim time: reclaim walks the folio's
mappings anyway (folio_referenced), so it can note which pages any entry maps, and queue the folio if some page is not.
The series leaves this as an open TODO; the rule below is this project's proposal.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from .folio import Flags, Folio
from .models import Model

MappedRanges = Callable[[Folio], Iterable[tuple[int, int]]]
"""The (first page, pages) ranges of a folio that any page-table entry maps; they may overlap."""


@dataclass
class ScanReport:
    """What a scan saw: folios whose mappings it had to walk, folios it left out by reason, folios it flagged.

    >>> ScanReport().walked
    0
    """

    walked: int = 0
    skipped: Counter[str] = field(default_factory=Counter)
    flagged: list[Folio] = field(default_factory=list)


def skip_reason(model: Model, folio: Folio) -> str | None:
    """Why this folio cannot be partially mapped or could not be queued, from counters only; None if it may be both."""
    if model.of(folio).refused is not None:
        return "not counted by this model"
    if not folio.is_anon or folio.kind.is_hugetlb or folio.is_device_private:
        return "never split when partially mapped"
    if folio.order <= 1 or folio.in_swapcache:
        return "the deferred split would not take it"
    if model.of(folio).partially_mapped:
        return "flagged already"
    if model.mapcount(folio) == 0:
        return "unmapped"
    if model.mapped_pages_at_most(folio) >= folio.nr_pages and not model.maybe_mapped_shared(folio):
        return "fully mapped by one mm"
    return None


def scan_partially_mapped(model: Model, folios: Iterable[Folio], mapped_ranges: MappedRanges) -> ScanReport:
    """Reclaim's scan: flag and queue each anonymous folio of which some pages, but not all, are mapped.

    Counters alone settle a folio that cannot have all pages mapped (missed at unmap when it was in the swap cache) and
    one that a single mm maps entirely; only possibly shared folios with enough mappings are walked.
    """
    report = ScanReport()
    for folio in folios:
        reason = skip_reason(model, folio)
        if reason is not None:
            report.skipped[reason] += 1
            continue
        partial = model.mapped_pages_at_most(folio) < folio.nr_pages
        if not partial:
            report.walked += 1
            partial = 0 < distinct_pages(mapped_ranges(folio)) < folio.nr_pages
        if partial:
            model.deferred_split_folio(folio, partially_mapped=True)
            report.flagged.append(folio)
    return report


def distinct_pages(ranges: Iterable[tuple[int, int]]) -> int:
    """Pages in the union of the ranges.

    >>> distinct_pages([(0, 4), (2, 4), (8, 1)])
    7
    """
    total = end = 0
    for first, n in sorted(ranges):
        total += max(first + n - max(first, end), 0)
        end = max(end, first + n)
    return total


@dataclass
class SplitReport:
    """What a deferred-split pass did with the queue.

    >>> SplitReport().split
    []
    """

    split: list[Folio] = field(default_factory=list)
    requeued: list[Folio] = field(default_factory=list)
    dropped: list[Folio] = field(default_factory=list)


def deferred_split_scan(
    model: Model,
    split: Callable[[Folio], bool],
    underused: Callable[[Folio], bool] = lambda folio: False,
    nr_to_scan: int | None = None,
) -> SplitReport:
    """deferred_split_scan: take folios off this model's queue in order and split those worth it.

    Partially mapped folios are split; others only if `underused` (mostly zero-filled, and not mlocked). `split` does
    the split and tells whether it succeeded; a partially mapped folio that could not be split goes back to the queue.
    """
    report = SplitReport()
    for folio in list(model.deferred_split_queue)[:nr_to_scan]:
        partially_mapped = model.of(folio).partially_mapped
        if not partially_mapped and (Flags.MLOCKED in folio.flags or not underused(folio)):
            del model.deferred_split_queue[folio]
            report.dropped.append(folio)
        elif split(folio):
            model.unqueue_deferred_split(folio)
            report.split.append(folio)
        elif partially_mapped:
            model.deferred_split_queue[folio] = model.deferred_split_queue.pop(folio)
            report.requeued.append(folio)
        else:
            del model.deferred_split_queue[folio]
            report.dropped.append(folio)
    return report
