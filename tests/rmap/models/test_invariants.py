"""Random operations on several folios and mms: the counters against the recount, the models against each other."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from ptwalk.rmap.calls import Accounting
from ptwalk.rmap.explore import CheckedStream
from ptwalk.rmap.folio import Kind
from ptwalk.rmap.levels import ORDERS_BY_PAGE_SIZE, Level, LevelOrders, Rules
from ptwalk.rmap.models import MODELS
from ptwalk.rmap.stream import Mapped

MMS = range(1, 6)
KINDS = st.sampled_from([Kind.ANON, Kind.ANON, Kind.ANON, Kind.FILE, Kind.SHMEM])


class Operations(RuleBasedStateMachine):
    """Every rule does one legal operation of the kernel; CheckedStream recounts after each primitive call."""

    levels = LevelOrders()
    bits = 64
    orders: tuple[int, ...] = (0, 1, 2, 3, 4, 9)
    models: tuple[str, ...] = tuple(MODELS)

    @initialize(data=st.data())
    def start(self, data: st.DataObject) -> None:
        acct = Accounting(self.models, rules=Rules(levels=self.levels, bits=self.bits))
        self.s = CheckedStream(acct, (2,))
        for f in range(data.draw(st.integers(1, 2))):
            self.s.folios.append(acct.folio(data.draw(st.sampled_from(self.orders)), data.draw(KINDS)))
            if self.s.folios[f].is_anon:
                self.s.new(f, 1, data.draw(st.booleans()))
            else:
                self.s.add(f, 1, Level.PTE, 0, self.s.folios[f].nr_pages, False)

    def folio(self, data: st.DataObject) -> int:
        return data.draw(st.integers(0, len(self.s.folios) - 1))

    def pick(self, data: st.DataObject) -> tuple[int, int, Mapped, Level, int, int] | None:
        """A folio, an mm that maps it, and one run of its entries (part of it if they are PTEs)."""
        found = [(f, m) for (f, m), mapped in sorted(self.s.maps.items()) if mapped]
        if not found:
            return None
        f, m = data.draw(st.sampled_from(found))
        mapped = self.s.maps[f, m]
        level, first, n = data.draw(st.sampled_from(list(mapped.runs())))
        if level == Level.PTE:
            skip = data.draw(st.integers(0, n - 1))
            first, n = first + skip, data.draw(st.integers(1, n - skip))
        return f, m, mapped, level, first, n

    def free_range(self, data: st.DataObject, f: int, m: int) -> tuple[Level, int, int] | None:
        folio = self.s.folios[f]
        top = [level for level in Level if folio.order >= self.levels.order(level)]
        level = data.draw(st.sampled_from(top))
        size = self.levels.size(level)
        if level != Level.PTE and folio.nr_pages != size and self.models != ("total-mapped-pages",):
            return None
        first = data.draw(st.integers(0, folio.nr_pages // size - 1)) * size
        n = size if level != Level.PTE else data.draw(st.integers(1, min(folio.nr_pages - first, 600)))
        if folio.is_anon and self.s.mapped(f, m).overlaps(first, n):
            return None
        return level, first, n

    @rule(data=st.data(), m=st.sampled_from(MMS))
    def map_first_or_more(self, data: st.DataObject, m: int) -> None:
        f = self.folio(data)
        folio = self.s.folios[f]
        if folio.fresh:
            self.s.new(f, m, data.draw(st.booleans()))
            return
        where = self.free_range(data, f, m)
        if where is None:
            return
        level, first, n = where
        marked = folio.exclusive.any(first, n) or any(
            folio.exclusive[page]
            for mapped in self.s.maps.values()
            for page, _ in mapped.leaves
            if page < folio.nr_pages
        )
        mapped_elsewhere = any(self.s.truth(f).pages[first : first + n])
        if folio.is_anon and marked:
            return
        self.s.add(f, m, level, first, n, folio.is_anon and not mapped_elsewhere and data.draw(st.booleans()))

    @rule(data=st.data())
    def unmap(self, data: st.DataObject) -> None:
        picked = self.pick(data)
        if picked is not None:
            f, m, _, level, first, n = picked
            self.s.rem(f, m, level, first, n)
            if self.s.folios[f].is_anon:
                self.s.acct.clear_exclusive(self.s.folios[f], level, first, n)

    @rule(data=st.data())
    def reclaim(self, data: st.DataObject) -> None:
        picked = self.pick(data)
        if picked is not None and self.s.folios[picked[0]].is_anon:
            f, m, _, level, first, n = picked
            self.s.unmap(f, m, level, first, min(n, 8) if level == Level.PTE else n)

    @rule(data=st.data())
    def split(self, data: st.DataObject) -> None:
        picked = self.pick(data)
        if picked is not None and picked[3] == Level.PMD and self.s.folios[picked[0]].is_anon:
            self.s.split(picked[0], picked[1], picked[4])

    def mms(self, mapping: bool) -> list[int]:
        users = {m for (_, m), mapped in self.s.maps.items() if mapped}
        return [m for m in MMS if (m in users) == mapping]

    @rule(data=st.data(), files=st.booleans())
    def fork(self, data: st.DataObject, files: bool) -> None:
        if self.mms(True) and self.mms(False):
            self.s.fork(data.draw(st.sampled_from(self.mms(True))), self.mms(False)[0], files)

    @rule(data=st.data())
    def exit(self, data: st.DataObject) -> None:
        if self.mms(True):
            self.s.exit(data.draw(st.sampled_from(self.mms(True))))

    @rule(data=st.data())
    def write_fault(self, data: st.DataObject) -> None:
        picked = self.pick(data)
        if picked is None or picked[3] != Level.PTE:
            return
        f, m, _, _, page, _ = picked
        folio = self.s.folios[f]
        if not folio.is_anon or folio.exclusive[page]:
            return
        others = sum(count for mm, count in self.s.truth(f).by_mm.items() if mm != m)
        if self.s.wp(f, m, page):
            assert not others, "a page of a folio that another mm maps must be copied"
            assert self.s.truth(f).pages[page] == 1
        else:
            self.s.rem(f, m, Level.PTE, page, 1)

    @rule(data=st.data())
    def pin_and_unpin(self, data: st.DataObject) -> None:
        picked = self.pick(data)
        if picked is None or not self.s.folios[picked[0]].is_anon:
            return
        f, m, _, level, first, _ = picked
        folio = self.s.folios[f]
        exclusive = folio.exclusive[first]
        self.s.pin(f, m, 1)
        if exclusive:
            assert self.s.share(f, level, first) == -16, "a pinned exclusive page stays exclusive"
        self.s.unpin(f, 1)

    @rule(data=st.data())
    def swap_cache(self, data: st.DataObject) -> None:
        f = self.folio(data)
        folio = self.s.folios[f]
        if folio.is_anon and not folio.fresh:
            self.s.swc(f, not folio.in_swapcache)

    @invariant()
    def no_two_and_total_agree(self) -> None:
        """What N says of folios up to a PMD's size, T says as well (spec §11.3)."""
        if not hasattr(self, "s") or len(self.models) < 3:
            return
        none, total = self.s.acct.models["no-page-mapcount"], self.s.acct.models["total-mapped-pages"]
        for folio in self.s.folios:
            assert none.average_page_mapcount(folio) == total.average_page_mapcount(folio)
            assert none.maybe_mapped_shared(folio) == total.maybe_mapped_shared(folio)
            assert none.of(folio).partially_mapped == total.of(folio).partially_mapped

    @invariant()
    def nothing_warns(self) -> None:
        if hasattr(self, "s"):
            assert self.s.acct.warnings == []

    def teardown(self) -> None:
        """Whatever happened, after all exits every counter has its free-time value."""
        if not hasattr(self, "s"):
            return
        for m in MMS:
            self.s.exit(m)
        for folio in self.s.folios:
            self.s.acct.set_swapcache(folio, False)
            self.s.acct.free(folio)
        for model in self.s.acct.models.values():
            assert model.stats.nr == [0] * 5
            assert model.deferred_split_queue == {}
            assert model.stats.mthp_nr_anon.total() == model.stats.mthp_nr_anon_partially_mapped.total() == 0


class Arm16K(Operations):
    levels = ORDERS_BY_PAGE_SIZE[16384]
    orders = (0, 2, 4, 9, 11)


class SmallPmdTotal(Operations):
    levels = LevelOrders(2, 4)
    orders = (1, 2, 3, 4, 5)
    models = ("total-mapped-pages",)


class ThirtyTwoBit(Operations):
    bits = 32


MACHINES: dict[str, tuple[Any, int]] = {
    "64-bit, 4K": (Operations, 350),
    "32-bit, 4K": (ThirtyTwoBit, 100),
    "arm64, 16K": (Arm16K, 60),
    "any order by any level": (SmallPmdTotal, 250),
}


@pytest.mark.parametrize("name", MACHINES)
def test_invariants(name: str) -> None:
    machine, examples = MACHINES[name]
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )
