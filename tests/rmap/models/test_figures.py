"""smaps' account step, hugetlb lines, kpagecount and bit 56, beyond what the stories already show."""

from __future__ import annotations

from typing import Any

import pytest

from ptwalk.rmap.calls import Accounting
from ptwalk.rmap.figures import (
    PSS_SHIFT,
    Entry,
    MemSizeStats,
    kpagecount,
    mapmax,
    pagemap_exclusive,
    pss_kb,
    smaps_account,
    smaps_hugetlb,
)
from ptwalk.rmap.folio import Flags, Folio, Kind
from ptwalk.rmap.levels import Level, Rules
from ptwalk.rmap.mm_id import Mm
from ptwalk.rmap.models import MODELS

PTE, PMD, PUD = Level.PTE, Level.PMD, Level.PUD
P, N, T = MODELS


def mapped(model: str, order: int, kind: Kind, *ranges: tuple[int, Level, int, int], **rules: Any) -> Any:
    acct = Accounting([model], rules=Rules(**rules))
    folio = acct.folio(order, kind, fresh=False)
    for mm, level, first, n in ranges:
        acct.get(folio, n >> acct.rules.levels.order(level))
        add = acct.add_anon_rmap if folio.is_anon else acct.add_file_rmap
        add(folio, Mm(mm), level, first, n)
    return acct, acct.driver, folio


def smaps(model: Any, folio: Folio, *entries: Entry) -> MemSizeStats:
    stats = MemSizeStats()
    for entry in entries:
        smaps_account(stats, model, folio, entry)
    return stats


@pytest.mark.parametrize(("model", "raw"), [(P, 2863311360), (N, 2863311360), (T, 2863311530)])
def test_rounding_once_or_per_page(model: str, raw: int) -> None:
    _, driver, folio = mapped(model, 9, Kind.ANON, (1, PMD, 0, 512), (2, PMD, 0, 512), (3, PMD, 0, 512))
    stats = smaps(driver, folio, Entry(PMD, 0))
    assert (stats.pss, pss_kb(stats.pss), stats.pss_anon) == (raw, 682, raw)


@pytest.mark.parametrize(("model", "pss", "mapped_kb"), [(P, 0, 4), (N, 4, 2048), (T, 4, 2048)])
def test_one_page_mapped_by_512_mms(model: str, pss: int, mapped_kb: int) -> None:
    """P: each mm has 8 bytes of Pss; N and T: the average is 1, all 512 mms together claim 2048 kB."""
    _, driver, folio = mapped(model, 9, Kind.ANON, *((mm, PTE, 0, 1) for mm in range(1, 513)))
    stats = smaps(driver, folio, Entry(PTE, 0))
    assert pss_kb(stats.pss) == pss
    assert driver.stats.meminfo(4096)["AnonPages"] == mapped_kb
    assert (kpagecount(driver, folio, 0), kpagecount(driver, folio, 1)) == ((512, 0) if model == P else (1, 1))


@pytest.mark.parametrize(("model", "first", "second"), [(P, 32, 2016), (N, 64, 2048), (T, 64, 2048)])
def test_pss_need_not_sum_to_memory(model: str, first: int, second: int) -> None:
    _, driver, folio = mapped(model, 9, Kind.SHMEM, (1, PTE, 0, 16), (2, PTE, 0, 512))
    one = smaps(driver, folio, *(Entry(PTE, page) for page in range(16)))
    other = smaps(driver, folio, *(Entry(PTE, page) for page in range(512)))
    assert (pss_kb(one.pss), pss_kb(other.pss), one.pss) == (first, second, one.pss_shmem)
    assert other.uss == (496 * 4096 if model == P else 0)


def test_one_folio_mapped_by_different_mms_halfway() -> None:
    _, driver, folio = mapped(T, 10, Kind.SHMEM, (1, PMD, 0, 512), (2, PMD, 512, 512))
    stats = smaps(driver, folio, Entry(PMD, 0))
    assert (stats.resident, stats.uss, stats.shmem_thp) == (2 << 20, 0, 2 << 20)
    assert not pagemap_exclusive(driver, folio, 0)


@pytest.mark.parametrize(("literal", "rss"), [(False, 2048), (True, 4096)])
def test_the_posted_size_of_a_pmd(literal: bool, rss: int) -> None:
    """Posted, smaps counts the folio's size for every PMD that maps a part of it."""
    _, driver, folio = mapped(T, 10, Kind.SHMEM, (1, PMD, 0, 512), literal=literal)
    stats = smaps(driver, folio, Entry(PMD, 0))
    assert (stats.resident >> 10, stats.shmem_thp >> 10) == (rss, 2048)


@pytest.mark.parametrize("model", MODELS)
def test_not_present_is_shared_and_a_single_reference_is_private(model: str) -> None:
    _, driver, folio = mapped(model, 0, Kind.ANON, (1, PTE, 0, 1))
    assert smaps(driver, folio, Entry(PTE, 0)).private_clean == 4096
    gone = smaps(driver, folio, Entry(PTE, 0, present=False))
    assert (gone.shared_clean, gone.private_clean, gone.pss) == (4096, 0, 4096 << PSS_SHIFT)


def test_which_lines_an_entry_reaches() -> None:
    _, driver, folio = mapped(P, 0, Kind.ANON, (1, PTE, 0, 1), (2, PTE, 0, 1))
    stats = smaps(driver, folio, Entry(PTE, 0, young=True, dirty=True, locked=True))
    half = 2048 << PSS_SHIFT
    assert stats == MemSizeStats(
        resident=4096,
        shared_dirty=4096,
        referenced=4096,
        anonymous=4096,
        pss=half,
        pss_anon=half,
        pss_dirty=half,
        pss_locked=half,
    )
    folio.flags = Flags.IDLE
    assert smaps(driver, folio, Entry(PTE, 0)).lazyfree == 4096, "clean and no longer swap-backed"
    folio.flags = Flags.DIRTY | Flags.REFERENCED
    again = smaps(driver, folio, Entry(PTE, 0))
    assert (again.lazyfree, again.shared_dirty, again.referenced) == (0, 4096, 4096)


def test_ksm_file_and_thp_lines() -> None:
    _, driver, ksm = mapped(N, 0, Kind.KSM, (1, PTE, 0, 1))
    assert smaps(driver, ksm, Entry(PTE, 0)).ksm == 4096
    _, driver, file = mapped(N, 9, Kind.FILE, (1, PMD, 0, 512))
    stats = smaps(driver, file, Entry(PMD, 0))
    assert (stats.file_thp, stats.pss_file, stats.anonymous) == (2 << 20, stats.pss, 0)
    _, driver, dax = mapped(P, 18, Kind.FILE, (1, PUD, 0, 262144))
    stats = smaps(driver, dax, Entry(PUD, 0))
    assert (stats.resident, stats.file_thp) == (1 << 30, 0)


@pytest.mark.parametrize("model", MODELS)
def test_hugetlb(model: str) -> None:
    acct = Accounting([model])
    folio, stats = acct.folio(9, Kind.HUGETLB_FILE), MemSizeStats()
    acct.hugetlb_add_rmap(folio)
    smaps_hugetlb(stats, acct.driver, folio)
    assert pagemap_exclusive(acct.driver, folio, 7)
    assert not pagemap_exclusive(acct.driver, folio, 7, pmd_shared=True)
    acct.hugetlb_add_rmap(folio)
    smaps_hugetlb(stats, acct.driver, folio)
    smaps_hugetlb(stats, acct.driver, folio, present=False)
    assert stats == MemSizeStats(private_hugetlb=2 << 20, shared_hugetlb=4 << 20)
    assert [kpagecount(acct.driver, folio, page) for page in (0, 511)] == [2, 2]
    assert mapmax(acct.driver, folio, 0) == 2
    assert not pagemap_exclusive(acct.driver, folio, 0)


def test_page_sizes_other_than_4k() -> None:
    _, driver, folio = mapped(T, 2, Kind.ANON, (1, PTE, 0, 4), (2, PTE, 0, 4), page_size=65536)
    stats = smaps(driver, folio, Entry(PTE, 1))
    assert (stats.resident, pss_kb(stats.pss)) == (65536, 32)
