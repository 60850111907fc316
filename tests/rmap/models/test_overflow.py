"""The overflow proposal: soft limit at half of a counter, hard limit inside it, headroom for splits."""

from __future__ import annotations

from typing import Any

import pytest

from ptwalk.rmap.calls import EBUSY, Accounting
from ptwalk.rmap.errors import CounterOverflow, Rejected
from ptwalk.rmap.folio import Kind
from ptwalk.rmap.levels import Level, Rules
from ptwalk.rmap.mm_id import Mm
from ptwalk.rmap.models import MODELS
from ptwalk.rmap.overflow import Limits
from ptwalk.rmap.stream import Stream

PTE, PMD = Level.PTE, Level.PMD


def stream(order: int, kind: Kind, *, models: list[str] | None = None, **rules: Any) -> Stream:
    acct = Accounting(models or list(MODELS), rules=Rules(**rules))
    made = Stream(acct)
    made.folios = [acct.folio(order, kind)]
    return made


@pytest.mark.parametrize("model", MODELS)
def test_fork_stops_at_the_soft_mapcount_limit(model: str) -> None:
    s = stream(4, Kind.ANON, models=[model], limits=Limits(mapcount=1000))
    s.new(0, 1, True)
    forks = 0
    while s.acct.may_map(s.folios[0], PTE) >= 16:
        forks += 1
        s.fork(1, 1 + forks)
    assert s.acct.driver.mapcount(s.folios[0]) == 496
    assert s.acct.may_map(s.folios[0], PTE) == 4, "half of 1000, less 496 mappings"


def test_total_mapped_pages_has_a_soft_limit_of_its_own() -> None:
    s = stream(10, Kind.SHMEM, limits=Limits(total_mapped_pages=8192))
    for mm in range(1, 9):
        assert s.acct.may_map(s.folios[0], PMD) == 9 - mm
        s.add(0, mm, PMD, 0, 512, False)
    assert s.acct.driver.mapcount(s.folios[0]) == 8
    assert s.acct.may_map(s.folios[0], PMD) == 0
    assert s.acct.may_map(s.folios[0], PTE) == 0


def test_references_have_a_soft_limit_too() -> None:
    s = stream(0, Kind.FILE, limits=Limits(refcount=10))
    s.add(0, 1, PTE, 0, 1, False)
    assert s.acct.may_map(s.folios[0], PTE) == 3, "5 less one mapping and the page cache"


@pytest.mark.parametrize("model", MODELS)
def test_the_hard_limit_changes_nothing(model: str) -> None:
    s = stream(4, Kind.FILE, models=[model], limits=Limits(mapcount=100))
    for mm in range(1, 6):
        s.add(0, mm, PTE, 0, 16, False)
    folio, driver = s.folios[0], s.acct.driver
    before = (driver.of(folio).key(), driver.stats.nr.copy(), folio.refs)
    with pytest.raises(CounterOverflow, match=r"16 more mappings of .* would pass the hard mapcount limit of 100"):
        s.add(0, 6, PTE, 0, 16, False)
    assert (driver.of(folio).key(), driver.stats.nr, folio.refs) == before


def test_fork_at_the_hard_limit_copies_instead() -> None:
    s = stream(4, Kind.ANON, limits=Limits(mapcount=40))
    s.new(0, 1, True)
    assert s.dup(0, 1, 2, PTE, 0, 8) == 0
    assert s.dup(0, 1, 3, PTE, 0, 16) == EBUSY
    assert s.acct.driver.mapcount(s.folios[0]) == 24
    assert not s.folios[0].exclusive.any(0, 8)
    assert s.folios[0].exclusive.any(8, 8), "a refused fork leaves the marks"


def test_a_split_may_use_the_headroom_and_ends_below_the_limit() -> None:
    """Two PMD mappings and a limit of 1024: a split passes 1024 - headroom on its way, an addition may not."""
    s = stream(9, Kind.ANON, limits=Limits(mapcount=1024))
    s.new(0, 1, True)
    s.fork(1, 2)
    s.split(0, 1, 0)
    assert s.acct.driver.mapcount(s.folios[0]) == 513
    with pytest.raises(CounterOverflow):
        s.add(0, 3, PTE, 0, 1, False)
    with pytest.raises(CounterOverflow):
        s.split(0, 2, 0)
    s.rem(0, 1, PTE, 0, 3)
    s.split(0, 2, 0)
    assert s.acct.driver.mapcount(s.folios[0]) == 512 + 509


def test_a_32_bit_total_overflows_before_the_mapcount() -> None:
    """4,194,304 PMD mappings of 512 pages fill a signed 32-bit long; the soft limit is half of that."""
    s = stream(10, Kind.SHMEM, models=["total-mapped-pages"], bits=32)
    counters = s.acct.driver.of(s.folios[0])
    counters.total_mapped_pages, counters.large_mapcount = (1 << 30) - 513, (1 << 21) - 3
    assert s.acct.may_map(s.folios[0], PMD) == 1
    counters.total_mapped_pages, counters.large_mapcount = (1 << 31) - 1536, (1 << 22) - 4
    assert s.acct.may_map(s.folios[0], PMD) == 0
    with pytest.raises(CounterOverflow, match=r"512 more pages .* hard limit of 2147483647 mapped pages"):
        s.acct.add_file_rmap(s.folios[0], Mm(1), PMD, 0, 512)


def test_as_posted_nothing_checks_and_the_counter_turns_negative() -> None:
    s = stream(10, Kind.SHMEM, models=["total-mapped-pages"], bits=32, literal=True, limits=Limits(mapcount=10))
    counters = s.acct.driver.of(s.folios[0])
    counters.total_mapped_pages, counters.large_mapcount = (1 << 31) - 512, (1 << 22) - 2
    s.acct.add_file_rmap(s.folios[0], Mm(1), PMD, 0, 512)
    assert counters.total_mapped_pages == -(1 << 31)
    assert s.acct.may_map(s.folios[0], PMD) > 1 << 30


def test_references_have_a_hard_limit() -> None:
    acct = Accounting(rules=Rules(limits=Limits(refcount=3)))
    folio = acct.folio(0, Kind.FILE)
    acct.get(folio, 2)
    with pytest.raises(CounterOverflow, match=r"1 more references of .* would pass the limit of 3"):
        acct.get(folio, 1)
    with pytest.raises(Rejected, match=r"9 references of .* to drop, only 3 are held"):
        acct.put(folio, 9)
