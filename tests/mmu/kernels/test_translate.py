"""Every form of batch translation answers as the reference walker does, on random and hostile tables."""

from __future__ import annotations

import zlib

import numpy as np
import pytest

from ptwalk.arch.errors import InputError
from ptwalk.mmu.kernels import FORMS, chunk_view, flat_view, translate_many
from ptwalk.mmu.kernels.fast import forms
from ptwalk.mmu.kernels.plans import plan_for
from ptwalk.mmu.kernels.reference import info_of, walk_one
from ptwalk.mmu.kernels.steps import MANY, REDO
from ptwalk.mmu.kernels.translate import choose
from ptwalk.mmu.walk import Access, AccessKind

from .hostile import MODES, SIZE, WITHOUT_PLAN, addresses, tables

ACCESSES = [Access(kind, user) for kind in AccessKind for user in (False, True)]


def digest(memory):
    return zlib.crc32(memory.read(0, SIZE))


FLAT_AND_CHUNK = [(mode, False) for mode in MODES] + [(m, True) for m in ("x86-4level", "arm64-4k-48", "arm64-64k-52")]


@pytest.mark.parametrize(("mode", "split"), FLAT_AND_CHUNK)
def test_every_form_equals_the_reference_walker(mode, split):
    count, translated = 250, 0
    for seed, access in enumerate(ACCESSES):
        memory, regime = tables(mode, seed, split=split)
        vas = addresses(regime, seed, count)
        outcomes = [walk_one(memory, regime, int(va), access, update=False) for va in vas]
        forms = FORMS if seed < 2 else ("pipelined", "cached")
        for form in forms:
            batch = translate_many(memory, regime, vas, access, form=form)
            wanted = [info_of(outcome, batch.faults) for outcome in outcomes]
            wrong = np.flatnonzero(batch.info != np.array(wanted, np.uint64))
            assert not len(wrong), (mode, form, access, hex(vas[wrong[0]]), outcomes[wrong[0]], batch.info[wrong[0]])
            assert batch.pa.tolist() == [getattr(outcome, "pa", 0) for outcome in outcomes]
        translated += sum(hasattr(outcome, "rights") for outcome in outcomes)
    assert translated > 30


@pytest.mark.parametrize("form", [form for form in FORMS if form != "full"])
def test_a_batch_whose_results_pass_the_caches_is_the_same(form):
    memory, regime = tables("x86-4level", 1)
    few = addresses(regime, 1, 250)
    few[:60] = np.sort(few[:60])
    small = translate_many(memory, regime, few, form=form)
    size, times = MANY + 13, MANY // len(few) + 1
    large = translate_many(memory, regime, np.tile(few, times)[:size], form=form, threads=2)
    assert len(large) == size
    assert large.pa.ctypes.data % 64 == large.info.ctypes.data % 64 == 0
    assert np.array_equal(large.pa, np.tile(small.pa, times)[:size])
    assert np.array_equal(large.info, np.tile(small.info, times)[:size])


@pytest.mark.parametrize("mode", MODES)
def test_updates_leave_memory_as_the_reference_walker_does(mode):
    for seed, access in enumerate(ACCESSES[:4]):
        memory, regime = tables(mode, seed)
        before, data = memory.read(0, SIZE), memory.banks[0].data
        vas = addresses(regime, seed, 120)
        for va in vas:
            walk_one(memory, regime, int(va), access, update=True)
        wanted = digest(memory)
        for form in (f for f in FORMS if f != "auto"):
            data[:] = before
            translate_many(memory, regime, vas, access, update=True, form=form)
            assert digest(memory) == wanted, (mode, form, access)


@pytest.mark.parametrize("mode", MODES)
def test_the_fast_forms_decide_most_addresses_themselves(mode):
    memory, regime = tables(mode, 7, wild=0)
    fast = plan_for(regime, Access(), translate_many(memory, regime, []).faults, update=False)
    assert fast is not None
    vas = addresses(regime, 7, 2000)
    pa, info = np.zeros(2000, np.uint64), np.zeros(2000, np.uint64)
    assert forms(fast[0]).single(flat_view(memory), fast[1], vas, pa, info) == np.any(info == REDO)
    assert np.count_nonzero(info == REDO) < 1400


@pytest.mark.parametrize("mode", WITHOUT_PLAN)
def test_regimes_without_a_plan_are_translated_by_the_full_rules(mode):
    seen = 0
    for seed, access in enumerate(ACCESSES):
        memory, regime = tables(mode, seed, wild=0.01)
        vas = addresses(regime, seed, 200)
        outcomes = [walk_one(memory, regime, int(va), access, update=False) for va in vas]
        batch = translate_many(memory, regime, vas, access)
        assert batch.info.tolist() == [info_of(outcome, batch.faults) for outcome in outcomes]
        assert batch.pa.tolist() == [getattr(outcome, "pa", 0) for outcome in outcomes]
        seen += int(np.count_nonzero(batch.ok))
        assert plan_for(regime, access, batch.faults, update=False) is None
    assert seen > 10


def test_threads_give_the_same_answer_and_lose_no_update():
    results = []
    for threads in (1, 3):
        memory, regime = tables("x86-4level", 1, wild=0)
        vas = np.resize(addresses(regime, 1, 5000), 300_000)
        batch = translate_many(memory, regime, vas, Access(AccessKind.WRITE), update=True, threads=threads)
        results.append((batch.info.tolist(), batch.pa.tolist(), digest(memory)))
    assert results[0] == results[1]


def test_views_may_be_passed_instead_of_memory():
    memory, regime = tables("x86-4level", 3)
    vas = addresses(regime, 3, 300)
    wanted = translate_many(memory, regime, vas).info
    for view in (flat_view(memory), chunk_view(memory)):
        assert np.array_equal(translate_many(view, regime, vas).info, wanted)


def test_the_form_follows_the_sample():
    rng = np.random.default_rng(1)
    assert choose(np.arange(0, 1 << 32, 4096, dtype=np.uint64)) == "ordered"
    assert choose(rng.integers(0, 1 << 30, 10_000, np.uint64)) == "cached"
    assert choose(rng.integers(0, 1 << 40, 10_000, np.uint64)) == "pipelined"
    assert choose(np.zeros(0, np.uint64)) == "cached"


def test_an_unknown_form_is_refused():
    memory, regime = tables("x86-4level", 1)
    with pytest.raises(InputError, match=r"form: no such form \(there are: auto, single, .*\) \('quick'\)"):
        translate_many(memory, regime, [0], form="quick")
