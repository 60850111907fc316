"""Bulk map, unmap and fork count what the entry-by-entry calls count, in every model, batched or one by one."""

from __future__ import annotations

import random

import numpy as np
import pytest

from ptwalk.arch.errors import InputError
from ptwalk.rmap.bulk import MODELS, X86_FORM, BulkFrames
from ptwalk.rmap.calls import Accounting
from ptwalk.rmap.errors import Rejected
from ptwalk.rmap.folio import Flags, Kind
from ptwalk.rmap.levels import Level

BASE, FRAMES, SLOTS = 0x4000, 2048, 600
PROT, RW, ACCESSED = 0x67, 0x2, 0x20


class World:
    """Folios in fixed places, three address spaces with one array of entries each, and their accounting."""

    def __init__(self, seed):
        rng = random.Random(seed)
        self.acct = Accounting()
        self.mms = [self.acct.mm_ids.alloc() for _ in range(3)]
        self.tables = [np.zeros(SLOTS, np.uint64) for _ in self.mms]
        self.folios, frame = [], 0
        while frame < FRAMES:
            order = rng.choice([0, 0, 0, 1, 2, 4, 9])
            if frame & (1 << order) - 1 or frame + (1 << order) > FRAMES:
                order = 0
            kind = rng.choice([Kind.ANON, Kind.ANON, Kind.FILE, Kind.SHMEM])
            flags = Flags.DEVICE_PRIVATE if kind is Kind.ANON and rng.random() < 0.1 else Flags(0)
            folio = self.acct.folio(order, kind, BASE + frame, flags=flags, fresh=False)
            if kind is Kind.ANON:
                folio.exclusive.fill(0, folio.nr_pages, rng.randrange(2))
            if order == 9 and rng.random() < 0.5:  # also mapped by a PMD of another space
                add = self.acct.add_anon_rmap if kind is Kind.ANON else self.acct.add_file_rmap
                self.acct.get(folio, 1)
                add(folio, self.mms[2], Level.PMD, 0, 512)
            self.folios.append(folio)
            frame += folio.nr_pages
        self.at = {f.pfn + i: (f, i) for f in self.folios for i in range(f.nr_pages)}

    def state(self):
        """Everything that an operation may change."""
        folios = [
            (f.refs, f.exclusive.key(), [(f.counters[m].key(), f.counters[m].nr, f.counters[m].mm_id) for m in MODELS])
            for f in self.folios
        ]
        stats = [vars(model.stats) for model in self.acct.models.values()]
        queues = [[f.pfn for f in model.deferred_split_queue] for model in self.acct.models.values()]
        return folios, stats, queues, [table.tolist() for table in self.tables]

    def batches(self, pfns, batched):
        """Runs of slots whose frames go on inside one folio: (first slot, folio, first page, pages)."""
        k = 0
        while k < len(pfns):
            if pfns[k] is None:
                k += 1
                continue
            folio, page = self.at[pfns[k]]
            n = 1
            while batched and k + n < len(pfns) and page + n < folio.nr_pages and pfns[k + n] == pfns[k] + n:
                n += 1
            yield k, folio, page, n
            k += n

    def map(self, mm, first, pfns, batched):
        for k, folio, page, n in self.batches(pfns, batched):
            self.acct.get(folio, n)
            add = self.acct.add_anon_rmap if folio.is_anon else self.acct.add_file_rmap
            add(folio, self.mms[mm], Level.PTE, page, n)
            for i in range(n):
                self.tables[mm][first + k + i] = np.uint64((pfns[k] + i) << 12 | PROT)

    def mapped(self, mm, first, size):
        return [int(e) >> 12 if e else None for e in self.tables[mm][first : first + size]]

    def unmap(self, mm, first, size, batched):
        for k, folio, page, n in self.batches(self.mapped(mm, first, size), batched):
            self.acct.remove_rmap(folio, self.mms[mm], Level.PTE, page, n)
            self.acct.put(folio, n)
            self.tables[mm][first + k : first + k + n] = 0

    def fork(self, src, dst, batched):
        for k, folio, page, n in self.batches(self.mapped(src, 0, SLOTS), batched):
            self.acct.get(folio, n)
            if folio.is_anon:
                assert self.acct.try_dup_anon_rmap(folio, self.mms[dst], self.mms[src], Level.PTE, page, n) == 0
            else:
                self.acct.dup_file_rmap(folio, self.mms[dst], Level.PTE, page, n)
            for i in range(k, k + n):
                self.tables[src][i] &= np.uint64(~RW & (1 << 64) - 1)
                self.tables[dst][i] = self.tables[src][i] & np.uint64(~ACCESSED & (1 << 64) - 1)

    def bulk(self):
        return BulkFrames(self.acct, self.folios, first_pfn=BASE, nr_frames=FRAMES, form=X86_FORM)


def operation(rng, calls):
    """One random operation as a tuple: what, space, first slot, and frames or a length."""
    mm = rng.randrange(2)
    what = rng.choice(["map", "map", "unmap", "fork"])
    if what == "fork":
        return ("fork", mm) if not calls.tables[1 - mm].any() else ("unmap", 1 - mm, 0, SLOTS)
    first, size = rng.randrange(SLOTS - 1), rng.choice([1, 5, 40, 600])
    size = min(size, SLOTS - first)
    if what == "unmap":
        return ("unmap", mm, first, size)
    free = size if not calls.tables[mm][first : first + size].any() else 0
    if not free:
        return ("unmap", mm, first, size)
    pfns, start = [], rng.randrange(FRAMES)
    while len(pfns) < size:
        run = min(rng.choice([1, 3, 16, 512]), FRAMES - start, size - len(pfns))
        pfns += range(BASE + start, BASE + start + run)
        start = rng.randrange(FRAMES)
    return ("map", mm, first, pfns)


@pytest.mark.parametrize("batched", [True, False], ids=["batched", "single"])
def test_bulk_equals_the_calls(batched):
    seen, queued = set(), 0
    for seed in range(10):
        calls = compare(seed, batched, seen)
        queued += sum(map(len, calls.state()[2]))
    assert seen == {"map", "unmap", "fork"}
    assert queued > 10


def compare(seed, batched, seen):
    """Run one random story both ways and compare all state several times; the world of the calls."""
    calls, arrays = World(seed), World(seed)
    rng, bulk = random.Random(seed * 2 + batched), None
    for _ in range(40):
        what, mm, *rest = operation(rng, calls)
        seen.add(what)
        bulk = bulk or arrays.bulk()
        table = arrays.tables[mm]
        if what == "map":
            first, pfns = rest
            calls.map(mm, first, pfns, batched)
            words = np.array(pfns, np.uint64)
            bulk.map(table[first : first + len(pfns)], words, arrays.mms[mm], prot=PROT, batched=batched)
        elif what == "unmap":
            first, size = rest
            calls.unmap(mm, first, size, batched)
            bulk.unmap(table[first : first + size], arrays.mms[mm], batched=batched)
        else:
            calls.fork(mm, 1 - mm, batched)
            src, dst = arrays.mms[mm], arrays.mms[1 - mm]
            bulk.fork(
                table, arrays.tables[1 - mm], src, dst, protect=(RW, 0, 0, 0, 0), clear_child=ACCESSED, batched=batched
            )
        if rng.random() < 0.3:  # give back and take over again
            bulk.flush()
            bulk = None
            assert arrays.state() == calls.state(), seed
    if bulk:
        bulk.flush()
    assert arrays.state() == calls.state(), seed
    return calls


def test_what_bulk_does_not_know_it_refuses_before_that_entry():
    world = World(1)
    bulk = world.bulk()
    anon = next(f for f in world.folios if f.is_anon and f.order == 0)
    table = world.tables[0]
    bulk.map(table[:1], np.array([anon.pfn], np.uint64), world.mms[0], prot=PROT)
    table[1] = 0x1234_5678_0000_0200  # a swap entry
    with pytest.raises(Rejected, match="bulk unmap stopped before entry 1 of 600, which it does not account for"):
        bulk.unmap(table, world.mms[0])
    assert table[0] == 0
    with pytest.raises(Rejected, match="bulk map stopped before entry 0 of 1"):
        bulk.map(table[1:2], np.array([anon.pfn], np.uint64), world.mms[0], prot=PROT)
    with pytest.raises(Rejected, match="bulk map stopped before entry 0 of 1"):
        bulk.map(table[:1], np.array([BASE + FRAMES], np.uint64), world.mms[0], prot=PROT)
    table[0] = anon.pfn << 12 | PROT  # an entry that nothing counted
    with pytest.raises(Rejected, match="bulk unmap stopped before entry 0"):
        bulk.unmap(table[:1], world.mms[0])
    world.mms[0].has_pinned = True
    with pytest.raises(Rejected, match="bulk fork of an address space that pinned pages"):
        bulk.fork(table, world.tables[1], world.mms[0], world.mms[1], protect=(RW, 0, 0, 0, 0))


def test_only_all_three_models_can_be_run_in_bulk():
    acct = Accounting(["precise"])
    with pytest.raises(InputError, match="bulk operations run the models precise, no-page-mapcount"):
        BulkFrames(acct, [], first_pfn=0, nr_frames=1, form=X86_FORM)
    acct = Accounting()
    with pytest.raises(InputError, match="take no hugetlb"):
        BulkFrames(acct, [acct.folio(9, Kind.HUGETLB_FILE, 0)], first_pfn=0, nr_frames=512, form=X86_FORM)
