"""Public rmap calls: what they refuse, what they leave unchanged, slips kept literally, hugetlb, free, split."""

from __future__ import annotations

from typing import Any

import pytest

from ptwalk.arch.errors import InputError
from ptwalk.rmap.calls import EBUSY, Accounting
from ptwalk.rmap.errors import FreeError, Rejected
from ptwalk.rmap.folio import Flags, Folio, Kind
from ptwalk.rmap.levels import ORDERS_BY_PAGE_SIZE, Level, LevelOrders, Rules
from ptwalk.rmap.mm_id import Mm, MmIds
from ptwalk.rmap.models import MODELS, make_model
from ptwalk.rmap.stats import Nr

PTE, PMD, PUD = Level.PTE, Level.PMD, Level.PUD
P, N, T = MODELS


def one(model: str, order: int, kind: Kind, **rules: Any) -> tuple[Accounting, Folio, Mm]:
    acct = Accounting([model], rules=Rules(**rules))
    return acct, acct.folio(order, kind), acct.mm_ids.alloc()


@pytest.mark.parametrize("model", [P, N])
def test_mainline_refuses_a_pmd_on_other_sizes(model: str) -> None:
    acct, folio, mm = one(model, 10, Kind.SHMEM)
    with pytest.raises(Rejected, match=f"{model}: a PMD maps only a folio of 512 pages"):
        acct.add_file_rmap(folio, mm, PMD, 0, 512)
    assert acct.driver.mapcount(folio) == 0
    with pytest.raises(Rejected, match="a PUD maps only a folio of 262144 pages"):
        acct.add_file_rmap(folio, mm, PUD, 0, 1024)


@pytest.mark.parametrize(("first", "n"), [(1, 512), (256, 512), (512, 256), (512, 1024), (-512, 512), (0, 0)])
def test_the_series_refuses_what_is_not_aligned_or_inside(first: int, n: int) -> None:
    acct, folio, mm = one(T, 10, Kind.SHMEM)
    with pytest.raises(Rejected):
        acct.add_file_rmap(folio, mm, PMD, first, n)
    assert acct.driver.fields(folio)["_total_mapped_pages"] == 0


@pytest.mark.parametrize("model", [P, N])
def test_new_anon_above_pmd_size(model: str) -> None:
    """Refused by policy; literally, mainline counts one entire mapping and 1024 huge pages without a warning."""
    acct, folio, mm = one(model, 10, Kind.ANON)
    with pytest.raises(Rejected, match="would count Folio"):
        acct.add_new_anon_rmap(folio, mm)
    acct, folio, mm = one(model, 10, Kind.ANON, literal=True)
    acct.add_new_anon_rmap(folio, mm)
    assert acct.driver.stats.nr == [1024, 0, 1024, 0, 0]
    assert acct.driver.fields(folio)["_entire_mapcount"] == 0
    assert acct.driver.stats.mthp() == (0, 0, 0), "orders above the PMD's are not counted"


@pytest.mark.parametrize("model", MODELS)
def test_what_every_model_refuses(model: str) -> None:
    acct, file, mm = one(model, 4, Kind.FILE)
    anon, huge = acct.folio(4, Kind.ANON), acct.folio(9, Kind.HUGETLB_FILE)
    refused = [
        (lambda: acct.add_anon_rmap(file, mm, PTE, 0, 1), "which is not anonymous yet"),
        (lambda: acct.add_anon_rmap(anon, mm, PTE, 0, 1), "which is not anonymous yet"),
        (lambda: acct.add_new_anon_rmap(file, mm), "which is not a new anon folio"),
        (lambda: acct.add_file_rmap(anon, mm, PTE, 0, 1), "which is anonymous"),
        (lambda: acct.add_file_rmap(huge, mm, PTE, 0, 1), "hugetlb folios have their own rmap functions"),
        (lambda: acct.hugetlb_add_rmap(file), "a hugetlb rmap function was called for"),
        (lambda: acct.hugetlb_remove_rmap(huge), "has no mapping to remove"),
        (lambda: acct.remove_rmap(file, mm, PTE, 0, 1), "only 0 exist"),
        (lambda: acct.add_file_rmap(file, mm, PTE, 10, 7), r"pages 10\.\.16 are not inside a folio of 16 pages"),
        (lambda: acct.try_share_anon_rmap(anon, 3), "page 3 of .* is not marked exclusive"),
        (lambda: acct.unpin(file, 1), "only 0 are held"),
    ]
    for call, message in refused:
        with pytest.raises(Rejected, match=message):
            call()
    assert acct.driver.stats.nr == [0] * 5


def test_removing_pages_that_are_not_mapped() -> None:
    acct, folio, mm = one(P, 4, Kind.FILE)
    acct.add_file_rmap(folio, mm, PTE, 0, 8)
    with pytest.raises(Rejected, match="has no PTE mapping to remove"):
        acct.remove_rmap(folio, mm, PTE, 4, 8)
    acct, folio, mm = one(N, 9, Kind.FILE)
    acct.add_file_rmap(folio, mm, PTE, 0, 8)
    with pytest.raises(Rejected, match="has no PMD mapping to remove"):
        acct.remove_rmap(folio, mm, PMD, 0, 512)
    acct, folio, mm = one(T, 10, Kind.FILE)
    acct.add_file_rmap(folio, mm, PTE, 0, 8)
    with pytest.raises(Rejected, match=r"512 pages of .* to unmap, only 8 are mapped"):
        acct.remove_rmap(folio, mm, PMD, 0, 512)


def test_a_model_that_refuses_leaves_the_folio_and_the_others_go_on() -> None:
    acct = Accounting()
    assert acct.driver.name == T
    folio, other, mm = acct.folio(10, Kind.SHMEM), acct.folio(4, Kind.SHMEM), acct.mm_ids.alloc()
    acct.add_file_rmap(other, mm, PTE, 0, 16)
    acct.add_file_rmap(folio, mm, PTE, 0, 100)
    acct.add_file_rmap(folio, mm, PMD, 512, 512)
    assert [model.name for model in acct.live(folio)] == [T]
    for name in (P, N):
        assert "a PMD maps only a folio of 512 pages" in (acct.models[name].of(folio).refused or "")
        assert acct.models[name].stats.nr[Nr.FILE_MAPPED] == 16, "its share has left the statistics"
    acct.remove_rmap(folio, mm, PMD, 512, 512)
    acct.remove_rmap(folio, mm, PTE, 0, 100)
    acct.free(folio)
    assert acct.models[T].stats.nr[Nr.FILE_MAPPED] == 16


def test_the_driver_is_chosen_by_name() -> None:
    acct = Accounting(driver=P)
    folio, mm = acct.folio(10, Kind.SHMEM), acct.mm_ids.alloc()
    with pytest.raises(Rejected, match=P):
        acct.add_file_rmap(folio, mm, PMD, 0, 512)
    assert [model.name for model in acct.live(folio)] == list(MODELS)
    with pytest.raises(InputError, match="no accounting model of that name"):
        make_model("exact", Rules())


@pytest.mark.parametrize("model", MODELS)
def test_free_checks_every_counter(model: str) -> None:
    acct, folio, mm = one(model, 4, Kind.FILE)
    acct.free(folio)
    acct.add_file_rmap(folio, mm, PTE, 3, 2)
    with pytest.raises(FreeError, match="folio freed with _large_mapcount 1, not -1"):
        acct.free(folio)
    acct.remove_rmap(folio, mm, PTE, 3, 2)
    acct.get(folio, 1)
    with pytest.raises(FreeError, match="folio freed with references 17, not 16"):
        acct.free(folio)
    acct.put(folio, 1)
    acct.pin(folio, mm, 1)
    with pytest.raises(FreeError, match="_pincount 1"):
        acct.free(folio)


@pytest.mark.parametrize("model", MODELS)
def test_free_time_fields_by_hand(model: str) -> None:
    for field in one(model, 4, Kind.FILE)[0].driver.fields(one(model, 4, Kind.FILE)[1]):
        acct, folio, _ = one(model, 4, Kind.FILE)
        counters = acct.driver.of(folio)
        name = field.removeprefix("_").split("[")[0]
        value = getattr(counters, name)
        if isinstance(value, list):
            value[int(field[-2])] += 1
        else:
            setattr(counters, name, value + 1)
        with pytest.raises(FreeError):
            acct.free(folio)


def test_hugetlb_average_as_meant_and_as_posted() -> None:
    """Posted, hugetlb's mapcount is divided by the folio's pages: 1 up to 767 mappings, 2 from 768 on."""
    for literal, expected in ((False, [1, 2, 767, 768]), (True, [1, 1, 1, 2])):
        acct, folio, _ = one(T, 9, Kind.HUGETLB_ANON, literal=literal)
        acct.add_new_anon_rmap(folio, Mm(1))
        averages = []
        for count in (1, 2, 767, 768):
            while acct.driver.mapcount(folio) < count:
                acct.hugetlb_add_rmap(folio)
            averages.append(acct.driver.average_page_mapcount(folio))
        assert averages == expected
        assert acct.driver.stats.nr == [0] * 5
        assert acct.driver.of(folio).mm_id == [0, 0]


@pytest.mark.parametrize("model", MODELS)
def test_hugetlb_fork_and_write(model: str) -> None:
    acct, folio, mm = one(model, 9, Kind.HUGETLB_ANON)
    acct.get(folio, 1)
    acct.add_new_anon_rmap(folio, mm)
    acct.pin(folio, mm, 1)
    assert acct.hugetlb_try_dup_anon_rmap(folio, mm) == EBUSY
    acct.unpin(folio, 1)
    assert acct.hugetlb_try_dup_anon_rmap(folio, mm) == 0
    assert (acct.driver.mapcount(folio), acct.driver.maybe_mapped_shared(folio)) == (2, True)
    assert not acct.wp_can_reuse_hugetlb(folio)
    acct.hugetlb_remove_rmap(folio)
    assert acct.wp_can_reuse_hugetlb(folio)
    acct.hugetlb_remove_rmap(folio)
    acct.put(folio, 1)
    acct.free(folio)


@pytest.mark.parametrize(("literal", "mapcount"), [(False, 2), (True, 513)])
@pytest.mark.parametrize("model", MODELS)
def test_dup_file_rmap_pmd_and_its_slip(model: str, literal: bool, mapcount: int) -> None:
    acct, folio, mm = one(model, 9, Kind.FILE, literal=literal)
    acct.add_file_rmap(folio, mm, PMD, 0, 512)
    acct.dup_file_rmap_pmd(folio, Mm(2), 0)
    assert acct.driver.mapcount(folio) == mapcount


@pytest.mark.parametrize("model", MODELS)
def test_a_story_without_a_slot_for_the_third_mm(model: str) -> None:
    """The shared bit stays after the tracked mms left, does not count at one mapping, and clears with an owner."""
    acct, folio, a = one(model, 4, Kind.ANON)
    b, c = acct.mm_ids.alloc(), acct.mm_ids.alloc()
    driver = acct.driver
    acct.add_new_anon_rmap(folio, a)
    for dst in (b, c):
        assert acct.try_dup_anon_rmap(folio, dst, a, PTE, 0, 16) == 0
    acct.remove_rmap(folio, b, PTE, 0, 16)
    acct.remove_rmap(folio, c, PTE, 0, 16)
    assert (driver.of(folio).shared, driver.of(folio).mm_id) == (False, [a.id, 0]), "a owns all mappings again"
    for dst in (b, c):
        assert acct.try_dup_anon_rmap(folio, dst, a, PTE, 0, 16) == 0
    for mm in (a, b):
        acct.remove_rmap(folio, mm, PTE, 0, 16)
    assert (driver.of(folio).mm_id, driver.maybe_mapped_shared(folio)) == ([0, 0], True), "nobody is tracked"
    acct.remove_rmap(folio, c, PTE, 0, 15)
    assert (driver.of(folio).shared, driver.maybe_mapped_shared(folio)) == (True, False), "one mapping is not shared"


def test_a_slot_that_counts_less_than_its_mm_maps_is_freed_at_underflow() -> None:
    acct, folio, a = one(T, 4, Kind.FILE)
    b, c = acct.mm_ids.alloc(), acct.mm_ids.alloc()
    acct.add_file_rmap(folio, a, PTE, 0, 16)
    acct.add_file_rmap(folio, b, PTE, 0, 16)
    acct.add_file_rmap(folio, c, PTE, 0, 10)
    acct.remove_rmap(folio, b, PTE, 0, 16)
    acct.add_file_rmap(folio, c, PTE, 0, 1)
    counters = acct.driver.of(folio)
    assert (counters.mm_id, counters.mm_id_mapcount) == ([a.id, c.id], [15, 0])
    acct.remove_rmap(folio, c, PTE, 0, 10)
    assert (counters.mm_id, counters.mm_id_mapcount, counters.shared) == ([a.id, 0], [15, -1], True)


def test_two_pmds_and_a_pte_of_one_folio() -> None:
    """The series' example: 3 mappings of 1025 pages of a 512-page folio average to 2."""
    acct, folio, a = one(T, 9, Kind.SHMEM)
    for mm in (a, Mm(2)):
        acct.add_file_rmap(folio, mm, PMD, 0, 512)
    acct.add_file_rmap(folio, Mm(3), PTE, 0, 1)
    driver = acct.driver
    assert (driver.mapcount(folio), driver.fields(folio)["_total_mapped_pages"]) == (3, 1025)
    assert driver.average_page_mapcount(folio) == 2
    assert driver.stats.nr == [0, 512, 0, 512, 0]


@pytest.mark.parametrize(("page_size", "levels"), ORDERS_BY_PAGE_SIZE.items())
def test_other_granules(page_size: int, levels: LevelOrders) -> None:
    """A PMD-sized folio is one PMD at every granule; half of a folio twice as large is one PMD in T only."""
    acct = Accounting(rules=Rules(levels=levels, page_size=page_size))
    mm, pmd = acct.mm_ids.alloc(), levels.size(PMD)
    folio = acct.folio(levels.pmd, Kind.ANON)
    acct.add_new_anon_rmap(folio, mm)
    for model in acct.models.values():
        assert model.stats.meminfo(page_size)["AnonHugePages"] == pmd * page_size >> 10
        assert model.stats.mthp_nr_anon == {levels.pmd: 1}
    large = acct.folio(levels.pmd + 1, Kind.SHMEM)
    acct.add_file_rmap(large, mm, PMD, pmd, pmd)
    assert [model.name for model in acct.live(large)] == [T]
    assert acct.driver.stats.meminfo(page_size) == {
        "AnonPages": pmd * page_size >> 10,
        "Mapped": 2 * pmd * page_size >> 10,
        "AnonHugePages": pmd * page_size >> 10,
        "ShmemPmdMapped": 0,
        "FilePmdMapped": 0,
    }


def test_a_folio_too_large_for_a_counter() -> None:
    for kind, order, bits, model in ((Kind.FILE, 26, 64, P), (Kind.SHMEM, 16, 32, T)):
        acct = Accounting([model], rules=Rules(bits=bits))
        with pytest.raises(Rejected, match=r"do(es)? not fit"):
            acct.folio(order, kind)
    assert Accounting(rules=Rules(levels=LevelOrders(13, 26))).folio(26, Kind.FILE).counters[P].refused is not None


def test_pins_of_an_order_one_folio_on_32_bit() -> None:
    """Mainline keeps no pin counter there and takes 1024 references a pin; the series has one in every large folio."""
    acct = Accounting(rules=Rules(bits=32))
    folio, mm = acct.folio(1, Kind.FILE), acct.mm_ids.alloc()
    acct.pin(folio, mm, 2)
    assert [model.refcount(folio) for model in acct.models.values()] == [2050, 2050, 4]
    acct.unpin(folio, 2)
    acct.get(folio, 1022)
    assert [model.maybe_dma_pinned(folio) for model in acct.models.values()] == [True, True, False]


def test_device_private_folios_are_neither_pinned_nor_queued() -> None:
    acct, folio, mm = one(N, 4, Kind.ANON)
    folio.flags |= Flags.DEVICE_PRIVATE
    acct.add_new_anon_rmap(folio, mm)
    acct.pin(folio, mm, 1)
    assert acct.try_share_anon_rmap(folio, 0) == 0
    assert acct.try_dup_anon_rmap(folio, Mm(2), mm, PTE, 0, 16) == 0
    acct.remove_rmap(folio, Mm(2), PTE, 0, 16)
    acct.remove_rmap(folio, mm, PTE, 0, 8)
    assert not acct.driver.of(folio).partially_mapped


def test_reuse_of_small_and_pmd_mapped_pages() -> None:
    acct, folio, mm = one(P, 0, Kind.ANON)
    acct.get(folio, 1)
    acct.add_new_anon_rmap(folio, mm)
    acct.set_swapcache(folio, True)
    assert not acct.wp_can_reuse_anon_folio(folio, can_free_swap=False)
    assert acct.wp_can_reuse_anon_folio(folio)
    assert not folio.in_swapcache
    acct.get(folio, 1)
    assert not acct.wp_can_reuse_anon_folio(folio)
    ksm = acct.folio(0, Kind.KSM)
    acct.get(ksm, 1)
    acct.add_anon_rmap(ksm, mm, PTE, 0, 1)
    assert not acct.wp_can_reuse_anon_folio(ksm)
    thp = acct.folio(9, Kind.ANON)
    acct.get(thp, 1)
    acct.add_new_anon_rmap(thp, mm)
    acct.set_swapcache(thp, True)
    assert acct.wp_can_reuse_pmd(thp)
    assert acct.try_dup_anon_rmap(thp, Mm(9), mm, PMD, 0, 512) == 0
    acct.get(thp, 1)
    assert not acct.wp_can_reuse_pmd(thp)


def test_an_exclusive_page_mapped_twice_is_warned_about() -> None:
    for model, order in ((P, 4), (P, 0), (N, 0), (T, 0)):
        acct, folio, mm = one(model, order, Kind.ANON)
        acct.add_new_anon_rmap(folio, mm)
        acct.add_anon_rmap(folio, Mm(2), PTE, 0, 1)
        assert len(acct.warnings) == 1
        assert "marked exclusive and mapped more than once" in acct.warnings[0]
    for model in (N, T):
        acct, folio, mm = one(model, 4, Kind.ANON)
        acct.add_new_anon_rmap(folio, mm)
        acct.add_anon_rmap(folio, Mm(2), PTE, 0, 1)
        assert acct.warnings == [], "without a count per page the kernel cannot see it"


def test_mlock_only_of_whole_folios() -> None:
    acct, folio, mm = one(N, 4, Kind.FILE)
    acct.add_file_rmap(folio, mm, PTE, 0, 15, locked=True)
    assert acct.driver.stats.mlock == 0
    acct.remove_rmap(folio, mm, PTE, 0, 15, locked=True)
    acct.add_file_rmap(folio, mm, PTE, 0, 16, locked=True)
    assert (acct.driver.stats.mlock, acct.driver.stats.munlock) == (1, 1)


def test_splitting_a_folio() -> None:
    acct = Accounting()
    folio, mm = acct.folio(9, Kind.ANON, 0x4000), acct.mm_ids.alloc()
    acct.get(folio, 1)
    acct.add_new_anon_rmap(folio, mm)
    with pytest.raises(Rejected, match="cannot be split to order 0 while mapped or in use"):
        acct.split_folio(folio, 0)
    acct.deferred_split_folio(folio, partially_mapped=True)
    acct.remove_rmap(folio, mm, PMD, 0, 512)
    acct.put(folio, 1)
    with pytest.raises(Rejected, match="cannot be split to order 9"):
        acct.split_folio(folio, 9)
    parts = acct.split_folio(folio, 4)
    assert [part.pfn for part in parts] == list(range(0x4000, 0x4200, 16))
    for model in acct.models.values():
        assert model.stats.mthp_nr_anon == {9: 0, 4: 32}
        assert model.stats.mthp() == (32, 1, 0)
        assert model.deferred_split_queue == {}
    acct.add_anon_rmap(parts[3], mm, PTE, 0, 16, exclusive=True, exempt=True)
    assert acct.driver.stats.nr[Nr.ANON_MAPPED] == 16


def test_mm_ids_are_the_lowest_free() -> None:
    ids = MmIds(3)
    mms = [ids.alloc() for _ in range(3)]
    with pytest.raises(InputError, match="no mm id is free"):
        ids.alloc()
    mms[2].has_pinned = True
    ids.free(mms[2])
    ids.free(mms[0])
    assert [ids.alloc().id, ids.alloc().id] == [1, 3]
