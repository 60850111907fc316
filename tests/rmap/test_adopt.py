"""Adoption: the hook's arithmetic forwards and backwards, and folios from hostile kpageflags."""

from __future__ import annotations

from dataclasses import replace

import pytest
from verified_captures import NEW_ARM, OLD_SWAP, N, P, kernel, opened

from ptwalk.arch.errors import InputError
from ptwalk.arch.linux import LinuxFlags
from ptwalk.arch.linux_proc import KPF
from ptwalk.rmap.adopt import EntryObserver, KernelFacts, KernelFrames
from ptwalk.rmap.adopt.observer import installed
from ptwalk.rmap.calls import Accounting
from ptwalk.rmap.truth import problems, recount
from ptwalk.rmap_verify.adopted import Adopted
from ptwalk.rmap_verify.slots import real_counts


@pytest.mark.parametrize(("name", "checkpoint"), [(P, 4), (N, 6), (NEW_ARM, 3), (OLD_SWAP, 4)])
def test_what_was_installed_can_be_removed_again(name: str, checkpoint: int) -> None:
    one = Adopted(opened(name).checkpoint(checkpoint), kernel(name))
    for process in reversed(one.processes):
        observer = EntryObserver(process, one.frames)
        for batch in installed(process):
            observer([replace(change, old=change.new, new=0) for change in batch])
        assert process.refused == []
    for folio in one.frames.folios.values():
        for model in one.acct.models.values():
            model.check_free(folio)
    assert all(model.stats.nr == [0, 0, 0, 0, 0] for model in one.acct.models.values())
    assert not any(one.frames.swap_entries.values())


def test_rights_accessed_and_dirty_move_nothing() -> None:
    one = Adopted(opened(P).checkpoint(4), kernel(P))
    process = one.processes[1]
    before = {f: [m.of(f).key() for m in one.acct.models.values()] for f in one.frames.folios.values()}
    observer, linux = EntryObserver(process, one.frames), process.tables.linux
    changed = 0
    for batch in installed(process):
        rewritten = []
        for change in batch:
            if linux.decode(change.level.number, change.new).present:
                new = linux.set(change.level.number, change.new, LinuxFlags.YOUNG | LinuxFlags.DIRTY)
                rewritten.append(replace(change, old=change.new, new=new))
                changed += new != change.new
        observer(rewritten)
    assert changed > 100
    assert before == {f: [m.of(f).key() for m in one.acct.models.values()] for f in one.frames.folios.values()}


def test_the_recount_from_a_bare_list_agrees() -> None:
    one = Adopted(opened(P).checkpoint(4), kernel(P))
    levels = one.acct.rules.levels
    mappings: dict[int, list[tuple[int, object, int, int]]] = {}
    for process in one.processes:
        for entry in process.entries(0, process.tables.tree.va_end):
            folio = None if entry.special or not entry.present else one.frames.folio(entry.pfn)
            if folio is not None:
                page = entry.pfn - folio.pfn
                mappings.setdefault(folio.pfn, []).append((process.mm.id, entry.level, page, 1))
    real = real_counts(one)
    compared = 0
    for pfn, listed in mappings.items():
        folio = one.frames.folios[pfn]
        if folio.kind.is_hugetlb:
            continue
        truth = recount(folio.nr_pages, listed, levels)  # type: ignore[arg-type]
        assert truth.by_mm == real[folio]
        for model in one.acct.models.values():
            assert problems(model, folio, truth) == []
            compared += 1
    assert compared > 700


def frames(words: dict[int, int]) -> KernelFrames:
    return KernelFrames(Accounting(["precise"]), KernelFacts(words.get))


HEAD, TAIL, ANON = (KPF.mask(name) for name in ("COMPOUND_HEAD", "COMPOUND_TAIL", "ANON"))


def test_folios_that_cannot_be() -> None:
    with pytest.raises(InputError, match="without a head"):
        frames({5: TAIL, 6: TAIL}).folio(6)
    with pytest.raises(InputError, match="3 pages"):
        frames({4: HEAD, 5: TAIL, 6: TAIL}).folio(5)
    with pytest.raises(InputError, match="aligned"):
        frames({5: HEAD, 6: TAIL}).folio(5)


def test_frames_without_a_folio_are_told_apart() -> None:
    found = frames({1: KPF.mask("ZERO_PAGE"), 2: KPF.mask("NOPAGE"), 4: HEAD | ANON, 5: TAIL | ANON})
    assert found.folio(1) is None
    assert found.folio(2) is None
    assert found.unknown == set()
    assert found.folio(3) is None
    assert found.unknown == {3}
    assert found.folio(5) is found.folio(4)
    assert found.is_zero(1)
    assert not found.is_zero(3)
