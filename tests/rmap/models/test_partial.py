"""The scan for partially mapped folios that were missed at unmap, and the deferred-split pass."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from ptwalk.rmap.calls import Accounting
from ptwalk.rmap.folio import Flags, Folio, Kind
from ptwalk.rmap.levels import Level
from ptwalk.rmap.models import MODELS
from ptwalk.rmap.partial import ScanReport, deferred_split_scan, scan_partially_mapped
from ptwalk.rmap.stream import Stream

PTE = Level.PTE


def half_dropped_by_both() -> Stream:
    """The series' own example: split, forked, and both mms drop the same half."""
    s = Stream(Accounting())
    s.folios = [s.acct.folio(9, Kind.ANON)]
    s.new(0, 1, True)
    s.split(0, 1, 0)
    s.fork(1, 2)
    s.rem(0, 1, PTE, 0, 256)
    s.rem(0, 2, PTE, 0, 256)
    return s


def scan(s: Stream, model: str) -> ScanReport:
    def mapped_ranges(folio: Folio) -> Iterable[tuple[int, int]]:
        f = s.folios.index(folio)
        return [(first, n) for (g, _), mapped in s.maps.items() if g == f for _, first, n in mapped.runs()]

    return scan_partially_mapped(s.acct.models[model], s.folios, mapped_ranges)


@pytest.mark.parametrize("model", ["total-mapped-pages", "no-page-mapcount"])
def test_the_scan_finds_what_unmap_missed(model: str) -> None:
    s = half_dropped_by_both()
    folio = s.folios[0]
    assert s.acct.models["precise"].of(folio).partially_mapped
    assert not s.acct.models[model].of(folio).partially_mapped, "512 mapped pages in sum, as many as the folio has"
    report = scan(s, model)
    assert (report.walked, report.flagged) == (1, [folio])
    assert s.acct.models[model].of(folio).partially_mapped
    assert s.acct.models[model].stats.mthp() == (1, 1, 1)
    assert s.acct.models[model].stats.thp_deferred_split_page == 1
    assert scan(s, model).skipped == {"flagged already": 1}


@pytest.mark.parametrize("model", MODELS)
def test_the_next_exit_would_have_found_it(model: str) -> None:
    s = half_dropped_by_both()
    s.exit(2)
    assert s.acct.models[model].of(s.folios[0]).partially_mapped


def test_what_the_scan_leaves_alone() -> None:
    s = half_dropped_by_both()
    acct = s.acct
    extra = [acct.folio(9, Kind.SHMEM), acct.folio(4, Kind.ANON), acct.folio(1, Kind.ANON), acct.folio(4, Kind.ANON)]
    s.folios += extra
    extra[3].flags |= Flags.DEVICE_PRIVATE
    acct.set_swapcache(s.folios[0], True)
    report = scan(s, "total-mapped-pages")
    assert report.skipped == {
        "the deferred split would not take it": 2,
        "never split when partially mapped": 2,
        "unmapped": 1,
    }
    acct.set_swapcache(s.folios[0], False)
    s.new(2, 7, True)
    assert scan(s, "total-mapped-pages").skipped["fully mapped by one mm"] == 1


@pytest.mark.parametrize("model", MODELS)
def test_an_unmap_while_in_the_swap_cache_is_found_without_a_walk(model: str) -> None:
    s = Stream(Accounting())
    s.folios = [s.acct.folio(4, Kind.ANON)]
    s.new(0, 1, True)
    s.swc(0, True)
    s.rem(0, 1, PTE, 0, 8)
    s.swc(0, False)
    assert not s.acct.models[model].of(s.folios[0]).partially_mapped
    report = scan(s, model)
    assert (report.walked, report.flagged) == (0, s.folios)


def test_a_fully_mapped_shared_folio_is_walked_and_kept() -> None:
    s = Stream(Accounting())
    s.folios = [s.acct.folio(4, Kind.ANON)]
    s.new(0, 1, True)
    s.fork(1, 2)
    report = scan(s, "total-mapped-pages")
    assert (report.walked, report.flagged) == (1, [])
    s.rem(0, 1, PTE, 0, 8)
    s.rem(0, 2, PTE, 8, 8)
    assert scan(s, "total-mapped-pages").flagged == [], "each page is still mapped once"


def test_the_pass_splits_drops_and_requeues() -> None:
    acct = Accounting(["total-mapped-pages"])
    model, partial, stuck, whole, idle = acct.driver, *(acct.folio(9, Kind.ANON) for _ in range(4))
    for folio in (partial, stuck):
        acct.deferred_split_folio(folio, partially_mapped=True)
    for folio in (whole, idle):
        acct.deferred_split_folio(folio, partially_mapped=False)
    report = deferred_split_scan(model, split=lambda f: f is not stuck, underused=lambda f: f is idle)
    assert (report.split, report.requeued, report.dropped) == ([partial, idle], [stuck], [whole])
    assert list(model.deferred_split_queue) == [stuck]
    assert not model.of(partial).partially_mapped
    assert model.stats.mthp() == (0, 2, 1)
    assert deferred_split_scan(model, split=lambda f: True, nr_to_scan=0).split == []
