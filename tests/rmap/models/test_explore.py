"""Every sequence of operations on small folios, to a stated depth, all models against the recount."""

from __future__ import annotations

import pytest

from ptwalk.rmap.explore import Violation, World, explore
from ptwalk.rmap.folio import Kind
from ptwalk.rmap.models import MODELS, Model, NoPageMapcount, TotalMappedPages

T_ONLY = ("total-mapped-pages",)
WORLDS = {
    "order 2, PMD of 4": (World(), 5),
    "order 2, PTEs only": (World(pmd_order=3, swapcache=False), 5),
    "order 3, PMDs of 4": (World(order=3, models=T_ONLY, swapcache=False), 4),
    "order 0": (World(order=0, pmd_order=3), 20),
    "order 1": (World(order=1, pmd_order=3, swapcache=False), 6),
    "file, order 2, PMD of 4": (World(kind=Kind.FILE), 4),
    "shmem, order 3, PMDs of 4": (World(order=3, kind=Kind.SHMEM, models=T_ONLY), 3),
}


@pytest.mark.parametrize("name", WORLDS)
def test_all_sequences(name: str) -> None:
    world, depth = WORLDS[name]
    done = explore(world, depth)
    print(f"{name}: {done}")
    assert done.states > 70


def test_a_small_folio_is_explored_to_the_end() -> None:
    done = explore(World(order=0, pmd_order=3), 30)
    assert done.complete
    assert done.states == explore(World(order=0, pmd_order=3), 40).states


@pytest.mark.slow
@pytest.mark.parametrize("name", WORLDS)
def test_all_sequences_deeper(name: str) -> None:
    world, depth = WORLDS[name]
    print(f"{name}: {explore(world, depth + 2, max_states=1_000_000)}")


def test_a_bound_on_states_is_reported() -> None:
    done = explore(World(), 5, max_states=50)
    assert (done.states, done.complete) == (50, False)


def test_a_broken_model_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """The exploration can fail: forget the total at fork, the slot rule, the entire mapcount."""
    with monkeypatch.context() as patch:
        patch.setattr(TotalMappedPages, "_dup_large", lambda s, f, lv, a, n, mm: s.add_large_mapcount(f, 1, mm))
        with pytest.raises(Violation, match="total mapped pages is 4, recounted 8"):
            explore(World(), 3)
    with monkeypatch.context() as patch:
        patch.setattr(Model, "maybe_mapped_shared", lambda s, f: False)
        with pytest.raises(Violation, match="several mms map it and it reads as exclusive"):
            explore(World(), 3)
    with monkeypatch.context() as patch:
        patch.setattr(NoPageMapcount, "note_partially_mapped", lambda s, f: None)
        with pytest.raises(Violation, match="no-page-mapcount: partially mapped is False, expected True"):
            explore(World(), 4)


def test_the_models_are_all_there() -> None:
    assert World().models == tuple(MODELS)
